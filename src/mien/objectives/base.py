"""What one training step minimises. The loop knows nothing else of what it trains."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from mien.data.loading import FaceLoader
from mien.errors import MienError
from mien.faces import FaceBatch

Terms = dict[str, tuple[Tensor, Tensor]]
#: Sums a tensor over all processes, in place; the identity on one.
Reduce = Callable[[Tensor], Tensor]


class Objective(ABC):
    """Players (networks that learn), what each minimises, and how a round of training is judged.

    `players` maps a name to a network; each has its optimiser and its average. `chooses` is the figure of `validate`
    that picks the best checkpoint, and whether lower is better. `select` reads the faces that it judges by, if by any.
    """

    players: dict[str, nn.Module]
    chooses: tuple[str, bool]
    select: FaceLoader | None = None

    def start_epoch(self, epoch: int) -> None:
        """What changes as epochs pass: frozen parts, a curriculum. Called before each epoch, also on resuming."""

    def depths(self, player: str) -> list[list[str]]:
        """Names of the player's parameters at each depth, input first, for learning rates by depth."""
        return [[name for name, _ in self.players[player].named_parameters()]]

    @abstractmethod
    def weights(self, player: str) -> Mapping[str, float]:
        """The weight of each loss term; each term is divided by its own count first."""

    @abstractmethod
    def counts(self, player: str, batch: FaceBatch) -> dict[str, int]:
        """How many faces (or pairs) each term of `losses` will be summed over, known before the forward pass.

        The loop sums them over processes and over the window of accumulation, so that one face weighs the same
        however the batch is cut.
        """

    @abstractmethod
    def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
        """`{term: (sum, count)}` for one micro-batch."""

    def after_step(self, reduce: Reduce) -> None:
        """What happens once a step after all players moved (group weights, an adaptive augmentation)."""

    @abstractmethod
    def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """Figures on the `select` split, with each player's averaged weights where there are any."""

    def judged_batches(self) -> Iterator[FaceBatch]:
        """The batches of `select`, in order.

        Raises:
            MienError: none of its pictures can be read.
        """
        assert self.select is not None
        yield from read(self.select, "no picture of data.select can be read, so that no epoch can be judged")

    @abstractmethod
    def save_model(self, folder: Path, averages: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write the network that users will load, with averaged weights where there are any."""

    def state_dict(self) -> dict[str, Any]:
        """What the objective itself must remember to resume; JSON-able."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, and forget what steps since then have gathered."""

    def figures(self) -> dict[str, Any]:
        """Matplotlib figures of the last validation, for TensorBoard."""
        return {}


def read(loader: FaceLoader, otherwise: str) -> Iterator[FaceBatch]:
    """The batches of `loader`, in order.

    Raises:
        MienError: none of its pictures can be read: what `otherwise` says, and the first reason.
    """
    batch = None
    for batch in loader.epoch():
        yield batch
    if batch is None:
        raise MienError(f"{otherwise}; {next(iter(loader.rejected.values()), 'it has no faces')}")


def say(text: str) -> None:
    """Print it on standard error, from the first of the processes that train together."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_rank()):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def normalising(faces: int) -> Iterator[None]:
    """Where a network that may normalise by the statistics of its batch learns from so many faces.

    Raises:
        MienError: it does, and one face has none.
    """
    try:
        yield
    except ValueError as error:  # torch's
        if faces > 1:
            raise
        raise MienError(
            "a batch of one face has no statistics for the network to normalise by; give training.batch two faces or "
            f"more for each process and micro-batch, or take a network that does not normalise by them ({error})"
        ) from None


@contextmanager
def averaged(network: nn.Module, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Inside the block `network` has the given weights; afterwards its own again. None changes nothing."""
    if weights is None:
        yield
        return
    own = {name: value.detach().clone() for name, value in network.state_dict().items()}
    network.load_state_dict(weights)
    try:
        yield
    finally:
        network.load_state_dict(own)
