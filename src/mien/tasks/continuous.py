"""A task whose answer is a number in [-1, 1]: valence, arousal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mien.metrics import age, concordance
from mien.tasks.base import Outputs, State, Task, TaskSettings
from mien.tasks.head import hidden_layer, precise, summed

#: Labels of a batch whose variance is below this do not vary: the concordance with them is not defined.
LEAST_VARIANCE = 1e-8


class ContinuousSettings(TaskSettings):
    """Settings of a task with a number in [-1, 1]."""

    mse_weight: float = Field(default=1.0, ge=0, description="weight of the squared error")
    ccc_weight: float = Field(default=1.0, ge=0, description="weight of 1 - CCC over the labelled faces of a batch")
    bounded: bool = Field(default=True, description="answers end in tanh; false: a linear layer, clipped to [-1, 1]")
    hidden: int = Field(default=0, ge=0, description="width of a hidden layer; 0: a linear head")

    @model_validator(mode="after")
    def _something_to_learn(self) -> ContinuousSettings:
        if not (self.mse_weight or self.ccc_weight):
            raise ValueError("both losses are switched off; give mse_weight or ccc_weight a value > 0")
        return self


class ContinuousTask(Task):
    """A number in [-1, 1] by squared error, by concordance with the labels of its batch, or by both.

    Labels are (N,) float32, NaN for missing. Outputs: `value` (B,), within (-1, 1) where `bounded`.
    """

    chooses: ClassVar[Mapping[str, bool]] = {"ccc": False, "rmse": True}

    def __init__(self, name: str, settings: ContinuousSettings, features: int, given: int = 0) -> None:
        """`features` is the length of the backbone's vector, `given` that of the parents' probabilities."""
        super().__init__(name, settings, width=1)
        self.columns = (name,)  # type: ignore[misc]  # one class, many tasks
        self.options = settings
        self.drop = nn.Dropout(settings.dropout)
        self.hidden, width = hidden_layer(features + given, settings.hidden)
        self.output = nn.Linear(width, 1)

    def encode(self, columns: Mapping[str, np.ndarray]) -> Tensor:
        return torch.as_tensor(columns[self.name], dtype=torch.float32)

    def labelled(self, labels: Tensor) -> Tensor:
        return ~labels.isnan()

    def forward(self, features: Tensor, given: Tensor | None = None) -> Outputs:
        value = precise(self.output(self.hidden(self.given_input(self.drop(features), given)))).squeeze(1)
        return {"value": value.tanh() if self.options.bounded else value}

    def condition(self, outputs: Outputs) -> Tensor:
        """The answer moved to [0, 1], (B, 1)."""
        return (precise(outputs["value"])[:, None].clamp(-1, 1) + 1) / 2

    def loss_weights(self) -> dict[str, float]:
        weights = {"mse": self.options.mse_weight, "batch_ccc": self.options.ccc_weight}
        return {term: weight for term, weight in weights.items() if weight}

    def losses(
        self, outputs: Outputs, labels: Tensor, weights: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Task.losses`. Terms:

        - `mse`: the squared error of each face, summed.
        - `batch_ccc`: n (1 - CCC) over the n labelled faces of this batch. It couples them, so it is no sum over
        faces: processes and micro-batches each take it over their own part, knowingly, and are averaged by n.
        """
        rows = self.labelled(labels).nonzero().squeeze(1)
        if len(rows) == 0:
            return {}
        value, target = precise(outputs["value"][rows]), labels[rows]
        target = target.to(value.dtype)
        terms = {}
        for term in self.loss_weights():
            if term == "mse":
                terms[term] = summed((value - target) ** 2, weights, rows)
            else:
                shares = None if weights is None else weights[rows].to(value.dtype)
                count = value.new_tensor(float(len(rows)))
                terms[term] = (count * (1 - batch_ccc(value, target, shares)), count)
        return terms

    def answers(self, outputs: Outputs, state: State) -> dict[str, Tensor]:
        return {self.name: outputs["value"].float().clamp(-1, 1)}

    def fit(self, outputs: Outputs, labels: Tensor) -> State:
        """Nothing: an answer is used as it is."""
        return {}

    def means_the_same(self, other: Task) -> bool:
        """Also where both are bounded, or neither is."""
        same = isinstance(other, ContinuousTask) and self.options.bounded == other.options.bounded
        return same and super().means_the_same(other)

    def metrics(self, columns: Mapping[str, np.ndarray], labels: Tensor) -> dict[str, float]:
        known = self.labelled(labels).cpu().numpy()
        true, said = labels.cpu().numpy()[known], columns[self.name][known]
        return {"ccc": float(concordance.ccc(true, said)), "rmse": float(age.rmse(true, said))}


def batch_ccc(value: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The concordance correlation (Lin 1989, variances over n) of two (n,) tensors, with `weights` (n,) >= 0.

    Where it is not defined, for one face or labels that do not vary, it is 0 and its gradient is 0.
    """
    share = torch.full_like(value, 1 / len(value)) if weights is None else weights / weights.sum().clamp_min(1e-12)
    mean_value, mean_target = (share * value).sum(), (share * target).sum()
    apart_value, apart_target = value - mean_value, target - mean_target
    var_target = (share * apart_target**2).sum()
    if len(value) < 2 or float(var_target.detach()) < LEAST_VARIANCE:
        return 0.0 * value.sum()
    var_value, covariance = (share * apart_value**2).sum(), (share * apart_value * apart_target).sum()
    return 2 * covariance / (var_value + var_target + (mean_value - mean_target) ** 2)
