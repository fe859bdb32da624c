"""A run that trains an age flow: the same loop, other labels, other figures at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.faces import VOCABULARIES
from mien.models.age_flow import AgeFlow, AgeFlowSettings
from mien.models.checkpoint import load_renderer
from mien.objectives.age_flow import AgeFlowObjective
from mien.objectives.coding import AGE, ATTRIBUTES
from mien.training.batches import age_intervals, training_loader
from mien.training.finish import judge_splits
from mien.training.recipe import Recipe
from mien.training.start import learnt_from, start_from

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Settings of the network that no weight depends on.
FREE = ("withhold", "steps", "strength", "colour")


def assemble(
    recipe: Recipe, manifest: Manifest, accelerator: Accelerator
) -> tuple[AgeFlow, AgeFlowObjective, FaceLoader]:
    """The age flow, its objective and its loader of training faces.

    Raises:
        MienError: no training face, or none of `select`, has an age, or no training face a label that the flow is told.
    """
    settings = recipe.age_flow or AgeFlowSettings()
    training, select = manifest.split(recipe.data.train), manifest.split(recipe.data.select)
    for split, faces in ((recipe.data.train, training), (recipe.data.select, select)):
        if not faces.has("age_low"):
            raise MienError(
                f"data.faces: no face of the split {split!r} has an age, which the age flow learns; name faces with "
                "ages, or give them some with `mien relabel`"
            )
    for name in settings.told:
        if not training.has(name):
            raise MienError(
                f"data.faces: no face of the split {recipe.data.train!r} has {name}, which the age flow is told; take "
                "it out of age_flow.told, or other faces"
            )
        if name not in VOCABULARIES and not training.numeric(name):
            raise MienError(
                f"age_flow.told: the column {name} of the faces holds {training.table.schema.field(name).type}; the "
                f"age flow is told numbers, {', '.join(VOCABULARIES)}"
            )
    torch.manual_seed(recipe.seed)
    flow = AgeFlow(settings, manifest.crop)
    flow.name, flow.learnt = recipe.name, learnt_from(training)
    labels = labels_of(flow, training)
    flow.fit(labels.get(ATTRIBUTES))
    if recipe.model.init:
        init, other = recipe.model.init, load_renderer(recipe.model.init)
        start_from(flow, other, init, "age_flow", FREE)
        flow.learnt = learnt_from(training, other.learnt)
    loader, workers = training_loader(recipe, accelerator, training, labels, flow.input_size)
    judge = FaceLoader(select, labels_of(flow, select), flow.input_size, 128, workers=min(workers, 1))
    return flow, AgeFlowObjective(flow, judge, labels[AGE].numpy()), loader


def labels_of(flow: AgeFlow, manifest: Manifest) -> dict[str, Tensor]:
    """What an age flow's batches carry of each face: its age, and the labels that it is told."""
    columns = manifest.columns(["age_low", "age_high", *flow.settings.told])
    labels = {AGE: age_intervals(columns)}
    told = flow.labels_of(columns)
    return labels if told is None else labels | {ATTRIBUTES: told}


def finish(
    recipe: Recipe, manifest: Manifest, folder: Path, history: list[dict[str, Any]], device: str, show: bool
) -> dict[str, Any]:
    """Judge the chosen weights on `val` and `test`; the figures go to metrics.<split>.json."""
    flow = load_renderer(folder, device)
    assert isinstance(flow, AgeFlow)

    def judge(split: str) -> dict[str, Any] | None:
        faces = manifest.split(split)
        if not faces.has("age_low"):
            return None
        labels = labels_of(flow, faces)
        loader = FaceLoader(faces, labels, flow.input_size, 128)
        return {"faces": len(faces), **AgeFlowObjective(flow, loader, labels[AGE].numpy()).validate({})}

    return judge_splits(manifest, folder, history, judge)
