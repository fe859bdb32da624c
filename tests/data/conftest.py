"""Tiny data sets written by the tests: pictures are smooth noise, so that no two are near-identical."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Pack = Callable[[str, dict[str, bytes]], Path]


def draw(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """`picture(seed, format="JPEG", width=40, height=40)`: the bytes of a picture."""

    def make(seed: int = 0, format: str = "JPEG", width: int = 40, height: int = 40) -> bytes:  # noqa: A002
        buffer = io.BytesIO()
        draw(seed, width, height).save(buffer, format)
        return buffer.getvalue()

    return make


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """`pack("folder" | "zip" | "tar" | "tar.gz", {name: bytes})`: where the files were written."""

    def make(kind: str, files: dict[str, bytes]) -> Path:
        path = tmp_path / (f"packed.{kind}" if kind != "folder" else "packed")
        if kind == "folder":
            for name, data in files.items():
                file = path / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        elif kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for number, (name, data) in enumerate(files.items()):
                    how = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
                    archive.writestr(zipfile.ZipInfo(name), data, how)
        else:
            with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
                for name, data in files.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        return path

    return make
