"""A batch of faces on its way to another device."""

from __future__ import annotations

import pytest
import torch

from mien.faces import FaceBatch


@pytest.mark.parametrize(("device", "ahead"), [("cuda:1", True), ("mps", False), ("cpu", False)])
def test_only_a_copy_to_cuda_is_not_waited_for(device: str, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def to(self: torch.Tensor, device: str, non_blocking: bool = False) -> torch.Tensor:
        asked.append((device, non_blocking))
        return self

    monkeypatch.setattr(torch.Tensor, "to", to)
    numbers = torch.zeros(2)
    FaceBatch(torch.zeros(2, 3, 4, 4), {"age": numbers}, numbers, torch.zeros(2, 68, 2), numbers).to(device)
    assert asked == [(device, ahead)] * 5
