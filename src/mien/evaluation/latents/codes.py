"""What a beta-VAE makes of the faces of a manifest: codes, nats, pictures; and what is known of these faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.data.sources.drawn import EXTRAS
from mien.errors import MienError
from mien.faces import CONTINUOUS
from mien.models.beta_vae import BetaVae
from mien.models.renderer import as_float
from mien.objectives.latent import age_rate, normal_rate

#: Labels that a code may hold; those that a manifest has are judged, with what is known of drawn faces.
WORDS = ("gender", "race", "expression")
DRAWN = tuple(name for name in EXTRAS if name != "scene")
#: A factor is judged from so many faces.
FEWEST = 30
#: Faces decoded at a time.
BATCH = 128


@dataclass(frozen=True)
class Coded:
    """Faces and their codes.

    `pictures` is (N, 3, S, S) uint8 as the network sees them, `codes` (N, D) float32 means, z_age first, `spreads`
    their standard deviations, `rates` (N,) nats of `z_id` and `z_age`; `manifest` has the same N rows.
    """

    manifest: Manifest
    pictures: np.ndarray
    codes: np.ndarray
    spreads: np.ndarray
    attributes: Tensor | None
    rates: dict[str, np.ndarray]
    age_dims: int

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def ages(self) -> np.ndarray:
        """(N,) float64 years, NaN where the age is unknown or an interval."""
        return exact_ages(self.manifest)

    @property
    def rate(self) -> np.ndarray:
        """(N,) nats of the whole code, the age being known."""
        total: np.ndarray = sum(self.rates.values(), np.zeros(len(self)))
        return total

    @property
    def identity(self) -> np.ndarray:
        """(N, id_dims) the part of the codes that should not know the age."""
        return self.codes[:, self.age_dims :]

    def told(self, rows: np.ndarray, device: torch.device | str) -> Tensor | None:
        """What the decoder is told of these faces."""
        return None if self.attributes is None else self.attributes[torch.from_numpy(rows)].to(device)

    def images(self, rows: np.ndarray, device: torch.device | str) -> Tensor:
        """Their pictures, (n, 3, S, S) float32 in [0, 1]."""
        return as_float(torch.from_numpy(self.pictures[rows]).to(device))


def at_most(manifest: Manifest, limit: int) -> Manifest:
    """`limit` of the faces, always the same ones, in their order; all where there are no more."""
    if len(manifest) <= limit:
        return manifest
    return manifest.take(np.sort(np.random.default_rng(0).permutation(len(manifest))[:limit]))


@torch.inference_mode()
def code_faces(vae: BetaVae, manifest: Manifest, device: str | torch.device = "cpu") -> Coded:
    """Encode the faces of `manifest`; those that cannot be read are left out.

    Raises:
        MienError: none can be read.
    """
    columns = manifest.columns(["age_low", "age_high", *vae.settings.attributes])
    attributes = vae.codes_of(columns)
    ages = torch.from_numpy(np.stack([columns["age_low"], columns["age_high"]], axis=1))
    loader = FaceLoader(manifest, {}, vae.input_size, BATCH)
    pictures, codes, spreads, rates_id, rates_age, rows = [], [], [], [], [], []
    for batch in loader.epoch():
        age = ages[batch.index].to(device)
        told = None if attributes is None else attributes[batch.index].to(device)
        posterior = vae.encode(batch.images.to(device), age.mean(dim=1), told)
        if not vae.settings.conditional:
            rates_age.append(age_rate(vae, posterior, age).cpu().numpy())
        rates_id.append(normal_rate(*posterior.identity).sum(dim=1).cpu().numpy())
        pictures.append(batch.images.numpy())
        codes.append(posterior.mean.float().cpu().numpy())
        spreads.append((0.5 * posterior.log_variance.float()).exp().cpu().numpy())
        rows.append(batch.index.numpy())
    if not rows:
        raise MienError(f"{manifest.path or 'the manifest'}: not one of {len(manifest):,} pictures can be read")
    order = np.concatenate(rows)
    rates = {"z_id": np.concatenate(rates_id)}
    if rates_age:
        rates["z_age"] = np.concatenate(rates_age)
    return Coded(
        manifest.take(order),
        np.concatenate(pictures),
        np.concatenate(codes),
        np.concatenate(spreads),
        None if attributes is None else attributes[torch.from_numpy(order)],
        rates,
        vae.settings.age_dims,
    )


@torch.inference_mode()
def decoded(
    vae: BetaVae,
    faces: Coded,
    rows: np.ndarray,
    device: str | torch.device = "cpu",
    noise: np.random.Generator | None = None,
) -> np.ndarray:
    """The pictures that `vae` makes of the codes of `rows`, (n, 3, S, S) float32 in [0, 1]: of their means, or with
    `noise` of codes drawn about them, which is what their rate pays for."""
    parts = []
    for part in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
        codes = faces.codes[part]
        if noise is not None:
            codes = codes + faces.spreads[part] * noise.standard_normal(codes.shape, dtype=np.float32)
        z = torch.from_numpy(codes).to(device)
        parts.append(vae.decode(z, faces.told(part, device)).float().cpu().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def ages_said(vae: BetaVae, faces: Coded) -> np.ndarray:
    """The ages that the head reads in the means of z_age, (N,) years."""
    told = torch.from_numpy(faces.codes[:, : faces.age_dims]).to(vae.age_head.weight.device)
    said: np.ndarray = vae.age_of(told).cpu().numpy()
    return said


def exact_ages(manifest: Manifest) -> np.ndarray:
    """(N,) float64 years, NaN where the age is unknown or an interval."""
    low, high = manifest.numbers("age_low"), manifest.numbers("age_high")
    return np.where(low == high, low, np.nan).astype(np.float64)


def factors(manifest: Manifest) -> dict[str, np.ndarray]:
    """What is known of the faces, (N,) each: classes as int64, -1 unknown; numbers as float, NaN unknown. Only factors
    known of 30 faces and not the same for all of them."""
    found: dict[str, np.ndarray] = {"age": exact_ages(manifest)}
    found |= {name: manifest.codes(name) for name in WORDS}
    numbers = (*CONTINUOUS, *(name for name in DRAWN if manifest.numeric(name)))
    found |= {name: manifest.numbers(name).astype(np.float64) for name in numbers}
    return {name: values for name, values in found.items() if _varies(values)}


def _varies(values: np.ndarray) -> bool:
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values[values >= 0]
    return len(known) >= FEWEST and len(np.unique(known)) > 1
