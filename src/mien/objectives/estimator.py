"""Training an estimator: the weighted losses of its tasks, optionally with group DRO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mien.errors import MienError, unknown
from mien.faces import FaceBatch
from mien.metrics.age import cumulative_scores
from mien.metrics.agreement import confusion
from mien.models.checkpoint import save_estimator
from mien.models.estimator import Estimator
from mien.objectives.base import Objective, Reduce, Terms, averaged, normalising
from mien.objectives.hardening import hardened
from mien.tasks.categorical import CategoricalTask

if TYPE_CHECKING:
    from mien.data.loading import FaceLoader

#: Key in a batch's labels of the group that group DRO weighs, (B,) int64 with -1 for unknown.
GROUP = "dro_group"


class EstimatorSettings(BaseModel):
    """How an estimator is trained beyond the losses of its tasks."""

    model_config = ConfigDict(extra="forbid")

    group_dro: list[str] = Field(
        default_factory=list,
        description="manifest columns whose groups share the worst loss, such as [race, gender]",
    )
    group_dro_rate: float = Field(default=0.01, gt=0, description="how fast the groups' weights move")
    harden: float = Field(
        default=0.0,
        ge=0,
        le=64,
        description="adversarial training: faces are changed by so many levels of 255 (root mean square), in the "
        "direction of a larger loss; 0: none",
    )
    harden_steps: int = Field(default=1, ge=1, description="steps of the search for that change; each costs a pass")
    choose: str | None = Field(
        default=None,
        description="figure on `select` that picks the best epoch; age/mae (age/inside of age bins), "
        "expression/accuracy, or the first task's",
    )


class EstimatorObjective(Objective):
    """One player, the estimator; its terms are `task/term`.

    Group DRO (Sagawa et al., 2020, https://arxiv.org/abs/1911.08731): each group's weight q_g grows with its loss,
    q_g <- q_g exp(rate x loss_g), normalised; a face of group g counts q_g / p_g, p_g being the group's share of the
    faces that training shows. Faces of unknown group count 1. The loss that moves q is the age's, else the
    expression's, else the first task's.
    """

    player = "estimator"

    def __init__(
        self,
        estimator: Estimator,
        select: FaceLoader,
        settings: EstimatorSettings,
        freeze_backbone: bool | int = False,
        group_shares: np.ndarray | None = None,
    ) -> None:
        self.estimator = estimator
        self.players: dict[str, nn.Module] = {self.player: estimator}
        self.settings = settings
        self.select: FaceLoader = select
        self.freeze_backbone = freeze_backbone
        self._judged: dict[str, tuple[dict[str, np.ndarray], Tensor]] = {}
        names = list(estimator.tasks)
        if not self.weights(self.player):
            raise MienError(
                f"the losses of {' and '.join(names)} have weight 0, so that nothing would be learnt; give one a "
                f"weight above 0, such as tasks.{names[0]}.weight=1"
            )
        self.leading = next((name for name in ("age", "expression") if name in names), names[0])
        #: What is to be said of the figure that chooses, where it is not the one that was to be expected.
        self.instead = ""
        self.chooses = self._choosing()
        self._shares = None if group_shares is None else torch.as_tensor(group_shares, dtype=torch.float32)
        groups = 0 if self._shares is None else len(self._shares)
        self._q = torch.full((groups,), 1 / max(groups, 1))
        self._seen = torch.zeros(2, groups)

    def start_epoch(self, epoch: int) -> None:
        frozen = self.freeze_backbone is True or epoch < int(self.freeze_backbone)
        self.estimator.backbone.requires_grad_(not frozen)
        self._frozen = frozen

    def depths(self, player: str) -> list[list[str]]:
        backbone = [[f"backbone.{name}" for name in names] for names in self.estimator.backbone.depths()]
        heads = [name for name, _ in self.estimator.named_parameters() if not name.startswith("backbone.")]
        return [*backbone, heads]

    def weights(self, player: str) -> Mapping[str, float]:
        return {
            f"{name}/{term}": weight
            for name in self.estimator.tasks
            for term, weight in self.estimator.task(name).loss_weights().items()
        }

    def counts(self, player: str, batch: FaceBatch) -> dict[str, int]:
        return {
            f"{name}/{term}": count
            for name in self.estimator.tasks
            for term, count in self.estimator.task(name).count(batch.labels[name]).items()
        }

    def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
        images = self._harder(batch) if self.settings.harden else batch.images
        self.estimator.train()
        if self._frozen:
            # Frozen means the statistics of its normalisation too.
            self.estimator.backbone.eval()
        with normalising(len(batch)):
            outputs = self.estimator(images, batch.landmarks)
        weights = self._face_weights(batch)
        terms: Terms = {}
        for name in self.estimator.tasks:
            found = self.estimator.task(name).losses(outputs[name], batch.labels[name], weights)
            terms.update({f"{name}/{term}": pair for term, pair in found.items()})
        if self._shares is not None:
            self._see_groups(outputs[self.leading], batch)
        return terms

    def _harder(self, batch: FaceBatch) -> Tensor:
        """The batch's pictures, changed so that the estimator as it answers now errs on them more."""
        estimator, scale = self.estimator.eval(), self.weights(self.player)

        def loss(images: Tensor) -> Tensor:
            outputs = estimator(images, batch.landmarks)
            parts = [
                scale[f"{name}/{term}"] * total
                for name in estimator.tasks
                for term, (total, _) in estimator.task(name).losses(outputs[name], batch.labels[name]).items()
            ]
            return torch.stack([part.float() for part in parts]).sum() if parts else images.sum() * 0

        return hardened(loss, batch.images, self.settings.harden, self.settings.harden_steps)

    def _face_weights(self, batch: FaceBatch) -> Tensor | None:
        if self._shares is None:
            return batch.weights
        group = batch.labels[GROUP]
        scale = (self._q / self._shares.clamp_min(1e-6)).to(group.device)
        weights = torch.where(group >= 0, scale[group.clamp_min(0)], torch.ones((), device=group.device))
        return weights if batch.weights is None else weights * batch.weights

    @torch.no_grad()
    def _see_groups(self, outputs: dict[str, Tensor], batch: FaceBatch) -> None:
        task = self.estimator.task(self.leading)
        for group in range(self._seen.shape[1]):
            faces = batch.labels[GROUP] == group
            if not bool(faces.any()):
                continue
            found = task.losses(
                {key: value[faces] for key, value in outputs.items()}, batch.labels[self.leading][faces]
            )
            for term, weight in task.loss_weights().items():
                if term in found:
                    self._seen[0, group] += weight * found[term][0].float().cpu()
            # As each term counts them: faces without this label would make the group's loss small.
            self._seen[1, group] += int(task.labelled(batch.labels[self.leading][faces]).sum())

    def after_step(self, reduce: Reduce) -> None:
        if self._shares is None:
            return
        seen = reduce(self._seen)
        loss = torch.where(seen[1] > 0, seen[0] / seen[1].clamp_min(1), torch.zeros(()))
        self._q = self._q * torch.exp(self.settings.group_dro_rate * loss)
        self._q /= self._q.sum()
        self._seen = torch.zeros_like(self._seen)

    def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        estimator = self.estimator
        with averaged(estimator, averages.get(self.player)), torch.inference_mode():
            estimator.eval()
            kept: dict[str, dict[str, list[Tensor]]] = {name: {} for name in estimator.tasks}
            labels: dict[str, list[Tensor]] = {name: [] for name in estimator.tasks}
            device = next(estimator.parameters()).device
            for batch in self.judged_batches():
                seen = batch.to(device)
                outputs = estimator(seen.images, seen.landmarks)
                for name in estimator.tasks:
                    labels[name].append(batch.labels[name])
                    for key, value in outputs[name].items():
                        kept[name].setdefault(key, []).append(value.float().cpu())
        figures: dict[str, float] = {}
        self._judged = {}
        for name in estimator.tasks:
            task = estimator.task(name)
            columns = task.decode({key: torch.cat(value) for key, value in kept[name].items()}, {})
            encoded = torch.cat(labels[name])
            self._judged[name] = (columns, encoded)
            figures.update({f"{name}/{metric}": value for metric, value in task.metrics(columns, encoded).items()})
        return figures

    def _choosing(self) -> tuple[str, bool]:
        """The figure that picks the best epoch, one that the labels of `select` define, and whether lower is better.

        Raises:
            MienError: the recipe's is no figure to choose by, or not defined; or none is.
        """
        named, known = self.settings.choose, self._figures()
        names = sorted(self.estimator.tasks, key=lambda name: name != self.leading)
        lower = {
            f"{name}/{figure}": better
            for name in names
            for figure, better in self.estimator.task(name).chooses.items()
            if f"{name}/{figure}" in known
        }
        if named is not None:
            if named not in lower:
                raise unknown("figure", named, lower, "objective.choose")
            if not math.isfinite(known[named]):
                defined = ", ".join(figure for figure, value in known.items() if math.isfinite(value))
                raise MienError(
                    f"objective.choose {named}: no face of data.select has the labels for it; {defined} has"
                )
            return named, lower[named]
        figure = next((figure for figure in lower if math.isfinite(known[figure])), None)
        if figure is None:
            raise MienError(
                f"no face of data.select has a label to choose the best epoch by ({', '.join(lower)}); label some, or "
                "name another split"
            )
        first = next(iter(lower))
        if figure != first:
            self.instead = f"no face of data.select has the labels for {first}: the best epoch is chosen by {figure}"
        return figure, lower[figure]

    def _figures(self) -> dict[str, float]:
        """What `validate` would find of one answer for all faces of `select`; NaN where the labels do not define it."""
        estimator = self.estimator
        found: dict[str, float] = {}
        with torch.inference_mode():
            estimator.eval()
            device = next(estimator.parameters()).device
            side = estimator.input_size
            outputs = estimator(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device))
        for name in estimator.tasks:
            task, labels = estimator.task(name), self.select.labels[name]
            same = {
                key: value.float().cpu().expand(len(labels), *value.shape[1:]) for key, value in outputs[name].items()
            }
            told = task.metrics(task.decode(same, {}), labels)
            found |= {f"{name}/{metric}": value for metric, value in told.items()}
        return found

    def figures(self) -> dict[str, Any]:
        """Cumulative scores of exact ages, and a confusion matrix of each task with classes, on `select`."""
        from mien.report import figures

        drawn: dict[str, Any] = {}
        for name, (columns, labels) in self._judged.items():
            task = self.estimator.task(name)
            if isinstance(task, CategoricalTask):
                true, said = task.hard(labels), task.codes(columns)
                matrix = confusion(true[true >= 0], said[true >= 0], len(task.classes))
                drawn[f"select/{name}"] = figures.confusion(matrix.tolist(), task.classes, name)
            elif name == "age":
                low, high = labels.numpy().T
                exact = low == high
                constant = np.full(exact.sum(), np.median(low[exact]) if exact.any() else np.nan)
                drawn["select/age"] = figures.cumulative_score(
                    cumulative_scores(low[exact], columns["age"][exact]).tolist(),
                    cumulative_scores(low[exact], constant).tolist(),
                )
        return drawn

    def save_model(self, folder: Path, averages: Mapping[str, Mapping[str, Tensor]]) -> None:
        save_estimator(folder, self.estimator, averages.get(self.player))

    def state_dict(self) -> dict[str, Any]:
        return {"q": self._q.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._q = torch.tensor(state["q"], dtype=torch.float32)
        self._seen = torch.zeros_like(self._seen)
