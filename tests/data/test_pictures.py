"""Every kind of picture becomes RGB uint8, channels first; what is none is refused with its reason."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mien.data.pictures import Pictures, decode, encode, is_picture, resize
from mien.errors import PictureError

NOISE = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(NOISE).resize((60, 40))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(int)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_common_formats(kind):
    image = decode(saved(SMOOTH, kind))
    assert image.shape == (3, 40, 60)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.transpose(1, 2, 0).flags.c_contiguous
    assert np.abs(image - as_array(Image.open(io.BytesIO(saved(SMOOTH, kind))))).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    kind, _, packed = kind.partition(" ")
    data = saved(SMOOTH, kind, exif=exif, **({"compression": f"tiff_{packed}"} if packed else {}))
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = decode(data)
    assert image.shape[1:] == (want.height, want.width)
    assert np.abs(image - as_array(want)).max() <= 3


def test_exif_is_found_behind_a_large_profile_of_colours():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(SMOOTH, "JPEG", exif=exif)
    start = data.index(b"\xff\xe1")
    profile = b"".join(
        b"\xff\xe2" + (60_000).to_bytes(2, "big") + b"ICC_PROFILE\0" + bytes([part, 2]) + bytes(60_000 - 16)
        for part in (1, 2)
    )
    for between in (profile, profile + b"\xff\xff"):
        assert (decode(data[:start] + between + data[start:]) == decode(data)).all()


def test_damaged_exif_does_not_lose_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(SMOOTH, "JPEG", exif=exif)
    start = data.index(b"Exif\0\0") + 6
    assert decode(data[:start] + b"XX" + data[start + 2 :]).shape == (3, 40, 60)
    assert decode(data[:start] + b"\xff" * 20 + data[start + 20 :]).shape == (3, 40, 60)


def test_postscript_is_not_run(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    with pytest.raises(PictureError, match="does not read"):
        decode(saved(SMOOTH, "EPS"))
    assert not ran.exists()


def test_modes():
    grey = SMOOTH.convert("L")
    assert np.abs(decode(saved(grey, "JPEG")) - as_array(grey)).max() <= 6
    assert (decode(saved(grey, "PNG")) == as_array(grey)).all()
    assert (decode(saved(SMOOTH.convert("P"), "PNG")) == as_array(SMOOTH.convert("P"))).all()
    assert (decode(saved(SMOOTH.convert("1"), "PNG")) == as_array(SMOOTH.convert("1"))).all()
    cmyk = decode(saved(SMOOTH.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk - as_array(SMOOTH)).mean() < 4


def test_sixteen_bits_keep_the_high_ones():
    deep = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27
    for kind in ("PNG", "TIFF"):
        image = decode(saved(Image.fromarray(deep), kind))
        assert (image == (deep >> 8)[None]).all()


def test_pixels_without_a_range_are_refused():
    with pytest.raises(PictureError, match="range"):
        decode(saved(Image.fromarray(np.full((20, 20), 0.5, np.float32)), "TIFF"))
    with pytest.raises(PictureError, match="range"):
        decode(saved(Image.fromarray(np.full((20, 20), 1 << 20, np.int32)), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_is_white(mode):
    layer = np.zeros((20, 20, 4), dtype=np.uint8)
    layer[:10] = (200, 30, 40, 255)
    image = Image.fromarray(layer)
    if mode == "P":
        palette = Image.new("P", (20, 20), 0)
        palette.putpalette([9, 9, 9, 200, 30, 40])
        palette.paste(1, (0, 0, 20, 10))
        data = saved(palette, "PNG", transparency=0)
    else:
        data = saved(image.convert(mode), "PNG")
    result = decode(data)
    assert (result[:, 10:] == 255).all()
    assert (result[:, :10] == as_array(image.convert(mode).convert("RGB"))[:, :10]).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.abs(decode(data) - as_array(frames[0])).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 40), (40, 7)])
def test_too_small(kind, width, height):
    with pytest.raises(PictureError, match=f"{width}x{height} px: smaller than 8 px"):
        decode(saved(SMOOTH.resize((width, height)), kind))
    assert decode(saved(SMOOTH.resize((8, 8)), kind)).shape == (3, 8, 8)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_before_they_unfold():
    with pytest.raises(PictureError, match="more than 100 megapixels"):
        decode(png_claiming(20_000, 20_000))
    with pytest.raises(PictureError, match=r"11000x10000 px: more than 100 megapixels"):
        decode(png_claiming(11_000, 10_000))
    jpeg = bytearray(saved(SMOOTH, "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", 20_000, 20_000)
    with pytest.raises(PictureError, match="20000x20000 px: more than 100 megapixels"):
        decode(bytes(jpeg))


def test_what_is_no_picture():
    with pytest.raises(PictureError, match="empty"):
        decode(b"")
    for data in (b"GIF", b"<html>", bytes(300), b"\xff\xd8", b"\xff\xd8\xff\xe0 hello"):
        with pytest.raises(PictureError, match="picture"):
            decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_truncated(kind):
    data = saved(SMOOTH.resize((300, 300)), kind)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(PictureError):
            decode(data[: int(len(data) * share)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.floats(0.2, 1),
)
def test_damage_is_a_picture_or_a_picture_error(kind, changes, keep):
    data = bytearray(saved(SMOOTH, kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    with suppress(PictureError):
        image = decode(bytes(data[: int(len(data) * keep)]))
        assert image.dtype == np.uint8
        assert image.shape[0] == 3


@pytest.mark.parametrize("side", [10, 39, 64, 100, 119, 120, 121, 500])
def test_side_never_goes_below_what_is_asked(side):
    data = saved(SMOOTH.resize((160, 120)), "JPEG")
    image = decode(data, side)
    assert min(image.shape[1:]) >= min(side, 120)
    assert image.shape[1] <= 120
    assert decode(data, 10).shape[1] < 40


def test_encode_round_trip():
    image = decode(saved(SMOOTH, "PNG"))
    assert np.abs(decode(encode(image)).astype(int) - image).max() < 12
    assert (decode(encode(image, "PNG")) == image).all()
    assert encode(image)[:2] == b"\xff\xd8"
    assert len(encode(image, quality=30)) < len(encode(image, quality=95))


def test_resize_averages():
    board = np.zeros((3, 64, 64), dtype=np.uint8)
    board[:, ::2, ::2] = board[:, 1::2, 1::2] = 255
    small = resize(board, 16)
    assert small.shape == (3, 16, 16)
    assert np.abs(small.astype(int) - 127).max() < 8  # nearest or plain bilinear sampling would give 0 or 255
    assert resize(board, 64) is board


def test_pictures_names_what_failed(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8nothing")
    pictures = pickle.loads(pickle.dumps(Pictures(tmp_path)))
    with pytest.raises(PictureError, match=r"^bad\.jpg: "):
        pictures.image("bad.jpg")
    with pytest.raises(PictureError, match=r"none\.jpg: No such file"):
        pictures.image("none.jpg")
    with pytest.raises(PictureError, match=r"gone\.zip cannot be read: No such file"):
        pictures.image("a.jpg", "gone.zip")


def test_endings():
    assert all(map(is_picture, ("a.JPG", "b.jpeg", "c.WebP", "d.chip.png")))
    assert not any(map(is_picture, ("a.txt", "jpg", "b.jpg.zip")))


def test_a_heic_photo_is_told_to_be_one_whatever_its_name() -> None:
    with pytest.raises(PictureError, match="a kind of picture that mien does not read; convert it to JPEG or PNG"):
        decode(b"\x00\x00\x00\x18ftypheic" + bytes(40))


def test_an_archive_is_told_to_be_one() -> None:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.jpg", b"a picture")
    with tarfile.open(fileobj=tarred, mode="w") as tape:
        tape.addfile(tarfile.TarInfo("a.jpg"))
    for data in (zipped.getvalue(), tarred.getvalue(), gzip.compress(tarred.getvalue())):
        with pytest.raises(PictureError, match="an archive, no picture; unpack it, or give it to mien prepare"):
            decode(data)
