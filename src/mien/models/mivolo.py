"""MiVOLO: a VOLO that looks at a face and at the person's whole body (Kuprashevich & Tolstykh, arXiv 2307.04616 and
2403.02302). Layers are called as in the published weights, which load without the code that is published with them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import timm
import torch
from timm.layers.bottleneck_attn import PosEmbedRel
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from mien.errors import unknown

#: How VOLO reduces a picture's side: to patches, and once more half-way, where positions are added.
PATCH, HALF = 8, 2


class Crossed(nn.Module):
    """Two maps of features (B, C, S, S), each looked through by the other, made one (B, C, S, S).

    One head of attention with relative positions: the face asks the body and the body the face.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.qkv_f = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.qkv_p = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.pos_embed = PosEmbedRel((side, side), width, self.scale)
        self.norm = nn.LayerNorm([2 * width, side, side])
        self.mlp = Mlp(2 * width, 4 * width, width, use_conv=True)

    def forward(self, face: Tensor, body: Tensor) -> Tensor:
        asked_f, keys_f, values_f = self.qkv_f(face).flatten(2).transpose(1, 2).chunk(3, dim=2)
        asked_p, keys_p, values_p = self.qkv_p(body).flatten(2).transpose(1, 2).chunk(3, dim=2)
        found = torch.cat([self._look(asked_f, keys_p, values_p), self._look(asked_p, keys_f, values_f)], dim=2)
        mixed: Tensor = self.mlp(self.norm(found.transpose(1, 2).unflatten(2, face.shape[2:])))
        return mixed

    def _look(self, asked: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        shares = (asked @ keys.transpose(1, 2)) * self.scale + self.pos_embed(asked)
        return shares.softmax(dim=2) @ values


class TwoPictures(nn.Module):
    """The stem for six channels, a face's and a body's: each has its own convolutions, then they are crossed.

    Args:
        stem: timm's stem for one picture, whose layers both get.
        side: of the map that it gives.
    """

    def __init__(self, stem: Any, side: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = deepcopy(stem.conv), deepcopy(stem.conv)
        self.proj1, self.proj2 = deepcopy(stem.proj), deepcopy(stem.proj)
        self.map = Crossed(stem.proj.out_channels, side)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.map(self.proj1(self.conv1(x[:, :3])), self.proj2(self.conv2(x[:, 3:])))
        return mixed


def build_mivolo(name: str, size: int, outputs: int, bodies: bool) -> nn.Module:
    """A MiVOLO with random weights: pictures (B, 3 or 6, size, size) to (B, outputs).

    Args:
        name: as in the published configuration, `mivolo_d1_384`; what follows `mi` is the name of a VOLO of timm's.
        size: side of its pictures, px.
        outputs: 3 for two genders and the age, 1 for the age alone.
        bodies: whether it also looks at bodies.

    Raises:
        MienError: timm has no such VOLO.
    """
    volo = name.removeprefix("mi")
    if not volo.startswith("volo") or not timm.is_model(volo):
        raise unknown("architecture", name, [f"mi{one}" for one in timm.list_models("volo*")], "a MiVOLO")
    network: Any = timm.create_model(volo, num_classes=outputs, img_size=size)
    if bodies:
        network.patch_embed = TwoPictures(network.patch_embed, size // PATCH)
    made: nn.Module = network
    return made
