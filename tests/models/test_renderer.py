"""What is done to a picture to show it at an age, at any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from mien.models.renderer import Change, laid_over, moved


def test_pixels_are_fetched_from_where_the_flow_points_as_scipy_fetches_them() -> None:
    generator = torch.Generator().manual_seed(0)
    faces = torch.rand(2, 3, 9, 14, generator=generator)
    flows = (torch.rand(2, 4, 2, 9, 14, generator=generator) - 0.5) * 0.8
    found = moved(faces, flows).numpy()
    assert found.shape == (2, 4, 3, 9, 14)
    down, across = np.mgrid[0:9, 0:14]
    for face in range(2):
        for age in range(4):
            x, y = flows[face, age].numpy()
            places = [down + y * 9, across + x * 14]
            for channel in range(3):
                wanted = map_coordinates(faces[face, channel].numpy(), places, order=1, mode="nearest")
                np.testing.assert_allclose(found[face, age, channel], wanted, atol=1e-5)


def test_no_flow_leaves_a_picture_alone_and_its_gradient_is_right() -> None:
    faces = torch.rand(2, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    still = torch.zeros(2, 1, 2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(moved(faces, still)[:, 0], faces)
    torch.testing.assert_close(laid_over(faces, Change(still[:, :, :1].expand(-1, -1, 3, -1, -1))), faces[:, None])
    # Between pixels, where it is smooth.
    flows = (still + 0.04).requires_grad_(True)
    assert torch.autograd.gradcheck(moved, (faces.requires_grad_(True), flows))


def test_what_moves_stays_as_sharp_as_the_picture_is() -> None:
    """A change made at 8 px moves a picture of 64 px by as much of its side, and blurs nothing."""
    large = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    change = Change(torch.zeros(1, 1, 3, 8, 8), torch.tensor([0.125, 0.0]).view(1, 1, 2, 1, 1).expand(-1, -1, -1, 8, 8))
    shown = laid_over(large, change)[:, 0]
    torch.testing.assert_close(shown[..., :56], large[..., 8:], atol=1e-4, rtol=0)
    assert torch.allclose(shown[..., 56:], large[..., -1:], atol=1e-4)


@pytest.mark.parametrize("with_flows", [True, False])
def test_a_change_of_the_mirror_image_is_the_mirrored_change(with_flows: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    face, colours = torch.rand(1, 3, 8, 8, generator=generator), torch.rand(1, 2, 3, 8, 8, generator=generator)
    flows = (torch.rand(1, 2, 2, 8, 8, generator=generator) - 0.5) / 4 if with_flows else None
    change = Change(colours, flows)
    shown = laid_over(face.flip(-1), change.flipped()).flip(-1)
    torch.testing.assert_close(shown, laid_over(face, change))
