"""The page itself: what stands where, and which answer belongs to which part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mien.errors import MienError
from mien.web import markup
from mien.web.answers import Photos, Service, wanted_ages

STYLE = Path(__file__).with_name("page.css")
TITLE = "mien"
#: Fonts that the machine has: gradio's own default would be fetched from elsewhere.
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
FONTS_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
#: Ages that are asked for until others are typed.
AGES = "5:95:10"
#: Strengths that the slider offers.
STRENGTHS = (0.5, 2.0)

EMPTY = "Choose a photo on the left: drop a file, take a picture with the camera, or paste one."
PROMISE = (
    "The photo goes to the machine that runs mien serve and no further. Its file is deleted as soon as it is answered, "
    "and no answer stays on disk; the photo itself is forgotten when you remove it, close this page or end mien serve."
)
MODELS = (
    "The figures were measured on faces that the models did not learn from; each model's card says on which, with "
    "intervals and by group. mien models lists weights made elsewhere too."
)


def photo_field() -> gr.Image:
    """gradio's field for a picture, without its opinion of what one is: the file goes to mien's own reader as it is."""
    field = gr.Image(
        label="Photo",
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        height=340,
        buttons=[],
        placeholder="# Drop a photo here\nor click to choose one",
    )
    cached = field.async_move_resource_to_block_cache

    async def uploaded(url_or_file_path: str | Path | None) -> str | None:
        # gradio would fetch an address, and read any file of the machine. The page sends neither: whoever does is no
        # friend of who looks at it.
        folder = Path(field.GRADIO_CACHE).resolve()
        if url_or_file_path is not None and not Path(url_or_file_path).resolve().is_relative_to(folder):
            raise gr.Error("a photo is a file that this page has uploaded", print_exception=False)
        return await cached(url_or_file_path)

    def path_of(payload: Any) -> str | None:
        return None if payload is None else payload.path

    def nothing() -> None:  # gradio's own examples are addresses of its makers
        return None

    # Not a subclass: of each, gradio writes a .pyi file beside its source.
    for name, own in (
        ("async_move_resource_to_block_cache", uploaded),
        ("preprocess", path_of),
        ("example_payload", nothing),
        ("example_value", nothing),
    ):
        setattr(field, name, own)
    return field


def theme() -> gr.themes.Base:
    """Quiet colours, and no font that must be fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        font=FONTS,
        font_mono=FONTS_MONO,
    )


def build_page(service: Service, shipped: Sequence[Mapping[str, Any]]) -> gr.Blocks:
    """The page that asks `service`; `shipped` is what `mien models` tells of the models that come with the package."""
    photos = Photos()
    answering = service.answering()

    def tell(groups_out: bool, page: str) -> str:
        return _answered(lambda photo: markup.told_faces(service.tell(photo, not groups_out)), photos, page)

    def receive(path: str | None, groups_out: bool, request: gr.Request) -> tuple[str, str]:
        """The answer to a new photo; what was shown of the one before goes with it."""
        page = _page_of(request)
        if path is None:
            photos.forget(page)
            return markup.notice(EMPTY), ""
        try:
            photos.take(page, path)
            return tell(groups_out, page), ""
        except MienError as error:
            return markup.problem(error), ""
        finally:  # not before: the page shows the photo by its file
            Path(path).unlink(missing_ok=True)

    def again(groups_out: bool, request: gr.Request) -> str:
        return tell(groups_out, _page_of(request))

    def age(text: str, strength: float | None = None, request: gr.Request | None = None) -> str:
        def show(photo: Any) -> str:
            ages = wanted_ages(text)
            return markup.aged_faces(service.age(photo, ages, strength), service.renderer.name, service.beyond(ages))

        assert request is not None  # gradio gives it
        return _answered(show, photos, _page_of(request))

    def forget(request: gr.Request) -> None:
        photos.forget(_page_of(request))

    plain: dict[str, Any] = {"elem_classes": "mien", "apply_default_css": False}
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 3600), fill_width=True) as blocks:
        gr.HTML(_head(answering), **plain)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                photo = photo_field()
                groups_out = gr.Checkbox(label="Leave gender and race out", value=False)
                gr.HTML(f'<p class="note">{escape(PROMISE)}</p>', **plain)
            with gr.Column(scale=8, min_width=480):
                with gr.Tab("Faces"):
                    told = gr.HTML(markup.notice(EMPTY), **plain)
                with gr.Tab("Other ages"):
                    with gr.Row():
                        asked = gr.Textbox(
                            AGES, label="Ages in years", info="FIRST:LAST:STEP, or some with commas: 20,40,60", scale=4
                        )
                        strength = gr.Slider(
                            min(STRENGTHS[0], service.strength or 1.0),
                            max(STRENGTHS[1], service.strength or 1.0),
                            value=service.strength or 1.0,
                            step=0.1,
                            label="Strength",
                            info="Less keeps the person, more shows the age",
                            visible=service.strength is not None,
                            scale=2,
                        )
                        button = gr.Button("Show these ages", variant="primary", scale=1, elem_classes="ask")
                    synthetic = markup.synthetic_note(service.renderer.name, service.renderer.card)
                    gr.HTML(f'<p class="note">{escape(synthetic)}</p>', **plain)
                    aged = gr.HTML("", **plain)
                with gr.Tab("Models"):
                    gr.HTML(f'{markup.models_table(shipped, answering)}<p class="note">{escape(MODELS)}</p>', **plain)
        # One question at a time: two would only share the same cores.
        once: dict[str, Any] = {
            "concurrency_id": "models",
            "concurrency_limit": 1,
            "api_visibility": "undocumented",
        }
        photo.change(receive, [photo, groups_out], [told, aged], **once)
        groups_out.change(again, [groups_out], [told], **once)
        wanted = [asked] if service.strength is None else [asked, strength]
        gr.on([button.click, asked.submit], age, wanted, [aged], **once)
        blocks.unload(forget)
    return blocks


def _answered(answer: Callable[[Any], str], photos: Photos, page: str) -> str:
    """What `answer` says of the page's photo; a user's mistake, or none of a photo, as a sentence."""
    try:
        photo = photos.photo(page)
        return markup.notice(EMPTY) if photo is None else answer(photo)
    except MienError as error:
        return markup.problem(error)


def _page_of(request: gr.Request) -> str:
    """What gradio tells one open page from another by."""
    return str(request.session_hash)


def _head(answering: Sequence[Mapping[str, Any]]) -> str:
    return (
        "<h1>mien</h1>"
        '<p class="subtitle">What the models tell of the faces in a photo.</p>'
        '<p class="terms"><b>Decide nothing about a person with it.</b> '
        f"{escape(markup.terms_in_short(answering))}.</p>"
    )
