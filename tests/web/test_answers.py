"""What the page answers, computed by hand; and the shipped models on a drawn face."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mien.data.drawing.face import draw
from mien.data.pictures import decode, encode
from mien.data.sources.drawn import sample
from mien.errors import MienError
from mien.faces import Crop
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.web.answers import AGES, DRAWN, FACES, OPEN, Photos, Service, load_service, wanted_ages

BOXES = ((10, 10, 60), (90, 10, 60))
Make = Callable[..., Service]


def test_a_row_and_a_small_picture_for_each_face_from_the_left(service: Make, photo: np.ndarray) -> None:
    told = service(*BOXES).tell(photo)
    assert [row["age"] for row in told.rows] == pytest.approx([40, 80], abs=0.01)
    assert [row["age_low"] for row in told.rows] == pytest.approx([36, 72], abs=0.01)
    first = told.rows[0]
    assert (first["gender"], first["race"], first["expression"], first["valence"]) == ("Male", "White", "Neutral", -0.5)
    assert first["expression_Happy"] == 0.25
    assert [face[:, 40:72, 40:72].mean() for face in told.faces] == [102, 204]
    assert told.drawn.shape == (3, 480, 960)  # enlarged, so that letters have room


def test_gender_and_race_are_not_asked_where_they_are_left_out(service: Make, photo: np.ndarray) -> None:
    with_them, without = service(*BOXES).tell(photo), service(*BOXES).tell(photo, groups=False)
    assert without.rows[0]["gender"] is without.rows[0]["race"] is None
    assert "gender_Male" in with_them.rows[0]
    assert "gender_Male" not in without.rows[0]
    assert "race_White" not in without.rows[0]
    assert [row["age"] for row in without.rows] == [row["age"] for row in with_them.rows]


def test_a_large_photo_is_drawn_smaller_with_its_frames_in_place(service: Make) -> None:
    photo = np.zeros((3, 1600, 4 * DRAWN), dtype=np.uint8)
    drawn = service((1000, 400, 800)).tell(photo).drawn
    assert drawn.shape == (3, 800, 2 * DRAWN)  # a quarter, and twice that for the letters
    green = np.argwhere((drawn.transpose(1, 2, 0) == (0, 158, 115)).all(axis=2))
    assert np.abs(green.max(axis=0) - [600, 900]).max() < 6  # half of (1200, 1800)
    assert abs(green[:, 1].min() - 500) < 6


def test_unaligned_faces_are_said(service: Make, photo: np.ndarray) -> None:
    assert [row["aligned"] for row in service(*BOXES, points=False).tell(photo).rows] == [False, False]
    assert not service(*BOXES, points=False).age(photo, [20]).faces[0].aligned


def test_no_face_is_no_row_and_any_shape_of_picture_is_taken(service: Make, photo: np.ndarray) -> None:
    told = service().tell(photo)
    assert (told.rows, told.faces) == ([], [])
    assert np.array_equal(told.drawn, photo)
    thin = np.zeros((3, 8, 50_000), dtype=np.uint8)
    assert service().tell(thin).drawn.shape == (3, 1, DRAWN)
    assert service().age(photo, [20, 40]).faces == []


def test_other_ages_say_that_they_are_synthetic_and_leave_no_file(
    service: Make, photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    aged = service(*BOXES).age(photo, [10, 60.5])
    assert list(tmp_path.iterdir()) == []
    assert (aged.ages, aged.found, len(aged.faces)) == ([10, 60.5], 2, 2)
    given, (young, old) = decode(aged.faces[0].given), map(decode, aged.faces[0].pictures)
    middle = (slice(None), 30, 30)
    assert given[middle].tolist() == [102, 102, 102]
    assert young[middle].tolist() == [round(102 + 25.5), 102, 102]
    assert old[middle].tolist() == [255, 102, 102]
    written = [Image.open(io.BytesIO(data)).info for data in (*aged.faces[0].pictures, aged.faces[0].strip)]
    assert written[1]["Description"] == "synthetic: rendered by mien, model tint, age 60.5"
    assert written[2]["Description"].endswith("ages 10, 60.5")
    moving = Image.open(io.BytesIO(aged.faces[0].moving))
    assert moving.info["comment"].startswith(b"synthetic")
    assert "Description" not in Image.open(io.BytesIO(aged.faces[0].given)).info


def test_the_strength_is_the_askers_choice(service: Make, photo: np.ndarray) -> None:
    torch.manual_seed(0)
    network = AgeTransformer(AgeTransformerSettings(size=32, width=8, blocks=1), Crop("chip")).eval()
    with torch.no_grad():
        network.paint[0].weight.mul_(20)  # type: ignore[operator, union-attr]
    asked = dataclasses.replace(service(*BOXES), renderer=network)
    assert (asked.strength, service().strength) == (1.0, None)
    faces = [asked.age(photo, [30], strength).faces[0] for strength in (None, 1.0, 0.5)]
    default, same, half = (decode(face.pictures[0]).astype(int) for face in faces)
    assert np.array_equal(default, same)
    given = decode(faces[0].given).astype(int)
    assert 0 < np.abs(half - given).mean() < 0.6 * np.abs(same - given).mean()
    assert np.array_equal(decode(asked.age(photo, [30]).faces[0].pictures[0]), default)  # asked once, not kept


def test_a_crowd_is_rendered_by_its_largest_faces(service: Make) -> None:
    boxes = [(40.0 * place, 5.0, 20.0 + place % 4) for place in range(FACES + 3)]
    aged = service(*boxes).age(np.zeros((3, 40, 400), dtype=np.uint8), [30])
    assert (aged.found, len(aged.faces)) == (FACES + 3, FACES)
    # The smallest of nine, at places 0, 4 and 8, are left out; the others keep the numbers that the table gives them.
    assert [face.number for face in aged.faces] == [2, 3, 4, 6, 7, 8]


@pytest.mark.parametrize(
    ("text", "ages"), [("5:95:10", list(range(5, 96, 10))), ("20, 40", [20, 40]), (f"1:{AGES}:1", range(1, AGES + 1))]
)
def test_ages_as_they_are_typed(text: str, ages: list[float]) -> None:
    assert wanted_ages(text) == list(ages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5-95", "expected FIRST:LAST:STEP such as 5:95:10"),
        ("", "no ages are given"),
        ("0:120:0", "expected FIRST:LAST:STEP"),
        ("0:120:1e-9", "120,000,000,001 ages a face; expected 1201 at most"),
        ("0:120:1e-320", "inf ages a face; expected 1201 at most"),
        (",".join(map(str, range(AGES + 1))), "25 ages; expected at most 24 here"),
    ],
)
def test_ages_that_cannot_be_shown_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(MienError, match=message):
        wanted_ages(text)


def test_photos_are_kept_a_page_and_forgotten(tmp_path: Path) -> None:
    photos, image = Photos(), draw(sample(5, 1), 40)[0]
    path = tmp_path / "face.png"
    path.write_bytes(encode(image, "PNG"))
    assert photos.photo("one") is None
    for page in range(OPEN + 1):
        photos.take(str(page), str(path))
    assert photos.photo("0") is None
    assert np.array_equal(photos.photo("1"), image)  # type: ignore[arg-type]
    photos.forget("1")
    photos.forget("1")
    assert photos.photo("1") is None
    with pytest.raises(MienError, match="no longer here; choose it again"):
        photos.take("2", str(tmp_path / "gone.png"))
    assert photos.photo("2") is None


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut short", b"<svg/>"])
def test_what_is_no_picture_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    photos, path = Photos(), tmp_path / "file.jpg"
    path.write_bytes(data)
    photos.take("page", str(path))
    with pytest.raises(MienError, match=r"this picture cannot be read .*; take a JPEG"):
        photos.photo("page")


def test_the_shipped_models_answer_unless_others_are_named() -> None:
    service = load_service(device="cpu")
    assert [row["name"] for row in service.answering()] == ["face-mobile", "face-affect", "face-ages", "face-landmarks"]
    assert all("research only" in row["terms"].lower() for row in service.answering())
    image = draw(sample(2, 1), 240, 0.45)[0]
    (row,) = service.tell(image).rows
    assert row["age_low"] < row["age"] < row["age_high"]
    assert row["expression"] is not None
    assert -1 <= row["valence"] <= 1
    assert len(service.age(image, [10, 70]).faces[0].pictures) == 2
    assert service.beyond([0, 50, 119]) == [0, 119]
    with pytest.raises(MienError, match="unknown model 'nobody'"):
        load_service(["nobody"], device="cpu")
    with pytest.raises(MienError, match="did you mean 'cascade'"):
        load_service(detector="cascad", device="cpu")
