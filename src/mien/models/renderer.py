"""What every renderer is: a function of pictures and ages."""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import LUMA, MAX_AGE, MIN_AGE, Crop
from mien.models.estimator import fingerprint
from mien.models.met import Met

#: The most that a learnt change is enlarged.
STRONGEST = 4.0


class Renderer(Protocol):
    """A network that shows a face at given ages.

    `crop` is how the faces sat in the pictures it learnt from, `input_size` the side it works at, `ages` the youngest
    and oldest age it has seen.
    """

    name: str
    crop: Crop
    ages: tuple[float, float]
    card: dict[str, Any]

    @property
    def input_size(self) -> int: ...

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        """Uint8 or float [0, 1] faces (B, 3, H, W) at `ages` (B, A) years: float32 [0, 1] (B, A, 3, H, W).

        `source_ages` is (B,) years, NaN where unknown; None: all are. The same faces and ages give the same pictures.
        """
        ...


class RenderingNetwork(nn.Module):
    """What the networks that render have in common: the facts of a `Renderer`, and the settings they are built from."""

    def __init__(self, settings: BaseModel, size: int, crop: Crop) -> None:
        super().__init__()
        self.settings = settings
        self.crop = crop
        #: Side in pixels of the pictures it works on.
        self.input_size = size
        self.name = ""
        self.ages = (0.0, 100.0)
        #: Terms, training data and figures, as shipped models carry them.
        self.card: dict[str, Any] = {}
        #: Its training faces, None where they are not known.
        self.learnt: Met | None = None


class Changing(Renderer, Protocol):
    """A renderer that changes the picture it is given; see `strength_of`."""

    def shown(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Change:
        """What is done to the pictures to show them at `ages`, as `render` takes them, at working size."""
        ...


AnyRenderer = TypeVar("AnyRenderer", bound=Renderer)


class Change(NamedTuple):
    """What is done to faces to show them at A ages: `colours` (B, A, 3, S, S) are added, after each pixel was fetched
    from `flows` (B, A, 2, S, S) away, x and y in shares of the side; None: where it was."""

    colours: Tensor
    flows: Tensor | None = None

    def times(self, share: Tensor | float) -> Change:
        """So much of it, a number for all or (B, A)."""
        many = share[..., None, None, None] if isinstance(share, Tensor) else share
        return Change(self.colours * many, None if self.flows is None else self.flows * many)

    def flipped(self) -> Change:
        """The same for the mirror images."""
        if self.flows is None:
            return Change(self.colours.flip(-1))
        return Change(self.colours.flip(-1), self.flows.flip(-1) * self.flows.new_tensor([-1.0, 1.0])[:, None, None])


def renderer_hash(renderer: Renderer) -> str:
    """sha256 over the weights, the crop and the settings: two renderers with one hash render alike."""
    assert isinstance(renderer, nn.Module)
    settings = getattr(renderer, "settings", None)
    facts = {
        "crop": renderer.crop.to_dict(),
        "size": renderer.input_size,
        "settings": settings.model_dump(mode="json") if isinstance(settings, BaseModel) else {},
    }
    return fingerprint(renderer, facts)


def strength_of(renderer: Renderer) -> float | None:
    """How much of the change it has learnt the renderer shows; None where it does not add a change to the picture."""
    settings = getattr(renderer, "settings", None)
    if not getattr(settings, "residual", True):
        return None
    strength: float | None = getattr(settings, "strength", None)
    return strength


def with_strength(renderer: AnyRenderer, strength: float) -> AnyRenderer:
    """The renderer, of the same weights, showing `strength` times the change that it has learnt.

    Raises:
        MienError: it shows no change of the picture, or none shows so much.
    """
    if strength_of(renderer) is None:
        raise MienError(f"{renderer.name or type(renderer).__name__} adds no change to the picture: leave strength out")
    if not 0 < strength <= STRONGEST:
        raise MienError(f"a strength of {strength:g}: expected a number above 0, {STRONGEST:g} at most")
    shown = copy(renderer)
    shown.settings = renderer.settings.model_copy(update={"strength": strength})  # type: ignore[attr-defined]
    return shown


def toned(changes: Tensor, colour: float) -> Tensor:
    """Changes of pictures (..., 3, H, W) with `colour`, from 0 to 1, of their colour: 0 leaves brightness alone."""
    if colour == 1:
        return changes  # to the bit
    brightness = (changes * changes.new_tensor(LUMA)[:, None, None]).sum(dim=-3, keepdim=True)
    return brightness + colour * (changes - brightness)


def check_ages(ages: Tensor, faces: int) -> None:
    """Refuse ages to render that are not (faces, A) years of a human life.

    Raises:
        MienError: another shape, or a value outside 0-120 (NaN too).
    """
    if ages.ndim != 2 or len(ages) != faces:
        raise MienError(f"ages of shape {tuple(ages.shape)} for {faces} faces: expected ({faces}, A), a row a face")
    bad = ~((ages >= MIN_AGE) & (ages <= MAX_AGE))
    if bool(bad.any()):
        raise MienError(f"age {float(ages[bad][0]):g} to render is outside {MIN_AGE}-{MAX_AGE} years")


def as_float(images: Tensor) -> Tensor:
    """Uint8 or float [0, 1] pictures as float32 [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def resized(images: Tensor, side: int) -> Tensor:
    """Float pictures (B, 3, H, W) as (B, 3, side, side)."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


def laid_over(images: Tensor, change: Change) -> Tensor:
    """Float pictures (B, 3, H, W) at each of A ages, (B, A, 3, H, W), by a change that was made at another size, say,
    before any value beyond [0, 1] is cut off."""
    colours, flows = (None if part is None else enlarged(part, images) for part in change)
    assert colours is not None
    return (images[:, None] if flows is None else moved(images, flows)) + colours


def moved(images: Tensor, flows: Tensor) -> Tensor:
    """Float pictures (B, 3, H, W) whose pixels are fetched from `flows` (B, A, 2, H, W) away, x and y in shares of the
    sides: (B, A, 3, H, W). Beyond an edge the edge goes on."""
    count, (height, width) = flows.shape[1], images.shape[-2:]
    x = (torch.arange(width, dtype=flows.dtype, device=images.device) * 2 + 1) / width - 1
    y = (torch.arange(height, dtype=flows.dtype, device=images.device) * 2 + 1) / height - 1
    at = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    places = at + 2 * flows.flatten(0, 1).movedim(1, -1)
    again = images[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
    return F.grid_sample(again, places, padding_mode="border", align_corners=False).unflatten(0, (-1, count))


def enlarged(values: Tensor, images: Tensor) -> Tensor:
    """Maps (B, A, C, S, S) at the size of the pictures (B, 3, H, W)."""
    size = images.shape[-2:]
    if size == values.shape[-2:]:
        return values
    return F.interpolate(values.flatten(0, 1), size, mode="bilinear", antialias=True).unflatten(0, values.shape[:2])
