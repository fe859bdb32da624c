"""Autoencoders that others trained, through diffusers: ceilings of reconstruction, from a folder on this machine.

Stable Diffusion's `AutoencoderKL` (Rombach et al., 2022) and its distillate `AutoencoderTiny`. Neither knows of ages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mien.errors import MienError, need, unknown
from mien.models.renderer import as_float

#: Classes of diffusers that can be loaded; `AutoencoderKL` has a posterior, hence a rate.
KINDS = ("AutoencoderKL", "AutoencoderTiny")
CONFIG = "config.json"


class Autoencoder(nn.Module):
    """Pictures to flat codes and back. `kind` is its class in diffusers; frozen."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind
        self.eval().requires_grad_(False)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes (B, D) float32 of uint8 or float [0, 1] pictures (B, 3, S, S), and their rates (B,) in nats against
        N(0, 1), None where there is no posterior. The code is the posterior's mode.

        Raises:
            MienError: the side is not one that it can halve to its latents.
        """
        network: Any = self.network
        shrinks = self._shrinks()
        if images.shape[-1] % shrinks:
            raise MienError(f"{self.kind}: pictures of {images.shape[-1]} px; it wants a multiple of {shrinks}")
        given = as_float(images) * 2 - 1
        if self.kind == "AutoencoderTiny":
            return network.encode(given).latents.float().flatten(1), None
        posterior = network.encode(given).latent_dist
        return posterior.mode().float().flatten(1), posterior.kl().float()

    def decode(self, codes: Tensor, side: int) -> Tensor:
        """Pictures (B, 3, side, side) float32 in [0, 1] of codes (B, D)."""
        network: Any = self.network
        small = side // self._shrinks()
        made: Tensor = network.decode(codes.unflatten(1, (-1, small, small))).sample
        return (made.float() / 2 + 0.5).clamp(0, 1)

    def _shrinks(self) -> int:
        """By how much a latent's side is smaller."""
        network: Any = self.network
        blocks = network.config[
            "encoder_block_out_channels" if self.kind == "AutoencoderTiny" else "block_out_channels"
        ]
        return int(2 ** (len(blocks) - 1))


def load_autoencoder(folder: str | Path, device: str | torch.device = "cpu") -> Autoencoder:
    """The autoencoder in a folder as diffusers saves it: `config.json` and `diffusion_pytorch_model.safetensors`.

    Nothing is downloaded, no pickle is read.

    Raises:
        MienError: no such folder, no weights in it, another class, or diffusers is not installed.
    """
    folder = Path(folder)
    where = f"{folder}: no weights of an autoencoder there"
    if not (folder / CONFIG).is_file():
        raise MienError(
            f"{where}; give a folder with {CONFIG} and its safetensors, as diffusers' save_pretrained makes"
        )
    try:
        kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("_class_name")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise MienError(f"{folder / CONFIG}: not a configuration of diffusers: {error}") from None
    if kind not in KINDS:
        raise unknown("autoencoder", kind, KINDS, str(folder / CONFIG))
    diffusers = need("diffusers", "represent")
    try:
        network = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise MienError(f"{where}: {str(error).splitlines()[0]}") from None
    return Autoencoder(network, kind).to(device)
