"""What a beta-VAE and its simple rivals make of the faces of a manifest: codes, nats, pictures rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.data.sources.drawn import EXTRAS
from mien.errors import MienError, need
from mien.metrics import image
from mien.models.beta_vae import BetaVae
from mien.models.renderer import as_float
from mien.objectives.latent import conditional_rate, normal_rate

#: Labels that a code may hold; those that a manifest has are judged, with what is known of drawn faces.
WORDS, NUMBERS = ("gender", "race", "expression"), ("valence", "arousal")
DRAWN = tuple(name for name in EXTRAS if name != "scene")
#: A factor is judged from so many faces.
FEWEST = 30
#: Faces decoded at a time.
BATCH = 128
#: Figures of how well a picture is rebuilt.
RECONSTRUCTION: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mse": image.mse,
    "l1": image.l1,
    "psnr": image.psnr,
    "ssim": image.ssim,
}
#: Rows to pictures (n, 3, S, S) float32 in [0, 1].
Rebuild = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Coded:
    """Faces and their codes.

    `pictures` is (N, 3, S, S) uint8 as the network sees them, `codes` (N, D) float32 means, z_age first, `rates`
    (N,) nats of `z_id` and `z_age`; `manifest` has the same N rows.
    """

    manifest: Manifest
    pictures: np.ndarray
    codes: np.ndarray
    attributes: Tensor | None
    rates: dict[str, np.ndarray]
    age_dims: int

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def ages(self) -> np.ndarray:
        """(N,) float64 years, NaN where the age is unknown or an interval."""
        low, high = self.manifest.numbers("age_low"), self.manifest.numbers("age_high")
        return np.where(low == high, low, np.nan).astype(np.float64)

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


@dataclass(frozen=True)
class Coder:
    """A way to code faces that is judged: its name, what it is, codes (N, D) of the judged faces (None: it has none),
    how many of their first numbers are the age's, and how it rebuilds the pictures."""

    name: str
    about: str
    codes: np.ndarray | None
    age_dims: int
    rebuild: Rebuild


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
    pictures, codes, rates_id, rates_age, rows = [], [], [], [], []
    for batch in loader.epoch():
        age = ages[batch.index].to(device)
        told = None if attributes is None else attributes[batch.index].to(device)
        posterior = vae.encode(batch.images.to(device), age.mean(dim=1), told)
        known, middle = ~age.isnan().any(dim=1), age.mean(dim=1).nan_to_num()
        if not vae.settings.conditional:
            prior = torch.where(known[:, None], vae.age_code(middle), 0.0)
            spread = torch.where(known, vae.prior_std(age), 1.0)[:, None]
            rates_age.append(conditional_rate(*posterior.age, prior, spread).sum(dim=1).cpu().numpy())
        rates_id.append(normal_rate(*posterior.identity).sum(dim=1).cpu().numpy())
        pictures.append(batch.images.numpy())
        codes.append(posterior.mean.float().cpu().numpy())
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
        None if attributes is None else attributes[torch.from_numpy(order)],
        rates,
        vae.settings.age_dims,
    )


@torch.inference_mode()
def decoded(vae: BetaVae, faces: Coded, rows: np.ndarray, device: str | torch.device = "cpu") -> np.ndarray:
    """The pictures that `vae` makes of the codes of `rows`, (n, 3, S, S) float32 in [0, 1]."""
    parts = []
    for part in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
        z = torch.from_numpy(faces.codes[part]).to(device)
        parts.append(vae.decode(z, faces.told(part, device)).float().cpu().numpy())
    return np.concatenate(parts)


def coders(
    vae: BetaVae, learnt: Coded, judged: Coded, device: str | torch.device = "cpu", seed: int = 0
) -> list[Coder]:
    """The network and its rivals on the faces `judged`: PCA of the same size and a network that was never trained,
    both fitted to the faces `learnt`, and the mean picture.

    Raises:
        MienError: scikit-learn is not installed.
    """
    pca = _pca(learnt, judged, seed)
    torch.manual_seed(seed)
    blank = BetaVae(vae.settings, vae.crop).eval().to(device)
    fresh = [code_faces(blank, part.manifest, device) for part in (learnt, judged)]
    mean = _floats(learnt).mean(axis=0)
    size = judged.codes.shape[1]
    return [
        Coder(
            "beta-VAE",
            f"the network, {size} latents of which {judged.age_dims} of the age",
            judged.codes,
            judged.age_dims,
            lambda rows: decoded(vae, judged, rows, device),
        ),
        pca,
        Coder(
            "untrained",
            "the same encoder with random weights; pictures by ridge regression on its code",
            fresh[1].codes,
            0,
            _linear(fresh[0], fresh[1]),
        ),
        Coder("mean picture", "no code at all", None, 0, lambda rows: np.repeat(mean[None], len(rows), axis=0)),
    ]


def factors(manifest: Manifest) -> dict[str, np.ndarray]:
    """What is known of the faces, (N,) each: classes as int64, -1 unknown; numbers as float, NaN unknown. Only factors
    known of 30 faces and not the same for all of them."""
    low, high = manifest.numbers("age_low"), manifest.numbers("age_high")
    found: dict[str, np.ndarray] = {"age": np.where(low == high, low, np.nan).astype(np.float64)}
    found |= {name: manifest.codes(name) for name in WORDS}
    numbers = (*NUMBERS, *(name for name in DRAWN if _numeric(manifest, name)))
    found |= {name: manifest.numbers(name).astype(np.float64) for name in numbers}
    return {name: values for name, values in found.items() if _varies(values)}


def rebuilt_figures(coder: Coder, judged: Coded) -> dict[str, np.ndarray]:
    """How well each picture is rebuilt, (N,) for each of `RECONSTRUCTION`."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in RECONSTRUCTION}
    for rows in np.array_split(np.arange(len(judged)), -(-len(judged) // BATCH)):
        made, given = coder.rebuild(rows), judged.pictures[rows].astype(np.float32) / 255
        for name, figure in RECONSTRUCTION.items():
            parts[name].append(figure(given, made))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _pca(learnt: Coded, judged: Coded, seed: int) -> Coder:
    decomposition = need("sklearn.decomposition", "represent")
    size = min(judged.codes.shape[1], len(learnt) - 1)
    pca = decomposition.PCA(size, svd_solver="randomized", random_state=seed).fit(_flat(learnt))
    codes = pca.transform(_flat(judged)).astype(np.float32)
    shape = judged.pictures.shape[1:]

    def rebuild(rows: np.ndarray) -> np.ndarray:
        made: np.ndarray = pca.inverse_transform(codes[rows]).reshape(-1, *shape).clip(0, 1).astype(np.float32)
        return made

    return Coder("PCA", f"{size} principal components of the pixels", codes, 0, rebuild)


def _linear(learnt: Coded, judged: Coded) -> Rebuild:
    """Pictures by ridge regression on standardised codes, learnt from `learnt`."""
    centre, spread = learnt.codes.mean(axis=0), learnt.codes.std(axis=0)
    scale = np.where(spread > 1e-9, spread, np.inf)
    x, pixels = (learnt.codes - centre) / scale, _flat(learnt)
    mean = pixels.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1], dtype=x.dtype), x.T @ (pixels - mean))
    shown, shape = (judged.codes - centre) / scale, judged.pictures.shape[1:]

    def rebuild(rows: np.ndarray) -> np.ndarray:
        made: np.ndarray = (shown[rows] @ weights + mean).reshape(-1, *shape).clip(0, 1).astype(np.float32)
        return made

    return rebuild


def _floats(faces: Coded) -> np.ndarray:
    return faces.pictures.astype(np.float32) / 255


def _flat(faces: Coded) -> np.ndarray:
    return _floats(faces).reshape(len(faces), -1)


def _numeric(manifest: Manifest, name: str) -> bool:
    import pyarrow.types as kinds

    if name not in manifest.table.column_names:
        return False
    kind = manifest.table[name].type
    return bool(kinds.is_floating(kind) or kinds.is_integer(kind))


def _varies(values: np.ndarray) -> bool:
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values[values >= 0]
    return len(known) >= FEWEST and len(np.unique(known)) > 1
