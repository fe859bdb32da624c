"""Faces in photos: a protocol and the detectors that fit it.

A detector gives boxes; the better ones give five points too, by which `align.crop_face` turns a face upright.
Where there are none the crop is unaligned, and whoever reads a result is told so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mien.data.align import crop_face
from mien.errors import MienError, need, unknown
from mien.faces import Crop
from mien.files import file_hash


@dataclass(frozen=True, slots=True)
class Detection:
    """One face in a photo, in pixels of it; points and boxes as `align` counts them.

    `box` is (4,) float64: left, top, right, bottom, and may reach beyond the photo. `score` is the detector's
    own in [0, 1], None where it gives none. `points` is (5, 2) float64 in the order of `align.TEMPLATES`;
    None where the detector finds only boxes: then `box` is the square that the canonical crop would show, as
    near as a box can tell. `landmarks` is (68, 2) float64 in iBUG's order, where something found them.
    """

    box: np.ndarray
    score: float | None = None
    points: np.ndarray | None = None
    landmarks: np.ndarray | None = None

    @property
    def where(self) -> np.ndarray:
        """What `align.crop_face` cuts by: the points, or else the landmarks, or else the box."""
        if self.points is not None:
            return self.points
        return self.box if self.landmarks is None else self.landmarks

    @property
    def aligned(self) -> bool:
        """Whether more than a box says how the face lies."""
        return self.points is not None or self.landmarks is not None

    def crop(self, crop: Crop) -> Crop:
        """The crop that a face cut by this detection really has: "box" when nothing aligned it."""
        return crop if self.aligned else Crop("box", crop.margin, crop.size)


class Detector(Protocol):
    """Anything that finds faces. A resumed job is refused another `hash`, where a detector has one beside its name."""

    name: str

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Faces in `image` (3, H, W) uint8 RGB, from left to right by the centres of their boxes; [] for
        none.

        May be called from several threads at once.
        """


def known_by(detector: Detector | None) -> str | None:
    """What a job's record calls a detector: its name, and its hash where it has one."""
    if detector is None:
        return None
    name, own = getattr(detector, "name", None), getattr(detector, "hash", None)
    own = own() if callable(own) else own
    return name if own is None else f"{name} {own}"


def from_left(detections: list[Detection]) -> list[Detection]:
    """Detections from left to right, and from top to bottom where they stand one above the other."""
    return sorted(detections, key=lambda d: (float(d.box[0] + d.box[2]), float(d.box[1] + d.box[3])))


def shrink(image: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    """`image` (3, H, W) as contiguous (H, W, 3) with no side above `longest`, and the factor (<= 1) to it."""
    height, width = image.shape[1:]
    factor = min(1.0, longest / max(height, width))
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    if factor == 1.0:
        return pixels, factor
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)), factor


class CascadeDetector:
    """scikit-image's frontal-face cascade (local binary patterns): offline, boxes only, frontal faces only.

    A photo is searched twice: shrunk to 320 px for faces of at least an eighth of its longer side, and at 640
    px, with a coarser step, for those down to a twentieth. On FG-NET's photos it finds 88 % of the faces, and
    something that is none in one photo of 50.
    """

    name = "cascade"
    #: Longest side, smallest and largest window in pixels, step, neighbours.
    PASSES = ((320, 40, 320, 1.0, 5), (640, 32, 80, 1.5, 4))
    #: From a window to the square of the "chip" crop, in widths of the window: the shift of the centre and
    #: the side. Medians over FG-NET's photos; a single face scatters by 0.04 and 0.1.
    SHIFT, SIDE = (0.0, 0.095), 1.01

    def __init__(self) -> None:
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade

        self._cascade = Cascade(lbp_frontal_face_cascade_filename())
        # The compiled cascade says nothing about threads, and spreads over the cores by itself.
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return CascadeDetector, ()  # another process makes its own

    def detect(self, image: np.ndarray) -> list[Detection]:
        """As `Detector.detect`."""
        passes = [self._windows(image, *one[:4]) for one in self.PASSES]
        windows = np.concatenate(passes)
        origin = np.repeat(np.arange(len(passes)), [len(one) for one in passes])
        found = []
        for group in _groups(windows):
            counts = np.bincount(origin[group], minlength=len(passes))
            if any(count >= one[4] for count, one in zip(counts, self.PASSES, strict=True)):
                left, top, width = windows[group].mean(axis=0)
                centre = np.array([left, top]) + width * (0.5 + np.array(self.SHIFT))
                half = width * self.SIDE / 2
                found.append((len(group), np.concatenate([centre - half, centre + half])))
        squares: list[np.ndarray] = []
        for _, square in sorted(found, key=lambda one: -one[0]):  # the most often seen first
            if not any(_overlap(square, other) > 0.5 for other in squares):
                squares.append(square)
        return from_left([Detection(square) for square in squares])

    def _windows(self, image: np.ndarray, longest: int, smallest: int, largest: int, step: float) -> np.ndarray:
        """All windows that look like a face, (N, 3): left, top, width in pixels of `image`."""
        pixels, factor = shrink(image, longest)
        largest = min(largest, *pixels.shape[:2])
        if largest < smallest:
            return np.empty((0, 3))
        with self._lock:
            windows = self._cascade.detect_multi_scale(
                pixels,
                scale_factor=1.1,
                step_ratio=step,
                min_size=(smallest, smallest),
                max_size=(largest, largest),
                # Its own grouping melts a small window into any large one around it: ask for each by itself.
                min_neighbor_number=1,
                intersection_score_threshold=2.0,
            )
        rows = [[window["c"], window["r"], window["width"]] for window in windows]
        return np.array(rows, dtype=np.float64).reshape(-1, 3) / factor


def _groups(windows: np.ndarray, tolerance: float = 0.2) -> list[np.ndarray]:
    """Rows of the windows (N, 3: left, top, width) that nearly agree, group by group.

    Two agree when no two of their edges differ by more than `tolerance` of the smaller width.
    """
    if not len(windows):
        return []
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([windows[:, :2], windows[:, :2] + windows[:, 2:]], axis=1)
    apart = np.abs(edges[:, None] - edges[None]).max(axis=2)
    near = apart <= tolerance * np.minimum(windows[:, None, 2], windows[None, :, 2])
    count, labels = connected_components(near, directed=False)
    return [np.flatnonzero(labels == one) for one in range(count)]


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two boxes share, as a share of the smaller one."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    area = min(float(np.prod(one[2:] - one[:2])), float(np.prod(other[2:] - other[:2])))
    return float(np.prod(np.maximum(sides, 0.0))) / max(area, 1e-9)


class YuNetDetector:
    """YuNet through OpenCV: five points, any turn of the head up to profile, faces from about 10 px at 640
    px.

    Args:
        weights: path of `face_detection_yunet_*.onnx`.
        threshold: least score of a face.

    Raises:
        MienError: OpenCV is not installed, the file is missing, or it is no YuNet.
    """

    name = "yunet"
    #: A face above so many pixels at 640 px is looked at again, twice its box in squares of these sides: YuNet's
    #: points are best on faces of about 100 px, and the median of four looks halves its worst errors on FG-NET.
    LARGE, SQUARES = 144, (160, 224, 288)

    def __init__(self, weights: str | Path | None = None, threshold: float = 0.7) -> None:
        if not weights:
            raise MienError("the detector yunet needs its weights: --detector yunet:PATH.onnx")
        self._path, self._threshold = Path(weights), threshold
        self._hash: str | None = None
        if not self._path.is_file():
            raise MienError(f"{self._path}: no such file; yunet wants the path of face_detection_yunet_*.onnx")
        self._cv2: Any = need("cv2", "detect")
        logging = self._cv2.utils.logging
        logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns of its own graph engine at every start
        self._own = threading.local()  # a FaceDetectorYN keeps the size of its last picture: one a thread
        self._network()

    @property
    def hash(self) -> str:
        """Of its weights and its threshold."""
        if self._hash is None:
            self._hash = f"{file_hash(self._path)} {self._threshold:g}"
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return YuNetDetector, (self._path, self._threshold)

    def _network(self) -> Any:
        network = getattr(self._own, "network", None)
        if network is None:
            try:
                network = self._cv2.FaceDetectorYN.create(str(self._path), "", (320, 320), self._threshold, 0.3, 5000)
            except self._cv2.error as error:
                raise MienError(f"{self._path}: OpenCV cannot load it as YuNet: {error.err}") from None
            self._own.network = network
        return network

    def detect(self, image: np.ndarray) -> list[Detection]:
        """As `Detector.detect`. Where nothing is found at 640 px the photo is tried at 256 px inside a
        border.

        YuNet is made for faces up to 300 px: one that fills a large photo, or its whole frame, shows itself
        only so.
        """
        found = self._at(image, 640, 0.0) or self._at(image, 256, 0.25)
        large = self.LARGE * max(1.0, max(image.shape[1:]) / 640)
        return from_left([self._again(image, one) if np.ptp(one.box[::2]) > large else one for one in found])

    def _again(self, image: np.ndarray, face: Detection) -> Detection:
        """The same face with the median of its points over several sizes."""
        middle, half = (face.box[:2] + face.box[2:]) / 2, (face.box[2:] - face.box[:2]).max()
        looks = [face.where]
        for side in self.SQUARES:
            part, matrix = crop_face(image, np.concatenate([middle - half, middle + half]), Crop("box", 0, side))
            found = self._at(part, side, 0.0)
            if found:
                nearest = min(found, key=lambda one: float(np.abs(one.box.reshape(2, 2).mean(axis=0) - side / 2).max()))
                scale, shift = matrix[0, 0], matrix[:, 2]  # a box is cut upright
                looks.append((nearest.where - shift) / scale)
        return Detection(face.box, face.score, np.median(np.stack(looks), axis=0))

    def _at(self, image: np.ndarray, longest: int, border: float) -> list[Detection]:
        pixels, factor = shrink(image, longest)
        pad = round(border * max(pixels.shape[:2]))
        if pad:
            pixels = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)))
        network = self._network()
        network.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, rows = network.detect(np.ascontiguousarray(pixels[:, :, ::-1]))  # OpenCV takes BGR
        detections = []
        for row in [] if rows is None else np.asarray(rows, dtype=np.float64):
            corner, size = (row[:2] - pad) / factor, row[2:4] / factor
            points = (row[4:14].reshape(5, 2) - pad + 0.5) / factor - 0.5
            detections.append(Detection(np.concatenate([corner, corner + size]), float(row[14]), points))
        return detections


class UnifaceDetector:
    """RetinaFace of the package uniface, if it is installed: five points.

    Its weights must lie in uniface's own cache: here nothing downloads unasked.
    """

    name = "uniface"

    def __init__(self) -> None:
        try:
            import uniface
            from uniface.constants import RetinaFaceWeights
            from uniface.model_store import get_cache_dir
        except ImportError:
            raise MienError("uniface is not installed; install it with: pip install uniface") from None
        model = RetinaFaceWeights.MNET_V2
        weights = Path(get_cache_dir()) / f"{model.value}.onnx"
        if not weights.is_file():
            raise MienError(
                f"{weights}: uniface's weights are not there; fetch them once with: "
                'python -c "import uniface; uniface.RetinaFace()"'
            )
        self._network = uniface.RetinaFace(model_name=model)

    def __reduce__(self) -> tuple[Any, ...]:
        return UnifaceDetector, ()

    def detect(self, image: np.ndarray) -> list[Detection]:
        """As `Detector.detect`."""
        faces = self._network.detect(np.ascontiguousarray(image.transpose(1, 2, 0)[:, :, ::-1]))  # it takes BGR
        return from_left(
            [
                Detection(
                    np.asarray(face.bbox, dtype=np.float64)[:4],
                    float(face.confidence),
                    np.asarray(face.landmarks, dtype=np.float64).reshape(5, 2),
                )
                for face in faces
            ]
        )


#: Name to constructor; only yunet takes what follows the colon in `--detector NAME:PATH`.
DETECTORS: dict[str, Callable[..., Detector]] = {
    "cascade": CascadeDetector,
    "yunet": YuNetDetector,
    "uniface": UnifaceDetector,
}


def build_detector(name: str = "cascade") -> Detector:
    """The detector that `name` says: `cascade`, `yunet:PATH`, `uniface`.

    Raises:
        MienError: there is none of that name, or what it needs is missing.
    """
    kind, _, path = name.partition(":")
    if kind not in DETECTORS:
        raise unknown("detector", kind, DETECTORS)
    if path and kind != "yunet":
        raise MienError(f"the detector {kind} takes no path; leave out {path!r}")
    return DETECTORS[kind](path) if kind == "yunet" else DETECTORS[kind]()
