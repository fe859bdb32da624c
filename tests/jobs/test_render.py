"""Rendering as a job: what it writes, that it resumes to the same bytes, and that a paste touches the face alone."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from mien.data.align import TEMPLATES, crop_face
from mien.data.detect import Detection
from mien.data.drawing.face import draw
from mien.data.manifest import Manifest
from mien.data.renders import open_renders
from mien.data.sources.drawn import DrawnSource, sample
from mien.errors import MienError
from mien.faces import Crop
from mien.jobs.engine import Job
from mien.jobs.inputs import expand
from mien.jobs.paste import feather, paste
from mien.jobs.render import Rendering, ages_from, rendering, write_grid
from mien.jobs.strips import strip, synthetic
from mien.jobs.workers import Engine, Here
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.renderer import as_float, with_strength


class Tint(nn.Module):
    """A renderer that can be computed by hand: the picture plus a hundredth of red a year."""

    def __init__(self, strength: float = 0.01) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength))
        self.name, self.crop, self.ages, self.card = "tint", Crop("chip"), (0.0, 90.0), {}
        self.input_size = 32
        self.seen: list[tuple[int, ...]] = []

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        self.seen.append(tuple(images.shape))
        red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
        return (as_float(images)[:, None] + self.strength * ages[..., None, None, None] * red).clamp(0, 1)


class Fixed:
    """A detector that knows where the faces are."""

    name = "fixed"

    def __init__(self, *boxes: tuple[float, float, float], points: bool = True) -> None:
        self.boxes, self.points = boxes, points

    def detect(self, image: np.ndarray) -> list[Detection]:
        found = []
        for left, top, side in self.boxes:
            points = [left, top] + TEMPLATES["chip"] * side - 0.5
            box = np.array([left, top, left + side, top + side])
            found.append(Detection(box, 0.9, points if self.points else None))
        return found


def face(number: int = 1, size: int = 48) -> np.ndarray:
    return draw(sample(5, number), size)[0]


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path)
    return path


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)


def photo(*places: tuple[int, int, int]) -> np.ndarray:
    """A patterned photo (3, 200, 300) with drawn faces at left, top, side."""
    noise = np.random.default_rng(0).integers(60, 120, (3, 200, 300)).astype(np.uint8)
    for number, (left, top, side) in enumerate(places):
        noise[:, top : top + side, left : left + side] = face(number, side)
    return noise


def everything(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != Job.LOCK
    }


def ask(inputs: Any, ages: list[float], **options: Any) -> tuple[Rendering, Any]:
    items = expand(inputs)
    return rendering(Tint(), items, ages, landmarker=None, **options), items


def test_a_photo_becomes_strips_pictures_and_a_manifest_of_renders(tmp_path: Path) -> None:
    source = save(tmp_path / "family.png", photo((20, 30, 60), (150, 40, 100)))
    question, items = ask(source, [5, 12.5, 40], detector=Fixed((20, 30, 60), (150, 40, 100)), gif=True, paste=True)
    job = question.job(tmp_path / "out", items, show=False)
    table, about, folder = open_renders(job.folder)
    rows = table.to_pylist()
    assert [(row["face"], row["age"]) for row in rows] == [(f, a) for f in (0, 1) for a in (5, 12.5, 40)]
    assert {row["sha256"] for row in rows} == {hashlib.sha256(source.read_bytes()).digest()}
    assert {(row["input"], row["model"], row["error"]) for row in rows} == {(str(source), "tint", None)}
    assert about["model"]["name"] == "tint"
    assert about["ages"] == [5, 12.5, 40]
    assert (rows[0]["left"], rows[0]["bottom"]) == (20, 90)
    # Each face at the resolution it has in its photo.
    assert [shape[2:] for shape in question.renderer.seen] == [(60, 60), (100, 100)]  # type: ignore[attr-defined]
    given = read(folder / rows[3]["source_picture"])
    assert given.shape == (3, 100, 100)
    for row in rows[3:]:
        made = read(folder / row["picture"]).astype(int)
        expected = np.clip(given[0] + 2.55 * row["age"], 0, 255)
        np.testing.assert_allclose(made[0], expected, atol=0.51)
        assert (made[1:] == given[1:]).all()
        assert Image.open(folder / row["picture"]).info["Description"] == synthetic("tint", [row["age"]])
        assert row["picture"].endswith(f"000000-1-age-{ {5: '005', 12.5: '012.5', 40: '040'}[row['age']] }.png")
    assert (
        Image.open(folder / rows[0]["strip"]).info["Description"].startswith("synthetic: rendered by mien, model tint")
    )
    moving = Image.open(folder / rows[0]["gif"])
    assert moving.n_frames == 4  # there and back: 5, 12.5, 40, 12.5
    assert moving.info["comment"].startswith(b"synthetic: ")
    assert len({row["pasted"] for row in rows}) == 3
    assert Image.open(folder / rows[0]["pasted"]).size == (300, 200)


def test_a_paste_leaves_the_background_as_it_was(tmp_path: Path) -> None:
    picture = photo((20, 30, 60), (150, 40, 100))
    source = save(tmp_path / "family.png", picture)
    question, items = ask(source, [40], detector=Fixed((20, 30, 60), (150, 40, 100)), paste=True)
    job = question.job(tmp_path / "out", items, show=False)
    pasted = read(job.folder / next(job.rows())["pasted"]).astype(int)
    outside = np.ones((200, 300), dtype=bool)
    outside[30:90, 20:80] = outside[40:140, 150:250] = False
    assert (pasted[:, outside] == picture[:, outside]).all()
    middle = (slice(None), slice(80, 100), slice(190, 210))
    expected = np.clip(picture[middle] + np.array([102, 0, 0]).reshape(3, 1, 1), 0, 255)
    np.testing.assert_allclose(pasted[middle], expected, atol=1)
    # Faded towards the edge: no seam.
    change = (pasted - picture)[0, 90, 150:250]
    assert change[0] == change[-1] == 0
    assert np.abs(np.diff(change[:15])).max() < 20


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-60, 260), st.floats(-60, 160), st.floats(8, 150), st.floats(-0.6, 0.6), st.sampled_from([32, 64, 200])
)
def test_a_paste_of_a_face_anywhere_and_turned_changes_nothing_outside(
    x: float, y: float, scale: float, angle: float, size: int
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (3, 120, 200)).astype(np.uint8)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATES["chip"] - 0.5) * scale @ turn.T + [x, y]
    cut, matrix = crop_face(picture, points, Crop("chip", 0.0, size))
    assert (paste(picture, cut, cut, matrix) == picture).all()  # nothing changed, nothing added
    lighter = np.clip(cut.astype(int) + 50, 0, 255).astype(np.uint8)
    result = paste(picture, cut, lighter, matrix)
    rows, columns = np.mgrid[:120, :200]
    inside = np.stack([columns, rows], axis=-1) @ matrix[:, :2].T + matrix[:, 2]
    far = ((inside < -1) | (inside > size)).any(axis=-1)
    assert (result[:, far] == picture[:, far]).all()
    assert (result.astype(int) >= picture.astype(int)).all()


def test_the_feather_is_whole_in_the_middle_and_nothing_at_the_edge() -> None:
    mask = feather(50)
    assert mask[25, 25] == 1
    assert (mask[0] == 0).all()
    assert (mask[:, -1] == 0).all()
    assert (np.diff(mask[25, :25]) >= 0).all()


def test_a_broken_job_is_taken_up_again_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        save(tmp_path / "in" / f"{number}.png", face(number))
    monkeypatch.setattr("mien.jobs.render.SHARD", 2)
    question, items = ask(tmp_path / "in", [10, 60], crops=True)
    question.job(tmp_path / "whole", items, show=False)

    done = Tint.render

    def breaks(self: Tint, *arguments: Any) -> Tensor:
        if len(self.seen) == 3:
            raise KeyboardInterrupt
        return done(self, *arguments)

    monkeypatch.setattr(Tint, "render", breaks)
    question, items = ask(tmp_path / "in", [10, 60], crops=True)
    with pytest.raises(KeyboardInterrupt):
        question.job(tmp_path / "broken", items, show=False)
    monkeypatch.setattr(Tint, "render", done)
    assert (tmp_path / "broken" / "part-000000.parquet").exists()
    assert not (tmp_path / "broken" / "part-000001.parquet").exists()
    left = tmp_path / "broken" / "part-000001" / ".000002-0-age-010-x.png"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")  # as a killed writer leaves it
    question, items = ask(tmp_path / "in", [10, 60], crops=True)
    question.job(tmp_path / "broken", items, show=False)
    assert len(question.renderer.seen) == 3  # type: ignore[attr-defined]  # the finished shard is not done again
    assert everything(tmp_path / "broken") == everything(tmp_path / "whole")
    with pytest.raises(MienError, match=r"holds another job: parameters\.ages"):
        ask(tmp_path / "in", [10], crops=True)[0].job(tmp_path / "whole", items, show=False)


class Sent(Engine):
    """Work that was sent to another process, and is done here after all."""

    def worker(self, process: Any) -> Here:
        return Here(pickle.loads(pickle.dumps(process)))


def test_work_travels_and_a_face_that_cannot_be_rendered_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        save(tmp_path / "in" / f"{number}.png", face(number))
    question, items = ask(tmp_path / "in", [10, 60], crops=True)
    question.job(tmp_path / "here", items, show=False)
    question.job(tmp_path / "there", items, Sent(), show=False)
    assert everything(tmp_path / "here") == everything(tmp_path / "there")
    done = Tint.render

    def breaks(self: Tint, images: Tensor, ages: Tensor) -> Tensor:
        if images.float().mean() == torch.from_numpy(face(1)).float().mean():
            raise RuntimeError("no such face")
        return done(self, images, ages)

    monkeypatch.setattr(Tint, "render", breaks)
    rows = list(question.job(tmp_path / "broken", items, show=False).rows())
    assert [(row["row"], row["error"]) for row in rows] == [
        (0, None),
        (0, None),
        (1, "RuntimeError: no such face"),
        (2, None),
        (2, None),
    ]


def test_no_face_and_no_picture_are_rows_of_their_own(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", photo())
    (tmp_path / "in" / "b.png").write_bytes(b"not a picture")
    question, items = ask(tmp_path / "in", [10, 60], detector=Fixed())
    job = question.job(tmp_path / "out", items, show=False)
    a, b = open_renders(job.folder)[0].to_pylist()
    assert a["error"] == "no face found"
    assert b["error"].startswith("no picture")
    assert a["picture"] is a["age"] is b["sha256"] is None
    assert write_grid(job) is None


def test_faces_of_a_manifest_carry_their_row_and_age(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn).take(np.arange(3))
    question, items = ask(manifest, [30])
    job = question.job(tmp_path, items, show=False)
    rows = list(job.rows())
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert [row["source_age"] for row in rows] == pytest.approx(manifest.numbers("age_low").tolist())
    assert [row["sha256"] for row in rows] == manifest.strings("sha256").tolist()
    sheet = write_grid(job)
    assert sheet is not None
    one = read(job.folder / rows[0]["strip"])
    assert read(sheet).shape == (3, 3 * one.shape[1], one.shape[2])
    wrong = Manifest(manifest.table, manifest.root, Crop("chip", 0.3))
    with pytest.raises(MienError, match=r"chip with margin 0\.3, but chip is wanted"):
        ask(wrong, [30])


def test_a_strip_shows_the_given_face_and_each_render_under_its_age() -> None:
    given_face, made = face(0, 128), np.stack([face(1, 128), face(2, 128)])
    sheet = strip(given_face, made, [20, 35.5])
    band = sheet.shape[1] - 128
    assert sheet.shape[2] == 3 * 128
    for place, picture in enumerate([given_face, *made]):
        assert (sheet[:, band:, place * 128 : (place + 1) * 128] == picture).all()
        assert (sheet[:, :band, place * 128 : (place + 1) * 128] < 100).any()  # something is written


@pytest.mark.parametrize(
    ("text", "ages"),
    [
        ("5:95:10", [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]),
        ("20,40, 60", [20, 40, 60]),
        ("30", [30]),
        ("0:1:0.25", [0, 0.25, 0.5, 0.75, 1]),
        ("10:29:10", [10, 20]),
    ],
)
def test_ages_as_they_are_written(text: str, ages: list[float]) -> None:
    assert ages_from(text) == pytest.approx(ages)


@pytest.mark.parametrize("text", ["a", "5:95", "5:95:0", "5:95:-1", "95:5:10", "5:nan:1", "1:2:3:4", "0:500:10"])
def test_ages_that_are_none(text: str) -> None:
    with pytest.raises(MienError, match=r"ages .*expected FIRST:LAST:STEP"):
        ages_from(text)


def test_no_range_of_ages_fills_the_memory() -> None:
    assert len(ages_from("0:120:0.1")) == 1201
    with pytest.raises(MienError, match="expected 1201 at most, take a larger step"):
        ages_from("0:120:1e-9")


def test_any_age_has_a_name_that_sorts(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", face())
    question, items = ask(source, [0.00001, 0.5, 5, 33.25, 100], crops=True)
    job = question.job(tmp_path / "out", items, show=False)
    names = [Path(row["picture"]).name.partition("age-")[2] for row in job.rows()]
    assert names == ["000.00001.png", "000.5.png", "005.png", "033.25.png", "100.png"]


def test_renders_tell_how_strongly_they_are_shown(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", face())
    torch.manual_seed(0)
    network = AgeTransformer(AgeTransformerSettings(size=32, width=8, blocks=1, strength=1.3), Crop("chip"))
    items = expand(source)
    rendering(network, items, [30.0], crops=True).job(tmp_path / "out", items, show=False)
    assert open_renders(tmp_path / "out")[1]["model"]["strength"] == 1.3
    weaker = rendering(with_strength(network, 0.5), items, [30.0], crops=True)
    with pytest.raises(MienError, match=r"model.strength was 1\.3, is 0\.5"):
        weaker.job(tmp_path / "out", items, show=False)


def test_what_cannot_be_rendered_is_said(tmp_path: Path, drawn: Path) -> None:
    source = save(tmp_path / "a.png", face())
    with pytest.raises(MienError, match="age 130 to render is outside 0-120"):
        ask(source, [30, 130], crops=True)
    with pytest.raises(MienError, match=r"30, 30; expected one or more, each once"):
        ask(source, [30, 30], crops=True)
    with pytest.raises(MienError, match="these inputs are crops"):
        ask(source, [30], crops=True, paste=True)
    with pytest.raises(MienError, match="these inputs are crops"):
        ask(drawn, [30], paste=True)
    with pytest.raises(MienError, match="is not there; mien render"):
        open_renders(tmp_path)
    with pytest.raises(MienError, match="no manifest of renders"):
        open_renders(drawn / "faces.parquet")
    (tmp_path / "renders.parquet").write_bytes(b"PAR1")
    with pytest.raises(MienError, match="damaged"):
        open_renders(tmp_path)


def test_drawn_faces_are_of_the_crop_that_is_rendered() -> None:
    assert DrawnSource(count=1).crop.template == Tint().crop.template
