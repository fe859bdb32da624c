"""The AgeTransformer: a face seen once, shown at any number of ages in one pass.

A shared encoder sees the picture. Each age asked for is a query that attends to what it saw, as a colour does in
DDColor (Kang et al., 2023, https://arxiv.org/abs/2212.11613), and becomes a code. The codes modulate a light decoder,
all ages in the batch dimension, whose output is what changes and where: y = x + mask * change, so that what is not age
stays. With `warp` it also says where to the picture's own pixels move, as faces grow: y = x(place + flow) + mask *
change, so that what moves stays as sharp as it is (a spatial transformer: Jaderberg et al., 2015,
https://arxiv.org/abs/1506.02025).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import MAX_AGE, MIN_AGE, Crop
from mien.models.beta_vae import MIDDLE, UNIT
from mien.models.modulated import Stage
from mien.models.renderer import STRONGEST, Change, RenderingNetwork, as_float, check_ages, laid_over, resized, toned
from mien.models.residual import GROUPS, Block

#: Ages that a renderer shows unless told otherwise.
ANCHORS = (5.0, 15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 85.0, 95.0)
#: Waves of the Fourier features of an age: cycles in a century, from the slowest to the quickest.
WAVES, SLOWEST, QUICKEST = 12, 0.25, 8.0
#: Length of the Fourier features of one age.
FOURIER = 2 * WAVES + 1
#: Channels of a head of attention.
HEAD = 16
#: Settings of how the network's answer is shown, none of which changes what weights there are.
SHOWING = ("mirror", "strength", "colour", "beyond")
#: Where the change begins and ends to fade to what is shown beyond the face, in half axes of its ellipse.
FADING = (0.85, 1.15)


class AgeTransformerSettings(BaseModel):
    """What the network is. `width` is the dial: parameters grow with its square.

    Parameters by size and width: 0.95 M at 64 px and 24, 15 M at 128 px and 48, 27 M at 256 px and 64.
    """

    model_config = ConfigDict(extra="forbid")

    size: Literal[32, 64, 128, 256] = Field(default=64, description="side in pixels of the pictures it works on")
    width: int = Field(
        default=24, ge=8, multiple_of=8, description="channels at half the side; doubled at each halving after it"
    )
    blocks: int = Field(default=2, ge=1, le=12, description="blocks of attention that make a query an age's code")
    anchors: list[float] = Field(
        default_factory=lambda: list(ANCHORS), description="ages shown unless others are named"
    )
    among: Literal["anchors", "asked", "none"] = Field(
        default="anchors",
        description="what ages attend to beside the face: the anchors, always the same; each other, so that a render "
        "depends on what else is asked for; nothing",
    )
    text: int = Field(default=0, ge=0, description="length of a text token; 0: the network reads no text")
    warp: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="how far the picture's own pixels may move beside the change, in shares of its side; 0: not at all",
    )
    mirror: bool = Field(
        default=False,
        description="show the mean change of a face and its mirror image: both halves age alike, in twice the time",
    )
    strength: float = Field(
        default=1.0, gt=0, le=STRONGEST, description="how much of the change is shown, in training too"
    )
    colour: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="how much of the change's colour is shown: 0 changes brightness alone, so grey stays grey",
    )
    beyond: float = Field(
        default=1.0, ge=0, le=1, description="how much of the change is shown beyond an ellipse about the face"
    )

    @field_validator("anchors")
    @classmethod
    def _rising(cls, anchors: list[float]) -> list[float]:
        if len(anchors) < 2 or any(b <= a for a, b in pairwise(anchors)):
            raise ValueError("expected two or more rising ages, such as [5, 15, 25]")
        if anchors[0] < MIN_AGE or anchors[-1] > MAX_AGE:
            raise ValueError(f"expected ages within {MIN_AGE}-{MAX_AGE} years")
        return anchors


class Seen(NamedTuple):
    """What the encoder saw of B faces: the pictures at working size (B, 3, S, S) float32 in [0, 1], tokens (B, T, D),
    the decoder's maps from the largest to the smallest, and the age that the faces look, (B,) float32 years."""

    pictures: Tensor
    tokens: Tensor
    maps: list[Tensor]
    own_age: Tensor


class Rendered(NamedTuple):
    """Faces at ages: the inputs (B, 3, S, S) and pictures (B, A, 3, S, S) in [0, 1], what became of the inputs, where
    colours changed (B, A, 1, S, S) in [0, 1], and the age that the inputs look, (B,) years; all float32."""

    inputs: Tensor
    pictures: Tensor
    change: Change
    masks: Tensor
    own_age: Tensor


class AgeTransformer(RenderingNetwork):
    """Encoder, age queries and decoder. Nothing in it is random.

    With `among` "anchors" or "none" the picture at an age does not depend on the other ages asked for. With "anchors"
    it sees what the anchors' queries found, which always are computed: queries are a small part of the work.
    """

    settings: AgeTransformerSettings
    anchors: Tensor

    def __init__(self, settings: AgeTransformerSettings, crop: Crop) -> None:
        super().__init__(settings, settings.size, crop)
        channels = [settings.width * 2**place for place in range(_levels(settings.size))]
        narrow = [count // 2 for count in channels]
        deepest = channels[-1]
        side = settings.size // 2 // 2 ** (len(channels) - 1)

        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, channels[0], 3, padding=1))
        self.encoder = nn.ModuleList([nn.Sequential(Block(channels[0], channels[0]), Block(channels[0], channels[0]))])
        self.encoder += [nn.Sequential(Block(a, b, stride=2), Block(b, b)) for a, b in pairwise(channels)]
        self.bottom = nn.Sequential(Block(deepest, deepest), nn.GroupNorm(GROUPS, deepest))
        self.place = nn.Parameter(torch.randn(1, side**2, deepest) * 0.02)
        self.age_head = nn.Linear(deepest, 1)
        nn.init.zeros_(self.age_head.weight)
        nn.init.zeros_(self.age_head.bias)

        self.query = _perceptron(2 * FOURIER, deepest, deepest)
        # The source's age, whether it was told, and the logarithm of its label's uncertainty.
        self.source = _perceptron(FOURIER + 2, deepest, deepest)
        self.text = nn.Linear(settings.text, deepest) if settings.text else None
        self.blocks = nn.ModuleList([QueryBlock(deepest, settings.among != "none") for _ in range(settings.blocks)])
        self.code = nn.LayerNorm(deepest)
        self.register_buffer("anchors", torch.tensor(settings.anchors), persistent=False)

        self.skips = nn.ModuleList(
            [
                nn.Sequential(nn.GroupNorm(GROUPS, c), nn.SiLU(), nn.Conv2d(c, n, 1))
                for c, n in zip(channels, narrow, strict=True)
            ]
        )
        self.decoder = nn.ModuleList([Stage(b, a, deepest) for a, b in pairwise([*narrow, narrow[-1]])])
        last = nn.Conv2d(narrow[0], 16, 3, padding=1)
        self.paint = nn.Sequential(last, nn.PixelShuffle(2))
        with torch.no_grad():
            last.weight.mul_(0.1)
            nn.init.zeros_(last.get_parameter("bias"))
        self.move = nn.Conv2d(narrow[0], 2, 3, padding=1) if settings.warp else None
        if self.move is not None:  # at first nothing moves
            nn.init.zeros_(self.move.weight)
            nn.init.zeros_(self.move.get_parameter("bias"))
        self.to(memory_format=torch.channels_last)

    def encode(self, images: Tensor) -> Seen:
        """What there is in uint8 or float [0, 1] pictures (B, 3, H, W), whatever ages are asked for."""
        pictures = resized(as_float(images), self.input_size)
        x = self.stem((pictures * 2 - 1).contiguous(memory_format=torch.channels_last))
        maps = []
        for level in self.encoder:
            x = level(x)
            maps.append(x)
        maps[-1] = x = self.bottom(x)
        with torch.autocast(images.device.type, enabled=False):
            own_age = MIDDLE + UNIT * self.age_head(x.float().mean(dim=(2, 3))).squeeze(1)
        tokens = x.flatten(2).transpose(1, 2) + self.place
        maps = [skip(level) for skip, level in zip(self.skips, maps, strict=True)]
        return Seen(pictures, tokens, maps, own_age)

    def codes(
        self,
        seen: Seen,
        ages: Tensor,
        source_ages: Tensor | None = None,
        uncertainties: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Tensor:
        """The codes (B, A, D) of `ages` (B, A) years for faces that were `seen`.

        `source_ages` (B,) years, NaN where unknown: the age that the face looks stands in. `uncertainties` (B,) are
        standard deviations of the source's label in years, NaN where unknown. `text` (B, L, `settings.text`) are tokens
        of a caption, NaN where there is none. Each may be None: unknown for all.
        """
        estimate = seen.own_age.detach()
        told = torch.full_like(estimate, torch.nan) if source_ages is None else source_ages.float()
        known = ~told.isnan()
        source = torch.where(known, told, estimate)
        spread = torch.zeros_like(source) if uncertainties is None else uncertainties.float().nan_to_num().log1p()
        facts = torch.stack([known.float(), torch.where(known, spread, 0.0)], dim=1)
        context = [seen.tokens, self.source(torch.cat([fourier(source), facts], dim=1))[:, None]]
        mask = None
        if text is not None:
            if self.text is None:
                raise MienError(f"{self.name or 'this renderer'} reads no text; leave it out, or train one with `text`")
            there = ~text.isnan().any(dim=2)
            context.append(self.text(text.nan_to_num()))
            always = there.new_ones(there.shape[0], sum(part.shape[1] for part in context[:2]))
            mask = torch.cat([always, there], dim=1)[:, None, None]
        tokens = torch.cat([part.float() for part in context], dim=1)

        count = ages.shape[1]
        if self.settings.among == "anchors":
            # Not len(ages): what traces the network for ONNX takes it for a constant, and has to begin again.
            ages = torch.cat([ages, self.anchors.to(ages).expand(ages.shape[0], -1)], dim=1)
        x = self.query(torch.cat([fourier(ages), fourier(ages - source[:, None])], dim=2))
        for block in self.blocks:
            others = x[:, count:] if self.settings.among == "anchors" else x
            x = block(x, tokens, mask, others)
        result: Tensor = self.code(x[:, :count])
        return result

    def decode(self, seen: Seen, codes: Tensor) -> Rendered:
        """Faces that were `seen` at the ages of `codes` (B, A, D), in one pass, at working size."""
        faces, count = codes.shape[:2]
        flat = codes.flatten(0, 1)
        x: Tensor | None = None
        for stage, skip in zip(reversed(self.decoder), reversed(seen.maps), strict=True):
            x = stage(x, skip, flat, count)
        assert x is not None
        found = F.silu(x)
        painted = self.paint(found).float().unflatten(0, (faces, count))
        masks = painted[:, :, 3:].sigmoid()
        colours, flows = toned(masks * painted[:, :, :3].tanh(), self.settings.colour), None
        if self.move is not None:
            flows = self.settings.warp * self.move(found).float().tanh()
            flows = F.interpolate(flows, scale_factor=2.0, mode="bilinear").unflatten(0, (faces, count))
        shown = self.settings.strength * (self._fade(colours) if self.settings.beyond < 1 else 1.0)
        change = Change(shown * colours, None if flows is None else shown * flows)
        return Rendered(seen.pictures, cut(laid_over(seen.pictures, change)), change, masks, seen.own_age)

    def forward(
        self,
        images: Tensor,
        ages: Tensor,
        source_ages: Tensor | None = None,
        uncertainties: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Rendered:
        """`images` (B, 3, H, W) at `ages` (B, A) years; the rest as `codes` takes it."""
        seen = self.encode(images)
        return self.decode(seen, self.codes(seen, ages, source_ages, uncertainties, text))

    def shown(
        self,
        images: Tensor,
        ages: Tensor,
        source_ages: Tensor | None = None,
        uncertainties: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Change:
        """What is done to the pictures to show them at `ages`, at working size: the change that `forward` makes, with
        `mirror` the mean of a face's and its mirror image's."""
        change = self(images, ages, source_ages, uncertainties, text).change
        if not self.settings.mirror:
            return change
        other = self(images.flip(-1), ages, source_ages, uncertainties, text).change.flipped()
        moved = None if change.flows is None or other.flows is None else (change.flows + other.flows) / 2
        return Change((change.colours + other.colours) / 2, moved)

    def _fade(self, like: Tensor) -> Tensor:
        """How much of the change is shown where, (S, S): all of it on the face, `beyond` of it well beyond."""
        x, y, width, height = self.crop.ellipse
        places = (torch.arange(self.input_size, device=like.device) + 0.5) / self.input_size
        far = (((places - x) / width).square() + ((places[:, None] - y) / height).square()).sqrt()
        begins, ends = FADING
        fallen = 0.5 - 0.5 * torch.cos(math.pi * ((far - begins) / (ends - begins)).clamp(0, 1))
        return 1 - (1 - self.settings.beyond) * fallen

    def render(
        self,
        images: Tensor,
        ages: Tensor,
        source_ages: Tensor | None = None,
        uncertainties: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Tensor:
        """See `Renderer.render`. The change is made at the working size and laid over the pictures at their own."""
        check_ages(ages, len(images))
        change = self.shown(images, ages.float(), source_ages, uncertainties, text)
        return laid_over(as_float(images), change).clamp(0, 1)


def with_warp(network: AgeTransformer, warp: float) -> AgeTransformer:
    """A network that moved no pixels, now one that may learn to: until then it renders as before."""
    grown = AgeTransformer(network.settings.model_copy(update={"warp": warp}), network.crop)
    grown.load_state_dict(grown.state_dict() | network.state_dict())
    grown.name, grown.ages, grown.card, grown.learnt = network.name, network.ages, network.card, network.learnt
    return grown


class QueryBlock(nn.Module):
    """Queries attend to each other (or to the anchors), to the face, and think: pre-norm, residual."""

    def __init__(self, width: int, among: bool) -> None:
        super().__init__()
        self.among = Attention(width) if among else None
        self.face = Attention(width)
        self.norm = nn.LayerNorm(width)
        self.think = _perceptron(width, 2 * width, width)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None, others: Tensor) -> Tensor:
        """Queries (B, A, D); tokens (B, T, D) and which of them are there, (B, 1, 1, T); what ages attend to
        (B, E, D)."""
        if self.among is not None:
            x = x + self.among(x, others)
        x = x + self.face(x, tokens, mask)
        thought: Tensor = x + self.think(self.norm(x))
        return thought


class Attention(nn.Module):
    """Multi-head attention of queries to a context, both normalised first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_x, self.norm_context = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.tell = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, A, D) from queries (B, A, D) and a context (B, T, D)."""
        queries = self.ask(self.norm_x(x)).unflatten(2, (-1, HEAD)).transpose(1, 2)
        keys, values = (
            part.unflatten(2, (-1, HEAD)).transpose(1, 2) for part in self.tell(self.norm_context(context)).chunk(2, 2)
        )
        found = F.scaled_dot_product_attention(queries, keys, values, mask)
        result: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return result


def cut(pictures: Tensor) -> Tensor:
    """Pictures within [0, 1], whose gradient is as if nothing were cut off: a pixel that is too bright has to find
    back."""
    return pictures + (pictures.clamp(0, 1) - pictures).detach()


def fourier(ages: Tensor) -> Tensor:
    """Waves of ages (...) in years, (..., FOURIER) float32: sine and cosine of each frequency, and the age itself."""
    century = ages.float()[..., None] / 100
    rates = torch.logspace(math.log10(SLOWEST), math.log10(QUICKEST), WAVES, device=ages.device) * 2 * math.pi
    return torch.cat([(century * rates).sin(), (century * rates).cos(), century], dim=-1)


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


def _levels(size: int) -> int:
    """Scales from half the side to the smallest map: 8 px, and 16 px of the largest pictures.

    Whole pictures are four of half the side: blocks at the whole side would take more time than all others together.
    """
    return int(math.log2(size // 2 // max(8, size // 16))) + 1
