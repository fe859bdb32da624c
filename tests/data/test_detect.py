"""Detectors: the embedded cascade on a photo that comes with scikit-image, the others against stand-ins."""

import sys
from enum import StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mien.data.align import TEMPLATES, crop_matrix, move_points
from mien.data.detect import CascadeDetector, Detection, build_detector, from_left, known_by
from mien.errors import MienError
from mien.faces import Crop

#: Eyes, nose and corners of the mouth in scikit-image's astronaut, set by hand.
ASTRONAUT = np.array([[206.0, 112.0], [248.0, 111.0], [229.0, 133.0], [208.0, 146.0], [247.0, 146.0]])


def channels_first(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


@pytest.fixture(scope="module")
def cascade() -> CascadeDetector:
    return CascadeDetector()


def test_the_cascade_finds_the_one_face_and_cuts_it_nearly_as_the_template(cascade: CascadeDetector) -> None:
    (found,) = cascade.detect(channels_first(data.astronaut()))
    assert found.points is None
    assert found.score is None
    seen = move_points(ASTRONAUT, crop_matrix(found.where, Crop("chip", 0, 1))) + 0.5
    # Unaligned: within a tenth of the side, where an aligned crop is within 0.03.
    assert np.abs(seen - TEMPLATES["chip"]).max() < 0.1
    assert found.crop(Crop("chip", 0, 112)) == Crop("box", 0, 112)


def test_a_large_photo_gives_the_same_face_scaled(cascade: CascadeDetector) -> None:
    photo = Image.fromarray(data.astronaut())
    (small,) = cascade.detect(channels_first(np.asarray(photo)))
    (large,) = cascade.detect(channels_first(np.asarray(photo.resize((2048, 2048)))))
    np.testing.assert_allclose(large.box / 4, small.box, atol=12)


def test_small_faces_are_found_from_left_to_right(cascade: CascadeDetector) -> None:
    face = Image.fromarray(data.astronaut()).crop((100, 0, 356, 256)).resize((200, 200))
    photo = Image.new("RGB", (1200, 800), (90, 110, 130))
    for corner in ((900, 500), (40, 40), (500, 300)):
        photo.paste(face, corner)
    found = cascade.detect(channels_first(np.asarray(photo)))
    assert [round((one.box[0] + one.box[2]) / 2 / 100) for one in found] == [1, 6, 10]


@pytest.mark.parametrize("name", ["coffee", "black", "tiny"])
def test_where_no_face_is_none_is_invented(cascade: CascadeDetector, name: str) -> None:
    pictures = {"black": np.zeros((3, 300, 300), np.uint8), "tiny": np.zeros((3, 9, 400), np.uint8)}
    image = pictures[name] if name in pictures else channels_first(data.coffee())
    assert cascade.detect(image) == []


def test_left_comes_first_and_the_upper_of_two() -> None:
    boxes = [[50, 0, 60, 10], [0, 90, 10, 99], [0, 0, 10, 9]]
    order = from_left([Detection(np.array(box, dtype=float)) for box in boxes])
    assert [one.box.tolist() for one in order] == [boxes[2], boxes[1], boxes[0]]


class FakeYuNet:
    """Stands for cv2.FaceDetectorYN: finds a face over red pixels, unless the picture is large."""

    largest = 10_000

    @classmethod
    def create(cls, *_: Any) -> "FakeYuNet":
        return cls()

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 (OpenCV's name)
        self.size = size

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert image.shape[1::-1] == self.size
        ys, xs = np.nonzero(image[:, :, 2] > 200)  # BGR: red comes last
        if not len(xs) or max(image.shape) > self.largest:
            return 0, None
        left, top, width, height = xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1
        points = np.array([left, top]) + TEMPLATES["chip"] * [width, height] - 0.5
        return 1, np.array([[left, top, width, height, *points.ravel(), 0.9]], dtype=np.float32)


@pytest.fixture
def fake_cv2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    cv2 = ModuleType("cv2")
    logging = SimpleNamespace(setLogLevel=lambda _: None, LOG_LEVEL_ERROR=2)
    cv2.__dict__.update(FaceDetectorYN=FakeYuNet, error=RuntimeError, utils=SimpleNamespace(logging=logging))
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    weights = tmp_path / "yunet.onnx"
    weights.write_bytes(b"not read by the stand-in")
    return weights


@pytest.mark.parametrize(("side", "largest"), [(400, 10_000), (2000, 10_000), (2000, 500)])
def test_yunets_points_come_back_in_the_photos_pixels(
    fake_cv2: Path, monkeypatch: pytest.MonkeyPatch, side: int, largest: int
) -> None:
    """Unshrunk; shrunk; and, where the first look finds nothing, shrunk further inside a border."""
    monkeypatch.setattr(FakeYuNet, "largest", largest)
    photo = np.zeros((3, side, side), dtype=np.uint8)
    square = np.array([0.2, 0.3, 0.6, 0.7]) * side
    left, top, right, bottom = square.astype(int)
    photo[0, top:bottom, left:right] = 255
    (found,) = build_detector(f"yunet:{fake_cv2}").detect(photo)
    assert found.points is not None
    assert found.score == pytest.approx(0.9)
    step = max(1.0, side / 256)  # a pixel of the shrunk photo
    np.testing.assert_allclose(found.box, square, atol=1.5 * step)
    expected = square[:2] + TEMPLATES["chip"] * 0.4 * side - 0.5
    np.testing.assert_allclose(found.points, expected, atol=1.5 * step)
    assert found.crop(Crop("chip")) == Crop("chip")


@pytest.fixture
def fake_uniface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The names that uniface 4.2 has, with a detector that returns what it is given."""

    class Weights(StrEnum):
        MNET_V2 = "retinaface_mnet_v2"

    class RetinaFace:
        def __init__(self, *, model_name: Weights) -> None:
            assert model_name is Weights.MNET_V2

        def detect(self, image: np.ndarray) -> list[SimpleNamespace]:
            assert image[0, 0].tolist() == [0, 0, 255]  # a red photo in BGR
            height, width = image.shape[:2]
            face = SimpleNamespace(bbox=np.array([0, 0, width, height]), confidence=0.8, landmarks=np.ones((5, 2)))
            return [face]

    modules = {
        "uniface": {"RetinaFace": RetinaFace},
        "uniface.constants": {"RetinaFaceWeights": Weights},
        "uniface.model_store": {"get_cache_dir": lambda: str(tmp_path)},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return tmp_path / "retinaface_mnet_v2.onnx"


def test_uniface_is_adapted_and_never_downloads(fake_uniface: Path) -> None:
    with pytest.raises(MienError, match="weights are not there; fetch them once"):
        build_detector("uniface")
    fake_uniface.write_bytes(b"weights")
    photo = np.zeros((3, 20, 30), dtype=np.uint8)
    photo[0] = 255
    (found,) = build_detector("uniface").detect(photo)
    assert found.box.tolist() == [0, 0, 30, 20]
    assert found.score == pytest.approx(0.8)
    assert found.points is not None
    assert found.points.shape == (5, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cascad", "unknown detector 'cascad'; did you mean 'cascade'"),
        ("yunet", "needs its weights"),
        ("yunet:gone.onnx", "gone.onnx: no such file"),
        ("cascade:x", "takes no path"),
    ],
)
def test_a_wrong_name_says_what_would_be_right(name: str, message: str) -> None:
    with pytest.raises(MienError, match=message):
        build_detector(name)


@pytest.mark.parametrize(
    ("name", "word"), [("yunet", "run: pip install .\\.\\[detect\\]"), ("uniface", "pip install uniface")]
)
def test_a_missing_module_says_how_to_get_it(
    name: str, word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.onnx"
    weights.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "uniface", None)
    with pytest.raises(MienError, match=word):
        build_detector(f"yunet:{weights}" if name == "yunet" else name)


def test_a_file_that_is_no_yunet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    weights = tmp_path / "bad.onnx"
    weights.write_bytes(b"no network")
    with pytest.raises(MienError, match="cannot load it as YuNet"):
        build_detector(f"yunet:{weights}")


def test_a_detector_is_known_by_its_name_and_by_what_changes_its_answers() -> None:
    assert known_by(None) is None
    assert known_by(SimpleNamespace(name="mine")) == "mine"
    assert known_by(SimpleNamespace(name="mine", hash="abc")) == "mine abc"
    assert known_by(SimpleNamespace(name="mine", hash=lambda: "abc")) == "mine abc"
