"""A task whose answer is one of a few names: gender, race, expression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mien.errors import MienError
from mien.metrics.agreement import accuracy, confusion, macro_f1
from mien.metrics.raters import plurality
from mien.tasks.base import Outputs, State, Task, TaskSettings
from mien.tasks.calibrate import fit_temperature
from mien.tasks.head import hidden_layer, precise, summed


class CategoricalSettings(TaskSettings):
    """Settings of a task with classes."""

    weight: float = Field(default=1.0, ge=0, description="weight of the loss")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the label spread over all classes")
    class_weights: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | Literal["balanced"] | None = Field(
        default=None,
        description="a weight a class, or `balanced`: inverse to how often it occurs, 1 on average",
    )
    hidden: int = Field(default=0, ge=0, description="width of a hidden layer; 0: a linear head")


class CategoricalTask(Task):
    """Cross-entropy over `classes`.

    Labels are hard, (N,) int64 with -1 for missing, or soft, (N, K) float with rows of probabilities and NaN
    for missing. `encode` takes both from the manifest's column: whatever a data set gives.
    """

    chooses: ClassVar[Mapping[str, bool]] = {"accuracy": False, "macro_f1": False}

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        settings: CategoricalSettings,
        features: int,
        given: int = 0,
    ) -> None:
        """`features` is the length of the backbone's vector, `given` that of the parents' probabilities."""
        super().__init__(name, settings, width=len(classes))
        self.classes = classes
        self.columns = (name,)  # type: ignore[misc]  # one class, many tasks
        self.options = settings
        self.drop = nn.Dropout(settings.dropout)
        self.hidden, width = hidden_layer(features + given, settings.hidden)
        self.output = nn.Linear(width, len(classes))
        weights = settings.class_weights
        if isinstance(weights, list) and len(weights) != len(classes):
            raise MienError(
                f"tasks.{name}.class_weights has {len(weights)} numbers, expected {len(classes)}: "
                f"one for each of {', '.join(classes)}"
            )
        unresolved = 1.0 if weights is None else float("nan")
        fixed = weights if isinstance(weights, list) else [unresolved] * len(classes)
        self.class_weights: Tensor
        self.register_buffer("class_weights", torch.tensor(fixed, dtype=torch.float32))

    def balance(self, labels: Tensor) -> None:
        """Resolve `class_weights: balanced` from training labels: n / (K n_c) for the K classes that occur, else 1.

        Until then the loss is NaN. Does nothing for any other setting, so that it may always be called.
        """
        if self.options.class_weights != "balanced":
            return
        shares = self._probabilities(labels[self.labelled(labels)]).sum(0)
        there = shares > 0
        weights = torch.where(there, shares.sum() / (there.sum() * shares.clamp_min(1e-9)), 1.0)
        self.class_weights.copy_(weights)

    def absent(self, labels: Tensor) -> list[str]:
        """The classes that none of the labels names: what learns from them never answers so."""
        shares = self._probabilities(labels[self.labelled(labels)]).sum(0)
        return [word for word, share in zip(self.classes, shares.tolist(), strict=True) if share == 0]

    def encode(self, columns: Mapping[str, np.ndarray]) -> Tensor:
        values = columns[self.name]
        return torch.as_tensor(values, dtype=torch.float32 if values.ndim == 2 else torch.int64)

    def labelled(self, labels: Tensor) -> Tensor:
        return ~labels.isnan().any(1) if labels.ndim == 2 else labels >= 0

    def forward(self, features: Tensor, given: Tensor | None = None) -> Outputs:
        return {"logits": self.output(self.hidden(self.given_input(self.drop(features), given)))}

    def condition(self, outputs: Outputs) -> Tensor:
        return precise(outputs["logits"]).softmax(1)

    def loss_weights(self) -> dict[str, float]:
        return {"cross_entropy": self.options.weight} if self.options.weight else {}

    def losses(
        self, outputs: Outputs, labels: Tensor, weights: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        rows = self.labelled(labels).nonzero().squeeze(1)
        if len(rows) == 0 or not self.loss_weights():
            return {}
        logits, target = precise(outputs["logits"][rows]), labels[rows]
        per_face = F.cross_entropy(
            logits,
            target.to(logits.dtype) if target.ndim == 2 else target,
            weight=self.class_weights.to(logits.dtype),
            label_smoothing=self.options.label_smoothing,
            reduction="none",
        )
        return {"cross_entropy": summed(per_face, weights, rows)}

    def fit(self, outputs: Outputs, labels: Tensor) -> State:
        """`{"temperature", "nll": [before, after], "n"}`: label smoothing leaves probabilities too modest."""
        rows = self.labelled(labels).nonzero().squeeze(1)
        if len(rows) == 0:
            return {}
        logits = outputs["logits"].detach().float()
        logits, target = logits[rows.to(logits.device)], self._probabilities(labels[rows]).to(logits.device)

        def nll(temperature: float) -> float:
            return float(F.cross_entropy(logits / temperature, target))

        temperature = fit_temperature(nll)
        return {"temperature": temperature, "nll": [nll(1.0), nll(temperature)], "n": len(rows)}

    def answers(self, outputs: Outputs, state: State) -> dict[str, Tensor]:
        """Probabilities of the classes, (B, K), under the task's name."""
        return {self.name: (outputs["logits"].float() / state.get("temperature", 1.0)).softmax(1)}

    def decode(self, outputs: Outputs, state: State) -> dict[str, np.ndarray]:
        """Columns: the likeliest class, its probability (`..._p`), and that of each class."""
        probabilities = self.answers(outputs, state)[self.name].detach().cpu().numpy()
        best = probabilities.argmax(1)
        columns = {
            self.name: np.array(self.classes, dtype=object)[best],
            f"{self.name}_p": np.take_along_axis(probabilities, best[:, None], 1)[:, 0],
        }
        return columns | {f"{self.name}_{word}": probabilities[:, i] for i, word in enumerate(self.classes)}

    def metrics(self, columns: Mapping[str, np.ndarray], labels: Tensor) -> dict[str, float]:
        """`accuracy` and `macro_f1` over the faces with one likeliest label."""
        true, said = self.hard(labels), self.codes(columns)
        known = true >= 0
        matrix = confusion(true[known], said[known], len(self.classes))
        return {"accuracy": float(accuracy(matrix)), "macro_f1": float(macro_f1(matrix))}

    def codes(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The decoded answers as codes into `classes`, (N,) int64."""
        places = {word: code for code, word in enumerate(self.classes)}
        return np.array([places[word] for word in columns[self.name]], dtype=np.int64)

    def hard(self, labels: Tensor) -> np.ndarray:
        """The likeliest class of each label, (N,) int64; -1 where it is missing or soft and tied."""
        values = labels.cpu().numpy()
        return plurality(values) if values.ndim == 2 else values.astype(np.int64)

    def _probabilities(self, labels: Tensor) -> Tensor:
        """Labels without missing ones as probabilities, (n, K) float32."""
        return labels.float() if labels.ndim == 2 else F.one_hot(labels, len(self.classes)).float()
