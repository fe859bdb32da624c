"""Landmarks in predictions, and for faces that `prepare` finds without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from mien.data.align import TEMPLATES
from mien.data.detect import Detection
from mien.data.manifest import Manifest
from mien.data.pictures import Pictures
from mien.data.prepare import prepare
from mien.data.reading import BESIDE, Read
from mien.data.reading import Reader as PictureReader
from mien.data.sources import Rejected
from mien.data.sources.folder import FolderSource
from mien.errors import MienError, PictureError
from mien.evaluation.locate import Locator
from mien.faces import Crop, Face
from mien.jobs.draw import draw_faces
from mien.jobs.locate import checker, finder
from mien.jobs.predict import Model
from mien.models.landmarker import Landmarker, LandmarkerSettings

from .conftest import BrightnessModel, plain


class Same(Landmarker):
    """Every face has its points at the same places of the crop, upright as the template has them."""

    def __init__(self, error: float = 0.05) -> None:
        super().__init__(LandmarkerSettings(width=0.25, margin=0.0))
        places = np.random.default_rng(0).uniform(0.1, 0.9, (68, 2))
        chip = TEMPLATES["chip"]
        places[36:42], places[42:48] = chip[0], chip[1]
        places[30], places[48], places[54] = chip[2:]
        self.places, self.error = places, error

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        side = images.shape[-1]
        points = torch.from_numpy(self.places * side - 0.5).float()
        eyes = float((points[42] - points[36]).norm())
        return points.expand(len(images), 68, 2), torch.full((len(images), 68), self.error * eyes)


class Boxes:
    """A detector that knows where the faces are, by their boxes alone."""

    name = "boxes"

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = boxes

    def detect(self, image: np.ndarray) -> list[Detection]:
        return [Detection(np.array(box, dtype=float)) for box in self.boxes]


class Reader(BrightnessModel):
    """Its age is how far the left of the picture its landmarks are on average, in percent; 99 without them."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = torch.nn.Identity()

    def predict(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, np.ndarray]:
        columns = super().predict(images)
        assert landmarks is not None
        assert landmarks.dtype == torch.float32
        assert landmarks.shape == (len(images), 68, 2)
        mean = (landmarks[..., 0].mean(dim=1) + 0.5) / 32 * 100
        return columns | {"age": mean.nan_to_num(99.0).numpy()}


def photo() -> Image.Image:
    picture = Image.new("RGB", (300, 120), (128, 128, 128))
    picture.paste(plain(102, size=(80, 80)), (40, 20))
    return picture


BOX = (40.0, 20.0, 120.0, 100.0)


def test_a_face_with_a_box_alone_is_aligned_by_its_landmarks(model: Model) -> None:
    net = Same()
    (found,) = model.predict(photo(), detector=Boxes(BOX), landmarks=True, landmarker=Locator(net))
    assert found.aligned is True
    assert found.age == pytest.approx(40, abs=1)
    assert found.landmarks is not None
    np.testing.assert_allclose(found.landmarks, net.places * 80 - 0.5 + [40, 20], atol=0.1)
    assert len(found.to_row()["landmarks"]) == 136
    (plainly,) = model.predict(photo(), detector=Boxes(BOX), landmarker=Locator(net))
    assert plainly.aligned is True
    assert plainly.landmarks is None
    assert "landmarks" not in plainly.to_row()


def test_a_face_whose_landmarks_are_not_trusted_stays_unaligned(model: Model) -> None:
    (found,) = model.predict(photo(), detector=Boxes(BOX), landmarks=True, landmarker=Locator(Same(error=0.6)))
    assert found.aligned is False
    assert found.landmarks is None
    assert found.age == pytest.approx(40, abs=1)
    (without,) = model.predict(photo(), detector=Boxes(BOX), landmarker="none")
    assert without.aligned is False


def test_a_model_with_the_branch_is_given_points_on_photos_and_crops(tmp_path: Path) -> None:
    model = Model(Reader())  # type: ignore[arg-type]
    net = Same()
    expected = 100 * net.places[:, 0].mean()
    found = model.predict(photo(), detector=Boxes(BOX, (150, 20, 230, 100)), landmarker=Locator(net))
    assert [one.age for one in found] == [pytest.approx(expected, abs=0.5)] * 2
    (crop,) = model.predict(plain(102, size=(50, 50)), crops=True, landmarker=Locator(net))
    assert crop.age == pytest.approx(expected, abs=0.5)
    (blind,) = model.predict(plain(102, size=(50, 50)), crops=True, landmarker="none")
    assert blind.age == pytest.approx(99)
    # A manifest's own points are taken as they are, at whatever size its pictures have.
    plain(102, size=(64, 64)).save(tmp_path / "a.png")
    plain(102, size=(64, 64)).save(tmp_path / "b.png")
    given = np.full((68, 2), 15.5, dtype=np.float32)
    faces = [Face("a.png", landmarks=given), Face("b.png")]
    manifest = Manifest.from_faces(faces, tmp_path, Crop("chip"))
    own, other = model.predict(manifest, landmarks=True, landmarker=Locator(net))
    assert own.age == pytest.approx(25, abs=0.1)
    assert own.landmarks == [(15.5, 15.5)] * 68
    assert other.age == pytest.approx(expected, abs=0.5)


def test_points_asked_for_without_anything_to_find_them(model: Model) -> None:
    with pytest.raises(MienError, match="there is no landmarker; name one"):
        model.predict(photo(), detector=Boxes(BOX), landmarks=True, landmarker="none")


def test_a_table_has_points_only_where_they_were_asked_for(model: Model, tmp_path: Path) -> None:
    from mien.jobs.inputs import expand

    photo().save(tmp_path / "photo.png")
    items = expand(str(tmp_path / "photo.png"))
    asking = model.asking(items, detector=Boxes(BOX), landmarks=True, landmarker=Locator(Same()))
    (row,) = asking.job(tmp_path / "job", items, show=False).rows()
    assert len(row["landmarks"]) == 136
    plainly = model.asking(items, detector=Boxes(BOX), landmarker=Locator(Same()))
    assert "landmarks" not in plainly.schema().names
    with pytest.raises(MienError, match=r"parameters\.landmarks was True, is False"):
        plainly.job(tmp_path / "job", items, show=False)
    other = model.asking(items, detector=Boxes(BOX), landmarks=True, landmarker=Locator(Same(), passes=1))
    with pytest.raises(MienError, match=r"parameters\.landmarker: not the same"):
        other.job(tmp_path / "job", items, show=False)


def test_landmarks_are_dotted_in(model: Model) -> None:
    picture = np.full((3, 500, 500), 100, dtype=np.uint8)
    (found,) = model.predict(photo(), detector=Boxes(BOX), landmarker="none")
    row = found.to_row() | {"left": 100.0, "top": 100.0, "right": 400.0, "bottom": 400.0}
    bare = draw_faces(picture, [row])
    dotted = draw_faces(picture, [row | {"landmarks": [250.0, 300.0] * 68}])
    changed = np.argwhere((bare != dotted).any(axis=0))
    np.testing.assert_allclose(changed.mean(axis=0), [300, 250], atol=1)
    assert np.ptp(changed, axis=0).max() <= 4


def test_prepare_finds_aligns_and_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "one.png")
    photo().resize((150, 60)).save(tmp_path / "two.png")
    net = Same()
    monkeypatch.setattr("mien.jobs.locate.build_locator", lambda name: Locator(net))

    class Sometimes(Boxes):
        def detect(self, image: np.ndarray) -> list[Detection]:
            return super().detect(image) * (1 if image.shape[2] == 300 else 2)

    locate = finder("any", Sometimes(BOX))
    prepared = prepare(
        FolderSource(crop="photo"), tmp_path, tmp_path / "out", size=100, align=True, locate=locate, show=False
    )
    assert [item.path for item in prepared.rejected] == ["two.png"]
    assert prepared.rejected[0].reason.startswith("2 faces found, expected one")
    face = Manifest.open(tmp_path / "out").face(0)
    assert prepared.manifest.strings("landmarks_from").tolist() == ["landmarker"]
    assert prepared.manifest.crop == Crop("chip", 0.0, 100)
    assert face.landmarks is not None
    np.testing.assert_allclose(face.landmarks, net.places * 100 - 0.5, atol=0.3)


def test_a_crop_keeps_its_place_with_and_without_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Same()
    monkeypatch.setattr("mien.jobs.locate.build_locator", lambda name: Locator(net))
    for number in range(4):
        plain(50 + 40 * number, size=(64, 64)).save(tmp_path / f"{number}.png")

    def prepared(out: str) -> Manifest:
        source = FolderSource(crop="chip")
        return prepare(source, tmp_path, tmp_path / out, locate=finder("any"), show=False).manifest

    found = prepared("found")
    np.testing.assert_allclose(found.landmarks()[2], net.places * 64 - 0.5, atol=0.1)
    assert found.strings("path").tolist() == [f"{number}.png" for number in range(4)]
    net.error = 0.9
    lost = prepared("lost")
    assert len(lost) == 4
    assert not lost.has("landmarks")


def test_a_crop_without_trusted_points_is_rejected_with_that_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.jobs.locate.build_locator", lambda name: Locator(Same(error=0.9)))
    with pytest.raises(PictureError, match="does not trust"):
        finder("any")(np.zeros((3, 60, 60), dtype=np.uint8), Crop("chip"))


def test_given_points_beside_the_face_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Same()
    monkeypatch.setattr("mien.jobs.locate.build_locator", lambda name: Locator(net))
    plain(90, size=(64, 64)).save(tmp_path / "one.png")
    true = net.places * 64 - 0.5
    eyes = float(np.linalg.norm(true[42] - true[36]))

    def checked(points: np.ndarray) -> Read:
        reader = PictureReader(Pictures(tmp_path), Crop("chip"), None, False, check=checker("landmarker"))
        found = reader(Face("one.png", landmarks=points.astype(np.float32), age=(30, 30)))
        assert isinstance(found, Read)
        return found

    def read(by: float) -> Read:
        return checked(true + by * eyes * np.array([0.6, -0.8]))

    for by in (0.0, BESIDE - 0.02):
        kept = read(by)
        assert kept.face.landmarks is not None
        assert kept.face.extra["landmarks_shift"] == pytest.approx(by, abs=0.01)
    dropped = read(BESIDE + 0.02)
    assert dropped.face.landmarks is None
    assert dropped.face.age == (30, 30)
    assert dropped.fault.startswith("its landmarks lie beside the face and were dropped (0.17")
    assert dropped.face.extra["landmarks_shift"] == pytest.approx(BESIDE + 0.02, abs=0.01)
    # Points that scatter about the right place are another annotator's, not a fault of coordinates.
    loose = checked(true + np.tile([[4.0, 4.0], [-4.0, -4.0]], (34, 1)))
    assert loose.face.landmarks is not None
    net.error = 0.9
    unsure = read(0.5)
    assert unsure.face.landmarks is not None
    assert unsure.face.extra["landmarks_shift"] is None


def test_dropped_points_are_listed_and_the_face_stays(tmp_path: Path) -> None:
    for number in range(3):
        plain(50 + 40 * number, size=(64, 64)).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", [30.0] * 136) for number in range(3)]
    table = pa.table({"path": [row[0] for row in rows], "landmarks": [row[1] for row in rows]})
    pq.write_table(table, tmp_path / "labels.parquet")
    source = FolderSource(crop="chip", labels=tmp_path / "labels.parquet")
    shifts = {50: 0.02, 90: 0.4, 130: float("nan")}

    def check(image: np.ndarray, crop: Crop, given: np.ndarray) -> float:
        return shifts[int(image[0, 0, 0])]

    made = prepare(source, tmp_path, tmp_path / "out", check=check, show=False)
    reason = "its landmarks lie beside the face and were dropped"
    assert [(one.path, one.reason) for one in made.rejected] == [("1.png", f"{reason} (0.40 eye distances)")]
    assert made.facts()["reasons"] == {reason: 1}
    assert np.isfinite(made.manifest.landmarks()).all(axis=(1, 2)).tolist() == [True, False, True]
    np.testing.assert_allclose(made.manifest.numbers("landmarks_shift"), [0.02, 0.4, np.nan])
    with pytest.raises(MienError, match="--check-landmarks: source folder gives no landmarks to check here"):
        prepare(FolderSource(crop="chip"), tmp_path, tmp_path / "none", check=check, show=False)


def test_a_column_of_an_earlier_check_is_no_finding(tmp_path: Path) -> None:
    plain(90, size=(64, 64)).save(tmp_path / "one.png")
    for shift in (0.4, "far"):
        face = Face("one.png", age=(30, 30), extra={"landmarks_shift": shift})
        for check in (None, lambda *_: 0.0):
            found = PictureReader(Pictures(tmp_path), Crop("chip"), None, False, check=check)(face)
            assert isinstance(found, Read)
            assert found.fault == ""


def test_a_photo_with_nothing_but_wrong_points_to_cut_it_by_is_rejected(tmp_path: Path) -> None:
    photo().save(tmp_path / "one.png")
    face = Face("one.png", landmarks=Same().places.astype(np.float32) * 100)
    reader = PictureReader(Pictures(tmp_path), Crop("photo"), Crop("chip", 0, 64), False, check=lambda *_: 0.31)
    told = reader(face)
    assert isinstance(told, Rejected)
    assert told.reason.endswith("--landmarks finds others (0.31 eye distances)")


def test_faces_are_checked_by_the_nearest_of_a_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Same().places * 100
    five = np.stack([given[36], given[42], given[30], given[48], given[54]])

    class Points(Boxes):
        def detect(self, image: np.ndarray) -> list[Detection]:
            box = np.zeros(4)
            return [
                Detection(box, points=five + 300),
                Detection(box, points=five + np.array([3.0, 4.0])),
                Detection(box),
            ]

    monkeypatch.setattr("mien.jobs.locate.build_detector", lambda name: Points())
    eyes = float(np.linalg.norm(given[42] - given[36]))
    shift = checker("yunet:weights.onnx")(np.zeros((3, 9, 9), dtype=np.uint8), Crop("photo"), given)
    assert shift == pytest.approx(5 / eyes, rel=1e-6)
    monkeypatch.setattr("mien.jobs.locate.build_detector", lambda name: Boxes((0, 0, 9, 9)))
    assert np.isnan(checker("yunet:weights.onnx")(np.zeros((3, 9, 9), dtype=np.uint8), Crop("photo"), given))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cascade", "unknown --check-landmarks 'cascade' .*known: landmarker, .*yunet"),
        ("landmarks", "did you mean 'landmarker'"),
        ("yunet", "it wants the file of its weights, yunet:PATH.onnx"),
    ],
)
def test_what_cannot_check_points_is_said(name: str, message: str) -> None:
    with pytest.raises(MienError, match=message):
        checker(name)


def test_points_far_beside_a_face_of_a_photo_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Same()
    monkeypatch.setattr("mien.jobs.locate.build_locator", lambda name: Locator(net))
    monkeypatch.setattr("mien.jobs.locate.build_detector", lambda name: Boxes((200.0, 20.0, 240.0, 60.0), BOX))
    image = np.asarray(photo()).transpose(2, 0, 1)
    true = net.places * 80 - 0.5 + np.array([40, 20])
    eyes = float(np.linalg.norm(true[42] - true[36]))
    check = checker("landmarker")
    for by in (0.0, 0.5, 1.0):
        assert check(image, Crop("photo"), true + by * np.array([eyes, 0.0])) == pytest.approx(by, abs=0.02)
    monkeypatch.setattr("mien.jobs.locate.build_detector", lambda name: Boxes())
    assert np.isnan(checker("landmarker")(image, Crop("photo"), true))
