"""What is told of work while it is done, and when a device has done it."""

from __future__ import annotations

import pytest
import torch

from mien.progress import wait_for


def test_what_one_of_several_cards_was_told_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", asked.append)
    for device in ("cpu", "cuda:1", "mps"):
        wait_for(torch.device(device))
    assert asked == [torch.device("cuda:1"), torch.device("mps")]
