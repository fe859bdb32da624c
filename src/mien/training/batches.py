"""The loader of training faces that every kind of run reads, and how a batch is cut among processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mien.data.loading import FaceLoader, readers
from mien.data.manifest import Manifest
from mien.data.transforms import AugmentSettings
from mien.errors import MienError
from mien.faces import closed
from mien.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator


def training_loader(
    recipe: Recipe,
    accelerator: Accelerator,
    faces: Manifest,
    labels: dict[str, Tensor],
    size: int,
    augment: AugmentSettings | None = None,
) -> tuple[FaceLoader, int]:
    """This process's loader of `faces` at `size` pixels, as the recipe says, and the processes that read for it.

    `augment` takes the place of the recipe's.

    Raises:
        MienError: the batch cannot be cut into the processes and micro-batches.
    """
    world = accelerator.num_processes
    micro, workers = cut_batch(recipe, world)
    loader = FaceLoader(
        faces,
        labels,
        size,
        micro,
        augment=augment or recipe.augment,
        sampling=recipe.sampling,
        seed=recipe.seed,
        workers=workers,
        rank=accelerator.process_index,
        world=world,
        picture=recipe.data.picture,
    )
    return loader, workers


def age_intervals(columns: Mapping[str, np.ndarray]) -> Tensor:
    """The ages (N, 2) float32 years that a renderer learns with, NaN where unknown, from a manifest's columns; see
    `closed`."""
    return torch.from_numpy(closed(np.stack([columns["age_low"], columns["age_high"]], axis=1))).float()


def cut_batch(recipe: Recipe, world: int) -> tuple[int, int]:
    """Faces of a micro-batch, and processes that read them, for each of `world` processes that train."""
    micro, uneven = divmod(recipe.training.batch, world * recipe.training.accumulate)
    if uneven or micro == 0:
        raise MienError(
            f"training.batch {recipe.training.batch} cannot be cut into {world} processes x "
            f"{recipe.training.accumulate} micro-batches; make it a multiple of their product"
        )
    return micro, readers(world) if recipe.data.workers is None else recipe.data.workers
