"""Shared by all tests: faces that mien draws, prepared once a session; nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["MIEN_CACHE"] = "off"  # tests leave nothing behind


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 240 drawn faces of 60 people, 32 px, with all labels and four splits."""
    from mien.data.prepare import prepare
    from mien.data.sources.drawn import DrawnSource

    folder = tmp_path_factory.mktemp("drawn") / "faces"
    prepare(DrawnSource(count=240, seed=3, size=32), Path(), folder, seed=3, size=32, show=False)
    return folder
