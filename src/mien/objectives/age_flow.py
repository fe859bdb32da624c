"""Training the age flow: from a noisy picture of a face, told the age, which way lies the noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.faces import FaceBatch
from mien.metrics.weighted import mean_of_known
from mien.models.age_flow import AgeFlow
from mien.models.checkpoint import save_renderer
from mien.models.renderer import as_float, resized
from mien.objectives.base import Objective, Terms, averaged
from mien.objectives.coding import AGE, ATTRIBUTES

if TYPE_CHECKING:
    from mien.data.loading import FaceLoader

#: Faces of the strips in TensorBoard, and the ages that they are shown at.
SHOWN, AGES = 6, (5.0, 20.0, 35.0, 50.0, 65.0, 80.0)
#: Times at which a round of training is judged, each face at one of them.
JUDGED = 8


class AgeFlowObjective(Objective):
    """One player, the flow; `velocity` is the mean squared error of its velocity at a random time of each face.

    Times are logistic of a standard normal number (Esser et al., 2024, https://arxiv.org/abs/2403.03206): those in the
    middle, where there is most to learn, come most often. An age that is an interval is drawn from it anew each time.
    """

    player = "flow"

    def __init__(self, flow: AgeFlow, select: FaceLoader, ages: np.ndarray) -> None:
        """`ages` are the training faces' (N, 2) years, NaN unknown."""
        self.flow, self.select = flow, select
        self.players: dict[str, nn.Module] = {self.player: flow}
        self.chooses = ("velocity/mse", True)
        middle = ages.mean(axis=1)
        flow.ages = (float(np.nanmin(middle)), float(np.nanmax(middle)))
        self._strips: list[np.ndarray] = []

    def weights(self, player: str) -> Mapping[str, float]:
        return {"velocity": 1.0}

    def counts(self, player: str, batch: FaceBatch) -> dict[str, int]:
        count = int(_known(batch).sum())
        return {"velocity": count} if count else {}

    def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
        known = _known(batch)
        if not bool(known.any()):
            return {}
        flow = self.flow.train()
        low, high = batch.labels[AGE][known].unbind(dim=1)
        ages = low + (high - low) * torch.rand_like(low)
        labels = batch.labels.get(ATTRIBUTES)
        if labels is not None:
            hidden = torch.rand(len(ages), device=ages.device) < flow.settings.withhold
            labels = labels[known].masked_fill(hidden[:, None], torch.nan)
        times = torch.randn_like(ages).sigmoid()
        error = _error(flow, batch.images[known], times, ages, labels)
        total = error.sum() if batch.weights is None else (error * batch.weights[known]).sum()
        return {"velocity": (total, known.sum())}

    def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """`velocity/mse` on `select`: the same noise and times for ever, all labels told."""
        flow = self.flow
        device = next(flow.parameters()).device
        errors: list[np.ndarray] = []
        self._strips = []
        with averaged(flow, averages.get(self.player)), torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(0)
            flow.eval()
            for batch in self.judged_batches():
                faces = batch.to(device)
                known = _known(faces)
                if not bool(known.any()):
                    continue
                ages, labels = faces.labels[AGE][known].mean(dim=1), faces.labels.get(ATTRIBUTES)
                labels = None if labels is None else labels[known]
                times = (torch.arange(len(ages), device=device) % JUDGED + 0.5) / JUDGED
                errors.append(_error(flow, faces.images[known], times, ages, labels).float().cpu().numpy())
                if not self._strips:
                    few = resized(as_float(faces.images[known][:SHOWN]), flow.input_size)
                    asked = torch.tensor(AGES, device=device).expand(len(few), -1)
                    made = flow.render(few, asked, ages[:SHOWN], None if labels is None else labels[:SHOWN])
                    self._strips = list(torch.cat([few[:, None], made], dim=1).float().cpu().numpy())
        return {"velocity/mse": float(mean_of_known(np.concatenate(errors)))}

    def figures(self) -> dict[str, Any]:
        """Faces of `select`: as they are, and at `AGES`."""
        if not self._strips:
            return {}
        from mien.report import figures

        captions = ["picture", *(f"{age:g}" for age in AGES)] * len(self._strips)
        flat = [picture for strip in self._strips for picture in strip]
        return {"select/ages": figures.contact_sheet(flat, captions, columns=1 + len(AGES), side=1.0)}

    def save_model(self, folder: Path, averages: Mapping[str, Mapping[str, Tensor]]) -> None:
        save_renderer(folder, self.flow, averages.get(self.player))


def _known(batch: FaceBatch) -> Tensor:
    """(B,) whether the age of a face is known."""
    return ~batch.labels[AGE].isnan().any(dim=1)


def _error(flow: AgeFlow, images: Tensor, times: Tensor, ages: Tensor, labels: Tensor | None) -> Tensor:
    """The squared error (B,) of the velocity, a mean over pixels and colours, at `times` (B,) on the way to noise."""
    pictures = resized(as_float(images), flow.input_size) * 2 - 1
    noise = torch.randn(pictures.shape).to(pictures)  # the processor's, so that every device is judged by the same
    share = times[:, None, None, None]
    velocity = flow((1 - share) * pictures + share * noise, times, ages, labels)
    return (velocity - (noise - pictures)).square().mean(dim=(1, 2, 3))
