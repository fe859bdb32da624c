"""Shared by all tests: faces that mien draws, prepared once a session; nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["MIEN_CACHE"] = "off"  # tests leave nothing behind
if "PYTEST_XDIST_WORKER" in os.environ:
    # With `-n`, each process has one thread: where every process starts one a core they wait for each other, and the
    # trees of scikit-learn take a hundred times as long. Before torch is imported, or it has no effect.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, each process starts on whole files of its own, whose fixtures the others need not make too, and takes
    from the others when it is done: a long test at the end keeps only one of them waiting."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 240 drawn faces of 60 people, 32 px, with all labels and four splits."""
    from mien.data.prepare import prepare
    from mien.data.sources.drawn import DrawnSource

    folder = tmp_path_factory.mktemp("drawn") / "faces"
    prepare(DrawnSource(count=240, seed=3, size=32), Path(), folder, seed=3, size=32, show=False)
    return folder


@pytest.fixture(scope="module")
def unpainted() -> Iterator[None]:
    """Figures are built and put where they belong, but not painted, which is most of what a report takes: for tests
    of what leads there. How they look is asked in `tests/report` and `tests/evaluation`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mien.report.style._png", lambda figure: b"\x89PNG")
        yield


@pytest.fixture(scope="session")
def upscaler_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real-ESRGAN's compact network x4, six layers of random weights that make much of what surrounds a pixel."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    channels = [3, 8, 8, 8, 8, 8, 48]
    state: dict[str, torch.Tensor] = {}
    for layer, (before, after) in enumerate(pairwise(channels)):
        std = 1.4 / (9 * before) ** 0.5
        state[f"body.{2 * layer}.weight"] = std * torch.randn(after, before, 3, 3, generator=generator)
        state[f"body.{2 * layer}.bias"] = torch.zeros(after)
        if layer < 5:
            state[f"body.{2 * layer + 1}.weight"] = torch.full((after,), 0.25)
    path = tmp_path_factory.mktemp("weights") / "tiny-x4.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="session")
def resnet_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with random weights of timm's test_resnet."""
    import timm
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    return str(path)
