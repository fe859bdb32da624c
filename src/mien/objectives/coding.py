"""What a beta-VAE does with faces that it does not learn from, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mien.faces import FaceBatch
from mien.metrics.coding import active, linear_probe
from mien.metrics.weighted import mean_of_known
from mien.models.beta_vae import BetaVae
from mien.models.renderer import as_float, resized
from mien.objectives.latent import age_rate, normal_rate

#: Keys of a batch's labels: (B, 2) float32 years, NaN unknown; (B, K) int64, -1 unknown.
AGE, ATTRIBUTES = "age", "attributes"
#: Faces of known age that figures of the age need.
JUDGED = 4


class Tally:
    """Figures of a beta-VAE over the batches it has `see`n.

    `strips` are the first `shown` faces, each float32 (2 + ages, 3, size, size): as it is, decoded, and at each age.
    """

    def __init__(self, vae: BetaVae, shown: int = 0, ages: Sequence[float] = ()) -> None:
        self.vae, self.shown, self.ages = vae, shown, ages
        self.strips: list[np.ndarray] = []
        self.columns: dict[str, list[np.ndarray]] = {}
        self._sum: np.ndarray | float = 0.0
        self._squares = 0.0

    def see(self, batch: FaceBatch, device: torch.device) -> None:
        """Take a batch into account; its labels are there under `AGE` and, where told, `ATTRIBUTES`."""
        vae, faces = self.vae, batch.to(device)
        age, attributes = faces.labels[AGE], faces.labels.get(ATTRIBUTES)
        posterior = vae.encode(faces.images, age.mean(dim=1), attributes)
        pictures = resized(as_float(faces.images), vae.input_size)
        decoded, sampled = vae.decode(posterior.mean, attributes), vae.decode(posterior.sample(), attributes)
        columns = {
            "mse": (decoded - pictures).square().mean(dim=(1, 2, 3)),
            "l1": (decoded - pictures).abs().mean(dim=(1, 2, 3)),
            "mse_sampled": (sampled - pictures).square().mean(dim=(1, 2, 3)),
            "rate_id": normal_rate(*posterior.identity).sum(dim=1),
            "id": posterior.identity[0],
            "z_age": posterior.age[0],
            "age": torch.where(age[:, 0] == age[:, 1], age[:, 0], torch.nan),
            "row": faces.index,
        }
        if not vae.settings.conditional:
            columns["said"] = vae.age_of(posterior.age[0])
            columns["rate_age"] = age_rate(vae, posterior, age)
        for name, values in columns.items():
            kept = values if name == "row" else values.float()
            self.columns.setdefault(name, []).append(kept.cpu().numpy())
        exact = pictures.cpu().double()
        self._sum = self._sum + exact.sum(dim=0).numpy()
        self._squares += float(exact.square().sum())
        if len(self.strips) < self.shown:
            self._show(faces.images[: self.shown - len(self.strips)], pictures, decoded, attributes)

    def _show(self, images: Tensor, pictures: Tensor, decoded: Tensor, attributes: Tensor | None) -> None:
        count = len(images)
        ages = torch.tensor(self.ages, dtype=torch.float32, device=images.device).expand(count, -1)
        aged = self.vae.render(pictures[:count], ages, None, None if attributes is None else attributes[:count])
        strips = torch.cat([pictures[:count, None], decoded[:count, None], aged], dim=1)
        self.strips += list(strips.float().cpu().numpy())

    def column(self, name: str) -> np.ndarray:
        """What was gathered under a name, (N, ...)."""
        return np.concatenate(self.columns[name])

    def figures(self, groups: np.ndarray | None = None) -> dict[str, float]:
        """Means over the faces seen; see `BetaVaeObjective.validate`. The probe keeps `groups` together, those of all
        faces of the manifest that the batches count in."""
        mse, codes, age = self.column("mse"), self.column("id"), self.column("age")
        mean = np.asarray(self._sum) / len(mse)
        variance = self._squares / len(mse) / mean.size - float(np.square(mean).mean())
        figures = {
            "reconstruction/mse": float(mse.mean()),
            "reconstruction/l1": float(self.column("l1").mean()),
            "reconstruction/psnr": float(-10 * np.log10(np.maximum(mse, 1e-10)).mean()),
            "reconstruction/mse_sampled": float(self.column("mse_sampled").mean()),
            "rate/id": float(self.column("rate_id").mean()),
            "code/active": float(active(codes).sum()),
            "code/explained": 1 - float(mse.mean()) / variance if variance > 0 else float("nan"),
        }
        if "rate_age" in self.columns:
            figures["rate/age"] = float(self.column("rate_age").mean())
        known = ~np.isnan(age)
        if known.sum() >= JUDGED:
            age, codes = age[known].astype(np.float64), codes[known]
            if "said" in self.columns:  # a conditional network would only say what it was told
                figures["age/mae"] = float(np.abs(self.column("said")[known] - age).mean())
            read = linear_probe(codes, age, None if groups is None else groups[self.column("row")[known]])
            figures["probe/mae"] = float(mean_of_known(np.abs(read - age)))
            figures["probe/constant"] = float(np.abs(age - np.median(age)).mean())
            figures["probe/ratio"] = figures["probe/mae"] / max(figures["probe/constant"], 1e-9)
        return figures
