"""Tiles against the picture as a whole: with a network of the same class as the real one, and ones made to break."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mien.enhance.tiling import LEAST, as_memory_allows, field_of_view, in_tiles, spans
from mien.errors import PictureError

spandrel = pytest.importorskip("spandrel")


def picture(height: int = 256, width: int = 256, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def blur(radius: int, scale: int = 1) -> torch.nn.Module:
    """The mean of all pixels up to `radius` away, enlarged."""

    class Blur(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            side = 2 * radius + 1
            mean = F.avg_pool2d(image, side, 1, radius)
            return mean.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    return Blur()


def test_a_picture_of_256_px_in_tiles_of_96_is_that_of_one_piece(upscaler_weights: Path) -> None:
    network, image = spandrel.ModelLoader().load_from_file(upscaler_weights), picture()
    field = field_of_view(network, 4)
    assert 3 <= field <= 6  # six layers of 3 x 3 see six pixels around
    whole = network(image)
    tiled = in_tiles(network, image, 4, 96, field)
    assert tiled.shape == (1, 3, 1024, 1024)
    assert float((tiled - whole).abs().max()) <= 2 / 255
    assert float((in_tiles(network, image, 4, 96, 6) - whole).abs().max()) < 1e-4
    # Without the margin, borders show: the test can fail.
    assert float((in_tiles(network, image, 4, 96, 0, feather=0) - whole).abs().max()) > 2 / 255


@pytest.mark.parametrize(("radius", "scale"), [(0, 2), (5, 2), (20, 1)])
def test_the_field_of_view_is_what_a_network_looks_at(radius: int, scale: int) -> None:
    assert field_of_view(blur(radius, scale), scale) == radius


def test_a_view_without_an_end_is_the_largest() -> None:
    assert field_of_view(lambda image: image * 0 + image.mean(), 1) == 128


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(8, 150),
    width=st.integers(8, 150),
    tile=st.integers(LEAST, 90),
    radius=st.integers(0, 6),
    multiple=st.sampled_from([1, 4, 8]),
)
def test_any_size_in_any_tiles(height: int, width: int, tile: int, radius: int, multiple: int) -> None:
    network, image = blur(radius, 2), picture(height, width)
    torch.testing.assert_close(in_tiles(network, image, 2, tile, radius, multiple), network(image), atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 3000), tile=st.integers(LEAST, 600), field=st.integers(0, 40), feather=st.integers(0, 8))
def test_spans_cover_each_pixel_once_and_begin_where_windows_do(
    length: int, tile: int, field: int, feather: int
) -> None:
    found = spans(length, tile, field, feather, 8)
    assert np.array_equal(np.concatenate([np.arange(*span.own) for span in found]), np.arange(length))
    for span in found:
        assert span.own[1] - span.own[0] <= tile
        assert span.shown[0] % 8 == 0
        assert span.shown[0] <= max(span.kept[0] - field, 0) <= span.kept[0] <= span.own[0]
        assert span.own[1] <= span.kept[1] <= span.shown[1] <= length


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_where_memory_does_not_suffice_tiles_are_halved(error: RuntimeError) -> None:
    network, sides = blur(2), []

    def small(image: Tensor) -> Tensor:
        sides.append(max(image.shape[2:]))
        if sides[-1] > 100:
            raise error
        return network(image)

    image = picture(200, 150)
    made, tile = as_memory_allows(small, image, 1, 512, 2)
    assert tile == 50  # of 200, then 100, which with its margins is too much
    torch.testing.assert_close(made, network(image), atol=1e-5, rtol=0)
    assert sides[0] == 200

    def none(image: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    with pytest.raises(PictureError, match="not enough memory on cpu for the 150 x 200 px that it would become"):
        as_memory_allows(none, image, 1, 512, 2)

    def broken(image: Tensor) -> Tensor:
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        as_memory_allows(broken, image, 1, 512, 2)
