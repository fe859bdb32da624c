"""What a task is: how a label is encoded, its head, its loss, its decoding and its metrics, in one object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Outputs = dict[str, Tensor]
State = dict[str, Any]


class TaskSettings(BaseModel):
    """Settings that every task has."""

    model_config = ConfigDict(extra="forbid")

    given: list[str] = Field(default_factory=list, description="tasks whose probabilities this one is told")
    detach_given: bool = Field(default=True, description="no gradient flows back through `given`")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the features before the head")


class Task(nn.Module, ABC):
    """One thing to learn about a face.

    A task is a module: its parameters are those of its head. `name` is its key everywhere; `columns` are the manifest
    columns that carry its label; `width` is the length of the vector it passes to tasks that are `given` it. `chooses`
    are the figures of `metrics` that the best epoch may be chosen by, True where lower is better: the first that the
    labels define, unless a recipe names another.
    """

    columns: ClassVar[tuple[str, ...]]
    chooses: ClassVar[Mapping[str, bool]] = {}

    def __init__(self, name: str, settings: TaskSettings, width: int) -> None:
        super().__init__()
        self.name = name
        self.settings = settings
        self.width = width

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the tasks this one is conditioned on."""
        return tuple(self.settings.given)

    def means_the_same(self, other: Task) -> bool:
        """Whether weights of `other`'s head, of the same name and shape, stand for the same here: it is given the same,
        and its last layer reads the features in both, or a hidden layer in both."""
        mine, its = (bool(getattr(task.settings, "hidden", 0)) for task in (self, other))
        return type(self) is type(other) and self.given == other.given and mine == its

    @abstractmethod
    def encode(self, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Encode whole manifest columns, (N,) each, as one tensor of labels, first dimension N.

        Vocabulary columns come as int64 codes with -1 for missing, numbers as float32 with NaN for missing.
        """

    @abstractmethod
    def labelled(self, labels: Tensor) -> Tensor:
        """(B,) bool: which faces carry a label that the loss can use."""

    @abstractmethod
    def forward(self, features: Tensor, given: Tensor | None = None) -> Outputs:
        """The head: features (B, F), and the parents' probabilities (B, G), to named outputs, first dimension B."""

    @abstractmethod
    def condition(self, outputs: Outputs) -> Tensor:
        """What tasks that are `given` this one see: (B, width), probabilities or values scaled to [0, 1]."""

    @abstractmethod
    def loss_weights(self) -> dict[str, float]:
        """The weight of each term that `losses` returns; terms of weight 0 are left out."""

    def count(self, labels: Tensor) -> dict[str, int]:
        """How many faces each loss term will be summed over, known before the forward pass: the labelled ones."""
        return dict.fromkeys(self.loss_weights(), int(self.labelled(labels).sum()))

    @abstractmethod
    def losses(
        self, outputs: Outputs, labels: Tensor, weights: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """`{term: (sum over labelled faces, count of them)}`, unweighted by `loss_weights`.

        Labelled faces are selected first, so that a face without a label changes nothing, bit for bit. `weights` (B,)
        multiplies each face's loss; the count stays a number of faces. Terms without any labelled face are absent.
        """

    @abstractmethod
    def answers(self, outputs: Outputs, state: State) -> dict[str, Tensor]:
        """What outputs mean: numbers (B,) or probabilities (B, classes) by name. `state` is what `fit` gave, or {}.

        Nothing but torch, whatever the batch, so that a network is exported with it. `decode` uses it too; its columns
        of numbers have the same names.
        """

    def decode(self, outputs: Outputs, state: State) -> dict[str, np.ndarray]:
        """Outputs to the columns of a predictions table, (B,) each: `answers`, unless a task has more columns."""
        return {name: value.detach().cpu().numpy() for name, value in self.answers(outputs, state).items()}

    @abstractmethod
    def fit(self, outputs: Outputs, labels: Tensor) -> State:
        """Fit what decoding needs (blend, temperature, conformal quantiles) on held-out faces; JSON-able."""

    @abstractmethod
    def metrics(self, columns: Mapping[str, np.ndarray], labels: Tensor) -> dict[str, float]:
        """A few plain figures for the log of training, from decoded columns; NaN where undefined."""

    def given_input(self, features: Tensor, given: Tensor | None) -> Tensor:
        """Features with the parents' probabilities beside them, (B, F + G)."""
        return features if given is None else torch.cat([features, given.to(features.dtype)], dim=1)
