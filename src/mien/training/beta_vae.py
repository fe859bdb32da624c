"""A run that trains a beta-VAE: the same loop, other labels, other figures at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.checkpoint import load_renderer
from mien.objectives.base import read
from mien.objectives.beta_vae import BetaVaeObjective
from mien.objectives.coding import AGE, ATTRIBUTES, Tally
from mien.training.batches import age_intervals, training_loader
from mien.training.finish import judge_splits
from mien.training.recipe import Recipe
from mien.training.start import learnt_from, start_from

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Settings of the network that no weight depends on.
FREE = ("prior_years", "withhold", "residual", "strength", "colour")


def assemble(
    recipe: Recipe, manifest: Manifest, accelerator: Accelerator
) -> tuple[BetaVae, BetaVaeObjective, FaceLoader]:
    """The beta-VAE, its objective and its loader of training faces.

    Raises:
        MienError: no training face has an age, or one of the attributes that the decoder is told.
    """
    settings = recipe.beta_vae or BetaVaeSettings()
    training, select = manifest.split(recipe.data.train), manifest.split(recipe.data.select)
    for column in ("age_low", *settings.attributes):
        if not training.has(column):
            raise MienError(
                f"data.faces: no face of the split {recipe.data.train!r} has {column.removesuffix('_low')}, which the "
                "beta-VAE learns; take it out of beta_vae.attributes, or other faces"
            )
    torch.manual_seed(recipe.seed)
    vae = BetaVae(settings, manifest.crop)
    vae.name, vae.learnt = recipe.name, learnt_from(training)
    if recipe.model.init:
        init, other = recipe.model.init, load_renderer(recipe.model.init)
        free = [*FREE, "usual"] if settings.conditional else FREE
        start_from(vae, other, init, "beta_vae", free)
        vae.learnt = learnt_from(training, other.learnt)
    labels = labels_of(vae, training)
    loader, workers = training_loader(recipe, accelerator, training, labels, vae.input_size)
    judge = FaceLoader(select, labels_of(vae, select), vae.input_size, 128, workers=min(workers, 1))
    steps = len(loader) // recipe.training.accumulate * recipe.training.epochs
    objective = BetaVaeObjective(vae, judge, recipe.beta_vae_objective, labels[AGE].numpy(), steps)
    if objective.guide is not None:
        objective.guide.check(manifest.crop)
    return vae, objective, loader


def labels_of(vae: BetaVae, manifest: Manifest) -> dict[str, Tensor]:
    """What a beta-VAE's batches carry of each face: its age, and the attributes that its decoder is told."""
    columns = manifest.columns(["age_low", "age_high", *vae.settings.attributes])
    labels = {AGE: age_intervals(columns)}
    attributes = vae.codes_of(columns)
    return labels if attributes is None else labels | {ATTRIBUTES: attributes}


def finish(
    recipe: Recipe, manifest: Manifest, folder: Path, history: list[dict[str, Any]], device: str, show: bool
) -> dict[str, Any]:
    """Judge the chosen weights on `val` and `test`; the figures go to metrics.<split>.json, strips to figures/."""
    vae = load_renderer(folder, device)
    assert isinstance(vae, BetaVae)

    def judge(split: str) -> dict[str, Any]:
        faces = manifest.split(split)
        tally = Tally(vae)
        loader = FaceLoader(faces, labels_of(vae, faces), vae.input_size, 128)
        with torch.inference_mode():
            torch.manual_seed(0)
            for batch in read(loader, f"no picture of the split {split!r} can be read, to judge {folder} by"):
                tally.see(batch, torch.device(device))
        return {"faces": len(tally.column("mse")), **tally.figures(faces.groups())}

    return judge_splits(manifest, folder, history, judge)
