"""Renderers that know nothing, on pictures whose renders can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mien.errors import MienError
from mien.faces import Crop
from mien.models.trivial import Copy, MeanFace, PixelShift

CROP = Crop("chip", 0.0, 16)
YEARS = torch.tensor([10.0, 30.0, 70.0])


@pytest.fixture
def means() -> Tensor:
    """Mean faces that are flat: 0.2, 0.4 and 0.7."""
    return torch.tensor([0.2, 0.4, 0.7]).view(3, 1, 1, 1).expand(3, 3, 8, 8).contiguous()


@pytest.fixture
def faces() -> Tensor:
    return torch.randint(60, 120, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_copy_is_the_picture_at_every_age(faces: Tensor) -> None:
    made = Copy(CROP, 16).render(faces, torch.tensor([[5.0, 90.0]]).expand(4, -1))
    assert made.shape == (4, 2, 3, 16, 16)
    assert torch.equal((made * 255).round().to(torch.uint8), faces[:, None].expand(-1, 2, -1, -1, -1))


def test_the_mean_face_is_that_of_the_nearest_age_whoever_is_shown(faces: Tensor, means: Tensor) -> None:
    made = MeanFace(CROP, means, YEARS).render(faces, torch.tensor([[0.0, 26.0, 95.0]]).expand(4, -1))
    assert made.shape == (4, 3, 3, 16, 16)
    assert torch.allclose(made, torch.tensor([0.2, 0.4, 0.7]).view(1, 3, 1, 1, 1).expand_as(made))


def test_a_shift_adds_what_one_mean_face_has_more_than_the_other(faces: Tensor, means: Tensor) -> None:
    shift, ages = PixelShift(CROP, means, YEARS), torch.tensor([[10.0, 70.0]]).expand(4, -1)
    given = faces.float() / 255
    told = shift.render(faces, ages, torch.tensor([28.0, 28.0, 68.0, torch.nan]))
    for row, own in enumerate((0.4, 0.4, 0.7, 0.4)):  # untold, a face of 60 to 120 of 255 is nearest to 0.4
        for place, mean in enumerate((0.2, 0.7)):
            assert torch.allclose(told[row, place], (given[row] + mean - own).clamp(0, 1), atol=1e-6)
    assert torch.equal(shift.render(faces, ages)[3], told[3])


def test_ages_that_nobody_has_are_refused(faces: Tensor) -> None:
    with pytest.raises(MienError, match="age 130 to render is outside 0-120"):
        Copy(CROP, 16).render(faces, torch.full((4, 1), 130.0))
