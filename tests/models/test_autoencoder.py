"""Pretrained autoencoders of diffusers: codes, rates and pictures, from a folder alone; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mien.errors import MienError
from mien.models.autoencoder import load_autoencoder

diffusers = pytest.importorskip("diffusers", reason="pip install '.[represent]'")


def tiny(kind: str, folder: Path) -> Any:
    """A small network of random weights, saved as diffusers does."""
    torch.manual_seed(0)
    width = {"block_out_channels": (8, 8)} if kind == "AutoencoderKL" else {}
    more: dict[str, Any] = {
        "AutoencoderKL": {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 4,
            "latent_channels": 4,
        },
        "AutoencoderTiny": {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
    }[kind]
    network = getattr(diffusers, kind)(**width, **more).eval()
    network.save_pretrained(folder)
    return network


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_codes_and_pictures_are_those_of_diffusers(kind: str, tmp_path: Path) -> None:
    network = tiny(kind, tmp_path)
    found = load_autoencoder(tmp_path)
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    codes, rates = found.encode(pictures)
    with torch.no_grad():
        given = pictures / 255 * 2 - 1
        encoded = network.encode(given)
        raw = encoded.latents if kind == "AutoencoderTiny" else encoded.latent_dist.mean
        shown = (network.decode(raw).sample + 1) / 2
    assert codes.shape == (3, 4 * 16 * 16)
    torch.testing.assert_close(codes, raw.flatten(1))
    torch.testing.assert_close(found.decode(codes, 32), shown.clamp(0, 1))
    if kind == "AutoencoderTiny":
        assert rates is None
    else:
        assert rates is not None
        mean, spread = encoded.latent_dist.mean, encoded.latent_dist.std
        normal = torch.distributions.Normal(0.0, 1.0)
        own = torch.distributions.Normal(mean, spread)
        torch.testing.assert_close(rates, torch.distributions.kl_divergence(own, normal).sum(dim=(1, 2, 3)))
    with pytest.raises(MienError, match=r"pictures of 33 px; it wants a multiple of 2"):
        found.encode(torch.zeros(1, 3, 33, 33))


def test_what_is_not_an_autoencoder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"none: no weights of an autoencoder there; give a folder with config\.json"):
        load_autoencoder(tmp_path / "none")
    tiny("AutoencoderTiny", tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    weights.unlink()
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")  # a pickle is not read
    with pytest.raises(MienError, match="no weights of an autoencoder there"):
        load_autoencoder(tmp_path)
    save_file({name: value[:1] for name, value in state.items()}, weights)
    with pytest.raises(MienError, match="no weights of an autoencoder there"):
        load_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(MienError, match="unknown autoencoder 'UNet2DModel'"):
        load_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(MienError, match="not a configuration of diffusers"):
        load_autoencoder(tmp_path)
