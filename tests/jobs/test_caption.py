"""Captions by labels and by a model of transformers' own class; the cache they make, and who reads it."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mien.data.drawing.face import draw
from mien.data.manifest import Manifest
from mien.data.slices import Slices
from mien.data.sources.drawn import sample
from mien.errors import MienError
from mien.faces import Crop, Face
from mien.jobs.caption import FILE, Captioning, caption
from mien.models.captioners import ImageTextCaptioner, label_caption
from mien.models.image_text import ImageText
from mien.models.language import read_captions

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
tiny = importlib.import_module("tiny_image_text")

BAD = 2


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Four drawn faces, the third not there, the last the first one's copy."""
    (tmp_path / "in").mkdir()
    labels = [
        {"age": (40.0, 40.0), "gender": "Female", "race": "Asian", "expression": "Happy"},
        {"age": (7.0, 7.0), "gender": "Male", "race": "Others"},
        {},
        {"age": (40.0, 40.0), "gender": "Female", "race": "Asian", "expression": "Happy"},
    ]
    for number in (0, 1, 3):
        Image.fromarray(draw(sample(5, number % 3), 32)[0].transpose(1, 2, 0)).save(tmp_path / "in" / f"{number}.png")
    made = [Face(f"{number}.png", **known) for number, known in enumerate(labels)]  # type: ignore[arg-type]
    Manifest.from_faces(made, tmp_path / "in", Crop("chip")).save(tmp_path / "faces")
    return tmp_path / "faces"


def key(folder: Path, number: int) -> str:
    return hashlib.sha256((folder / "in" / f"{number}.png").read_bytes()).hexdigest()


def test_captions_of_labels(faces: Path, tmp_path: Path) -> None:
    job = caption(Captioning(Slices(faces)), tmp_path / "out", show=False)
    rows = list(job.rows())
    assert [row["caption"] for row in rows] == [
        "photo of a 40 year old woman, Asian, happy expression",
        "photo of a 7 year old boy",
        None,
        "photo of a 40 year old woman, Asian, happy expression",
    ]
    assert "2.png" in rows[BAD]["error"]
    lines = [json.loads(line) for line in (tmp_path / "out" / FILE).read_text().splitlines()]
    assert [line["sha256"] for line in lines] == [key(tmp_path, 0), key(tmp_path, 1)]  # a line a picture
    assert {line["captioner"] for line in lines} == {"labels"}
    assert read_captions(tmp_path / "out" / FILE)[key(tmp_path, 0)] == "photo of a woman, Asian, happy expression"
    stripped = caption(Captioning(Slices(faces), strip_age=True), tmp_path / "stripped", show=False)
    assert next(stripped.rows())["caption"] == "photo of a woman, Asian, happy expression"
    with pytest.raises(MienError, match="another job: strip_age was True, is False"):
        caption(Captioning(Slices(faces)), tmp_path / "stripped", show=False)
    assert label_caption(np.nan, None, None, None) == "photo of a person"


def test_seventy_or_more_is_not_ninety_five(tmp_path: Path) -> None:
    Image.fromarray(draw(sample(5, 0), 32)[0].transpose(1, 2, 0)).save(tmp_path / "0.png")
    Manifest.from_faces([Face("0.png", age=(70.0, 120.0))], tmp_path, Crop("chip")).save(tmp_path / "faces")
    (row,) = caption(Captioning(Slices(tmp_path / "faces")), tmp_path / "out", show=False).rows()
    assert row["caption"] == "photo of a 75 year old person"


def test_captions_of_an_image_text_model(faces: Path, tmp_path: Path) -> None:
    folder = tiny.janus(tmp_path / "janus")
    work = Captioning(Slices(faces), str(folder), longest=5, batch=3)
    rows = list(caption(work, tmp_path / "out", show=False).rows())
    assert [row["sha256"] and row["sha256"].hex() for row in rows][:2] == [key(tmp_path, 0), key(tmp_path, 1)]
    assert rows[BAD]["caption"] is None
    assert rows[0]["caption"] == rows[3]["caption"] != ""
    # The likeliest next token, again and again, is what transformers' own generation is: one face, by hand.
    captioner = ImageTextCaptioner(folder, longest=5)
    image = draw(sample(5, 0), 32)[0]
    tail: list[int] = []
    while len(tail) < 5 and 2 not in tail:
        tail.append(int(captioner.model.shares([image], captioner.prompt, [tail]).argmax()))
    by_hand = captioner.model.tokenizer.decode(tail, skip_special_tokens=True)
    assert rows[0]["caption"] == " ".join(by_hand.split())
    assert json.loads((tmp_path / "out" / FILE).read_text().splitlines()[0])["captioner"] == "janus"


def test_a_picture_is_described_once(faces: Path, tmp_path: Path) -> None:
    cache = tmp_path / "earlier.jsonl"
    known = {"sha256": key(tmp_path, 0), "caption": "an old hat", "captioner": "an earlier one"}
    cache.write_text(json.dumps(known) + "\n")

    class Model:
        name, asked = "model", 0

        def describe(self, images: list[np.ndarray]) -> list[str]:
            self.asked += len(images)
            return ["something"] * len(images)

    work = Captioning(Slices(faces), "model", known=cache)
    work._model = Model()  # type: ignore[assignment]
    work.facts = dict  # type: ignore[method-assign]
    rows = list(caption(work, tmp_path / "out", show=False).rows())
    assert [row["caption"] for row in rows] == ["an old hat", "something", None, "an old hat"]
    assert work.model.asked == 1  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in (tmp_path / "out" / FILE).read_text().splitlines()]
    assert lines == [known, {"sha256": key(tmp_path, 1), "caption": "something", "captioner": "model"}]
    # One that nobody is named for stays so; labels are asked of the others.
    del known["captioner"]
    cache.write_text(json.dumps(known) + "\n")
    caption(Captioning(Slices(faces), known=cache), tmp_path / "again", show=False)
    lines = [json.loads(line) for line in (tmp_path / "again" / FILE).read_text().splitlines()]
    assert [line["captioner"] for line in lines] == [None, "labels"]


def test_what_cannot_be_captioned(tmp_path: Path) -> None:
    Manifest.from_faces([Face("gone.png")], tmp_path, Crop("chip")).save(tmp_path / "faces")
    with pytest.raises(MienError, match=r"none of 1 faces could be captioned, the first for: .*gone\.png"):
        caption(Captioning(Slices(tmp_path / "faces")), tmp_path / "out", show=False)
    assert not (tmp_path / "out" / FILE).exists()
    with pytest.raises(MienError, match=r"config\.json: no such file"):
        caption(Captioning(Slices(tmp_path / "faces"), str(tmp_path)), tmp_path / "other", show=False)


def test_a_damaged_cache_leaves_no_job_that_names_it(faces: Path, tmp_path: Path) -> None:
    cache = tmp_path / "earlier.jsonl"
    cache.write_text("{")
    with pytest.raises(MienError, match="line 1 is not an object"):
        caption(Captioning(Slices(faces), known=cache), tmp_path / "out", show=False)
    caption(Captioning(Slices(faces)), tmp_path / "out", show=False)


@pytest.mark.parametrize(("repeats", "encoder"), [(3, False), (2, False), (0, True)], ids=["all", "most", "none"])
def test_of_what_a_model_says_the_question_alone_is_left_out(repeats: int, encoder: bool) -> None:
    """Decoders repeat the whole prompt, BLIP all but its last token, encoder-decoders nothing."""
    asked, new = torch.tensor([[5, 6, 7], [5, 6, 7]]), torch.tensor([[8, 9], [9, 6]])
    model = object.__new__(ImageText)
    model.model = SimpleNamespace(
        generate=lambda **_: torch.cat([asked[:, :repeats], new], dim=1),
        config=SimpleNamespace(is_encoder_decoder=encoder),
    )
    model.tokenizer = SimpleNamespace(batch_decode=lambda ids, **_: [" ".join(map(str, row)) for row in ids.tolist()])
    assert model.answers({"input_ids": asked}) == ["8 9", "9 6"]


def test_a_caption_without_a_word_is_none(faces: Path, tmp_path: Path) -> None:
    work = Captioning(Slices(faces), "model")
    work._model = SimpleNamespace(name="mute", describe=lambda images: [""] * len(images))  # type: ignore[assignment]
    work.facts = dict  # type: ignore[method-assign]
    with pytest.raises(MienError, match="a caption without a word"):
        caption(work, tmp_path / "out", show=False)
