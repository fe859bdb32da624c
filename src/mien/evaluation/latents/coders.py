"""Ways to code faces that stand in one table: the network, other trained ones, what is simple, what never learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mien.data.align import require_view
from mien.errors import MienError, need
from mien.evaluation.latents.codes import BATCH, Coded, ages_said, code_faces, decoded
from mien.metrics import image
from mien.models.autoencoder import Autoencoder
from mien.models.beta_vae import BetaVae

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
class Coder:
    """A way to code faces that is judged: its name, what it is, codes (N, D) of the judged faces (None: it has none),
    how many of their first numbers are the age's, and how it rebuilds the pictures.

    Where it has them: `rate` (N,) in nats, `said` (N,) the ages that it reads in its code, `parameters` their number.
    """

    name: str
    about: str
    codes: np.ndarray | None
    age_dims: int
    rebuild: Rebuild
    rate: np.ndarray | None = None
    said: np.ndarray | None = None
    parameters: int | None = None


def coders(
    vae: BetaVae,
    learnt: Coded,
    judged: Coded,
    device: str | torch.device = "cpu",
    seed: int = 0,
    rivals: Mapping[str, BetaVae | Autoencoder] | None = None,
) -> list[Coder]:
    """The network and its rivals on the faces `judged`: other trained networks by name, PCA of the same size and a
    network that was never trained, both fitted to the faces `learnt`, and the mean picture.

    Raises:
        MienError: scikit-learn is not installed; a rival takes another crop or size, or the name of another.
    """
    pca = _pca(learnt, judged, seed)
    torch.manual_seed(seed)
    blank = BetaVae(vae.settings, vae.crop).eval().to(device)
    fresh = [code_faces(blank, part.manifest, device) for part in (learnt, judged)]
    mean = _floats(learnt).mean(axis=0)
    others = [_rival(name, rival, judged, device) for name, rival in (rivals or {}).items()]
    found = [
        coder_of("beta-VAE", vae, judged, device),
        *others,
        pca,
        Coder(
            "untrained",
            "the same encoder with random weights; pictures by ridge regression on its code",
            fresh[1].codes,
            # Told the age, it has it in numbers of their own, though it learnt nothing.
            fresh[1].age_dims if vae.settings.conditional else 0,
            _linear(fresh[0], fresh[1]),
        ),
        Coder("mean picture", "no code at all", None, 0, lambda rows: np.repeat(mean[None], len(rows), axis=0)),
    ]
    names = [way.name for way in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MienError(f"two rows of the table are called {twice!r}; rename one of the runs or folders")
    return found


def coder_of(name: str, vae: BetaVae, judged: Coded, device: str | torch.device = "cpu") -> Coder:
    """A trained network as a coder of the faces `judged`, which are coded by it."""
    size, told = judged.codes.shape[1], vae.settings.conditional
    about = (
        f"seed 002's network, {size - judged.age_dims} latents, encoder and decoder told the age"
        if told
        else f"the network, {size} latents of which {judged.age_dims} of the age"
    )
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    said = None if told else ages_said(vae, judged)

    def rebuild(rows: np.ndarray) -> np.ndarray:
        return decoded(vae, judged, rows, device)

    return Coder(name, about, judged.codes, judged.age_dims, rebuild, judged.rate, said, parameters)


def rebuilt_figures(coder: Coder, judged: Coded) -> dict[str, np.ndarray]:
    """How well each picture is rebuilt, (N,) for each of `RECONSTRUCTION`."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in RECONSTRUCTION}
    for rows in np.array_split(np.arange(len(judged)), -(-len(judged) // BATCH)):
        made, given = coder.rebuild(rows), judged.pictures[rows].astype(np.float32) / 255
        for name, figure in RECONSTRUCTION.items():
            parts[name].append(figure(given, made))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _rival(name: str, rival: BetaVae | Autoencoder, judged: Coded, device: str | torch.device) -> Coder:
    if isinstance(rival, Autoencoder):
        return _pretrained(name, rival, judged, device)
    require_view(judged.manifest.crop, rival.crop, f"for {name}: the manifest")
    side = judged.pictures.shape[-1]
    if rival.input_size != side:
        raise MienError(
            f"{name} works on pictures of {rival.input_size} px, the first network on {side}: their errors do not "
            "compare; judge it by itself"
        )
    coded = code_faces(rival, judged.manifest, device)
    return coder_of(name, rival, coded, device)


@torch.inference_mode()
def _pretrained(name: str, network: Autoencoder, judged: Coded, device: str | torch.device) -> Coder:
    side = judged.pictures.shape[-1]
    batches = np.array_split(np.arange(len(judged)), -(-len(judged) // BATCH))
    found = [network.encode(judged.images(rows, device)) for rows in batches]
    codes = np.concatenate([code.cpu().numpy() for code, _ in found])
    rates = [rate.cpu().numpy() for _, rate in found if rate is not None]

    @torch.inference_mode()
    def rebuild(rows: np.ndarray) -> np.ndarray:
        parts = np.array_split(rows, max(1, -(-len(rows) // BATCH)))
        made = [network.decode(torch.from_numpy(codes[part]).to(device), side).cpu().numpy() for part in parts]
        return np.concatenate(made)

    parameters = sum(parameter.numel() for parameter in network.parameters())
    about = f"{network.kind} of diffusers, pretrained on other pictures, {codes.shape[1]} latents"
    return Coder(name, about, codes, 0, rebuild, np.concatenate(rates) if rates else None, None, parameters)


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
