"""Pictures as bytes and as arrays: RGB uint8, channels first."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mien.data.archives import Folder, Tree, leads_outside, open_archive
from mien.errors import MienError, PictureError

PICTURE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi"),
    *(".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif"),
)
#: Pictures too, which mien does not read: they are listed, lest they be missed in silence.
OTHER_ENDINGS = (".heic", ".heif", ".jxl", ".jp2", ".j2k", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf")
OTHER = "a kind of picture that mien does not read; convert it to JPEG or PNG"
#: Pillow has another program (Ghostscript) run what stands in these, whatever the file is called.
PROGRAMS = ("EPS",)
#: What a zip and a gzipped file begin with.
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b")
#: Neither a face nor a mistake: nothing can be seen below this side.
MIN_SIDE = 8
MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112

# Pillow warns of large pictures while it opens them; `decode` refuses them itself, with a reason.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Pictures:
    """Reads pictures under a root: plain files, or members of zips and tars.

    Archives are opened when first needed, once per process; an object may be pickled, used after a fork and
    shared between threads.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._folder = Folder(self.root)
        self._archives: dict[str, Tree] = {}
        self._opening = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    def read(self, path: str, archive: str | None = None) -> bytes:
        """The stored bytes of one picture.

        Raises:
            PictureError: it is not there, its name leads outside the root, or its archive is damaged.
        """
        if archive is None:
            return self._folder.read(path)
        if leads_outside(archive):
            raise PictureError(f"{archive} leads outside {self.root}")
        if self._process != os.getpid():
            # After a fork the file positions are shared with the parent: reading would jump about in both. A lock may
            # have been held by a thread that there is only there.
            self._archives, self._opening, self._process = {}, threading.Lock(), os.getpid()
        tree = self._archives.get(archive)
        if tree is None:
            with self._opening:  # one thread unpacks a compressed tar, the others wait for it
                tree = self._archives.get(archive)
                if tree is None:
                    try:
                        tree = self._archives[archive] = open_archive(self.root / archive)
                    except MienError as error:
                        raise PictureError(str(error)) from None
        return tree.read(path)

    def image(self, path: str, archive: str | None = None, side: int | None = None) -> np.ndarray:
        """Read and `decode` one picture; `PictureError` when either fails."""
        try:
            return decode(self.read(path, archive), side)
        except PictureError as error:
            message = str(error)
            raise PictureError(message if path in message else f"{path}: {message}") from None


def is_picture(name: str) -> bool:
    """Whether a file's ending is that of a picture, upper or lower case."""
    return name.lower().endswith(PICTURE_ENDINGS)


def is_other_picture(name: str) -> bool:
    """Whether a file's ending is that of a picture which mien does not read."""
    return name.lower().endswith(OTHER_ENDINGS)


def sha256(data: bytes) -> bytes:
    """The 32 bytes that name a picture's content."""
    return hashlib.sha256(data).digest()


def decode(data: bytes, side: int | None = None) -> np.ndarray:
    """Decode a picture to RGB uint8, (3, H, W), turned as its EXIF says.

    The first frame of animations; alpha is laid over white; 16 bits become 8. In memory channels lie last,
    so that `.transpose(1, 2, 0)` is contiguous. With `side`, a JPEG may come smaller, but never with
    min(H, W) < side unless it is stored so.

    Raises:
        PictureError: empty, no picture, truncated, smaller than 8 px, more than 100 megapixels, or pixels
            without a known range (float, 32 bits).
    """
    if not data:
        raise PictureError("the file is empty")
    if data[:2] == b"\xff\xd8" and (image := _fast_jpeg(data, side)) is not None:
        return image
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format in PROGRAMS:
                raise PictureError(OTHER)
            _check_size(*picture.size)
            if side is not None and picture.format == "JPEG":
                picture.draft(None, (side, side))
            return from_pillow(picture)
    except PictureError:
        raise
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp":  # HEIC, as telephones make it, whatever the file is called
            raise PictureError(OTHER) from None
        if data.startswith(ARCHIVES) or data[257:262] == b"ustar":
            raise PictureError("an archive, no picture; unpack it, or give it to mien prepare") from None
        raise PictureError(f"no picture: it begins with {data[:8]!r}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"more than {MAX_PIXELS // 1_000_000} megapixels") from None
    except Exception as error:
        # Pillow's readers raise nearly anything on damaged bytes (OSError, SyntaxError, struct.error, ...).
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"damaged picture: {reason}") from None


def from_pillow(picture: Image.Image) -> np.ndarray:
    """A Pillow picture of any mode as RGB uint8, (3, H, W), by the rules of `decode`."""
    _check_size(*picture.size)
    try:
        picture.load()  # Pillow turns a TIFF upright itself, but only now
        turn = _orientation(picture)
        return _turn(np.array(_rgb(picture)), turn).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow says of a file that it was reading
        raise PictureError(" ".join(str(error).split())) from None


def encode(image: np.ndarray, format: str = "JPEG", quality: int = 95) -> bytes:  # noqa: A002
    """Encode (3, H, W) uint8 RGB as bytes of `format`, any that Pillow writes."""
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    if format.upper() in ("JPEG", "JPG"):
        return simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="444")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, quality=quality)
    return buffer.getvalue()


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (3, H, W) uint8 to (3, size, size), bilinear and antialiased; the aspect is not kept."""
    if image.shape[1:] == (size, size):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"{width}x{height} px: smaller than {MIN_SIDE} px")
    if width * height > MAX_PIXELS:
        raise PictureError(f"{width}x{height} px: more than {MAX_PIXELS // 1_000_000} megapixels")


def _fast_jpeg(data: bytes, side: int | None) -> np.ndarray | None:
    """The picture, or None where Pillow must judge: CMYK, damage, or tables that libjpeg-turbo refuses."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height)
    if colours not in ("YCbCr", "Gray", "RGB"):
        return None
    turn = 1
    if _may_be_turned(data):
        try:
            turn = _orientation(Image.open(io.BytesIO(data)))
        except Exception:
            return None
    least = side or 0
    try:
        return _turn(simplejpeg.decode_jpeg(data, min_height=least, min_width=least), turn).transpose(2, 0, 1)
    except ValueError:
        return None


def _may_be_turned(data: bytes) -> bool:
    """Whether a JPEG has EXIF among the segments before its pixels, or these are not what they should be."""
    place = 2
    while data[place : place + 1] == b"\xff":
        kind = data[place + 1 : place + 2]
        if kind == b"\xda":
            return False
        if kind == b"\xe1" and data[place + 4 : place + 10] == b"Exif\0\0":
            return True
        # Any number of 0xFF may stand before a segment.
        place += 1 if kind == b"\xff" else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return True


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1-8; 1 where there is none or it is damaged."""
    try:
        turn = picture.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) turned upright from its EXIF orientation."""
    if orientation == 1:
        return image
    if orientation >= 5:  # rows are columns
        image = image.transpose(1, 0, 2)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(image, flips))


def _rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit RGB."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.array(picture).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "I":
        levels = np.array(picture)
        if levels.min() < 0 or levels.max() > 65535:
            raise PictureError("32-bit pixels have no known range")
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise PictureError("floating-point pixels have no known range")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")
