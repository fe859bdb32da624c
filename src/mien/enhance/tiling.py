"""Pictures too large for a network at once, tile by tile: with enough around each that no tile can be told from whole.

A tile is shown to the network with a margin of what surrounds it, as wide as what the network sees around a pixel (its
field of view) and a feather more; what is kept of neighbours overlaps by the feather on either side of their border,
and fades from one to the other. At the picture's own edges there is no margin, so that the network meets them as it
would untiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import PictureError

#: A picture (1, 3, H, W) float32 in [0, 1] to (1, 3, scale H, scale W).
Network = Callable[[Tensor], Tensor]

#: Pixels on either side of a border over which one tile fades into the next.
FEATHER = 8
#: Side in pixels of the smallest tile worth a try.
LEAST = 32
#: Sides of the pictures on which a field of view is measured; beyond the last it is taken for that one.
PROBES = (32, 64, 128)
#: What a pixel may change by when what lies outside the field of view does: a quarter of one of 255 levels.
UNSEEN = 0.25 / 255


class Span(NamedTuple):
    """One tile along one axis, in pixels of the picture: its own part, what is kept, what the network is shown."""

    own: tuple[int, int]
    kept: tuple[int, int]
    shown: tuple[int, int]

    def inside(self, scale: int) -> slice:
        """What is kept, in the output of what is shown."""
        return slice(scale * (self.kept[0] - self.shown[0]), scale * (self.kept[1] - self.shown[0]))

    def place(self, scale: int) -> slice:
        """What is kept, in the whole output."""
        return slice(scale * self.kept[0], scale * self.kept[1])


def field_of_view(network: Network, scale: int, device: torch.device | str = "cpu") -> int:
    """How far around a pixel, in pixels of the input, the network looks: measured, for what it is declared to see may
    be hundreds of pixels of which it uses few.

    A picture and the same one without its upper and left part are given to it; the distance from the cut beyond which
    no output differs by more than `UNSEEN` is the field of view. White and coarse noise, the same on every machine.
    """
    for half in PROBES:
        found = max(_reach(network, scale, picture.to(device)) for picture in _noises(2 * half))
        if 4 * found <= 3 * half:
            return found
    return PROBES[-1]


def _noises(side: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    white = torch.rand(1, 3, side, side, generator=generator)
    yield white
    coarse = torch.rand(1, 3, side // 8, side // 8, generator=generator)
    yield F.interpolate(coarse, (side, side), mode="bilinear")


def _reach(network: Network, scale: int, picture: Tensor) -> int:
    half = picture.shape[2] // 2
    whole = network(picture)[..., scale * half :, scale * half :]
    apart = (whole - network(picture[..., half:, half:].contiguous())).abs().amax(dim=(0, 1)).float().cpu().numpy()
    place = np.arange(len(apart)) // scale
    distance = np.minimum(place[:, None], place[None, :])
    seen = distance[apart > UNSEEN]
    return int(seen.max()) + 1 if len(seen) else 0


def in_tiles(
    network: Network, picture: Tensor, scale: int, tile: int, field: int, multiple: int = 1, feather: int = FEATHER
) -> Tensor:
    """What the network makes of a picture, tile by tile.

    Args:
        network: as `Network` says.
        picture: (1, 3, H, W) float32 in [0, 1].
        scale: how many times larger the output is.
        tile: largest side of a tile without its margin, in pixels of the picture.
        field: the network's field of view, in pixels of the picture.
        multiple: tiles as they are shown begin at multiples of this, as a network with windows wants it.
        feather: see `FEATHER`.

    Returns:
        (1, 3, scale H, scale W) float32, on the picture's device.
    """
    height, width = picture.shape[2:]
    if max(height, width) <= tile:
        return network(picture)
    feather = min(feather, tile // 4)
    made = picture.new_zeros(1, picture.shape[1], scale * height, scale * width)
    for rows in spans(height, tile, field, feather, multiple):
        for columns in spans(width, tile, field, feather, multiple):
            piece = network(picture[..., slice(*rows.shown), slice(*columns.shown)].contiguous())
            down, across = (_fade(span, scale, length, feather) for span, length in ((rows, height), (columns, width)))
            weight = torch.from_numpy(down[:, None] * across[None, :]).to(piece)
            inside = piece[..., rows.inside(scale), columns.inside(scale)]
            made[..., rows.place(scale), columns.place(scale)] += inside * weight
    return made


def spans(length: int, tile: int, field: int, feather: int, multiple: int = 1) -> list[Span]:
    """The tiles of one axis: as few as possible, as equal as possible."""
    count = -(-length // tile)
    edges = [round(length * number / count) for number in range(count + 1)]
    found = []
    for first, last in pairwise(edges):
        kept = max(first - feather, 0), min(last + feather, length)
        begin = max(kept[0] - field, 0) // multiple * multiple
        found.append(Span((first, last), kept, (begin, min(kept[1] + field, length))))
    return found


def _fade(span: Span, scale: int, length: int, feather: int) -> np.ndarray:
    """How much each pixel of the output that is kept of a tile counts along one axis; over all tiles they add to 1."""
    place = (np.arange(scale * span.kept[0], scale * span.kept[1]) + 0.5) / scale
    weight = np.ones_like(place)
    if feather and span.own[0] > 0:
        weight *= np.clip((place - span.own[0] + feather) / (2 * feather), 0, 1)
    if feather and span.own[1] < length:
        weight *= np.clip((span.own[1] + feather - place) / (2 * feather), 0, 1)
    return weight.astype(np.float32)


def as_memory_allows(
    network: Network, picture: Tensor, scale: int, tile: int, field: int, multiple: int = 1
) -> tuple[Tensor, int]:
    """`in_tiles`, with tiles of half the side whenever memory does not suffice; also the side that did.

    Raises:
        PictureError: it does not suffice for the smallest tile either.
    """
    tile = max(tile, LEAST)
    while True:
        try:
            return in_tiles(network, picture, scale, tile, field, multiple), tile
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Out of the except clause, which keeps alive every tensor of the failed attempt.
        side = min(tile, max(picture.shape[2:]))
        if side <= LEAST:
            height, width = (scale * length for length in picture.shape[2:])
            raise PictureError(
                f"not enough memory on {picture.device} for the {width:,} x {height:,} px that it would become; make "
                "it smaller, take another --device, or free some"
            )
        tile = max(side // 2, LEAST)
        if picture.device.type == "cuda":
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch says that memory does not suffice."""
    said = str(error).lower()
    words = ("not enough memory", "can't allocate memory", "out of memory")  # Windows', Linux's, Apple's
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in said for word in words)
