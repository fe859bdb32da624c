"""A run that trains an AgeTransformer: the same loop with two players, other figures at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.models.age_transformer import SHOWING, AgeTransformer, AgeTransformerSettings, with_warp
from mien.models.checkpoint import load_renderer
from mien.models.embeddings import caption_tokens
from mien.models.learnt_language import build_language
from mien.objectives.age_transformer import AgeTransformerObjective
from mien.objectives.ageing import GENDER, SPREAD, TEXT, Ageing
from mien.objectives.ageing_settings import AgeTransformerObjectiveSettings
from mien.objectives.base import read, say
from mien.objectives.coding import AGE
from mien.objectives.guides import guides_of
from mien.training.batches import age_intervals, training_loader
from mien.training.finish import judge_splits
from mien.training.recipe import Recipe
from mien.training.start import learnt_from, start_from

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Faces whose ten renders are made at once.
TOGETHER = 16


def assemble(
    recipe: Recipe, manifest: Manifest, accelerator: Accelerator
) -> tuple[AgeTransformer, AgeTransformerObjective, FaceLoader]:
    """The AgeTransformer, its objective and its loader of training faces.

    Raises:
        MienError: no training face has an age, captions and the network's `text` do not go together, or no face of
            `select` has what the best epoch is to be chosen by.
    """
    settings = recipe.age_transformer or AgeTransformerSettings()
    training, select = manifest.split(recipe.data.train), manifest.split(recipe.data.select)
    if not training.has("age_low"):
        raise MienError(
            f"data.faces: no face of the split {recipe.data.train!r} has an age, which the AgeTransformer learns; name "
            "faces with ages, or give them some with `mien relabel`"
        )
    torch.manual_seed(recipe.seed)
    network = AgeTransformer(settings, manifest.crop)
    network.name, network.learnt = recipe.name, learnt_from(training)
    if recipe.model.init:
        init = recipe.model.init
        other = load_renderer(init)
        if settings.warp and isinstance(other, AgeTransformer) and not other.settings.warp:
            other = with_warp(other, settings.warp)
        start_from(network, other, init, "age_transformer", SHOWING)
        network.learnt = learnt_from(training, other.learnt)
    labels = labels_of(recipe, training)
    if TEXT in labels:
        _require_words(recipe, labels[TEXT])
    side = side_of(network, recipe.age_transformer_objective)
    loader, workers = training_loader(recipe, accelerator, training, labels, side)
    few = evenly(select, recipe.age_transformer_objective.judged)
    judge = FaceLoader(few, labels_of(recipe, few), side, TOGETHER, workers=min(workers, 1))
    low, high = judge.labels[AGE].T
    if recipe.age_transformer_objective.choose == "source/mae" and not bool((low == high).any()):
        raise MienError(
            "age_transformer_objective.choose=source/mae: no face of data.select has an age in years; take score or "
            "own/l1"
        )
    steps = len(loader) // recipe.training.accumulate * recipe.training.epochs
    ages = labels[AGE].numpy()
    language = build_language(recipe.language, settings.text or None) if recipe.language else None
    objective = AgeTransformerObjective(network, judge, recipe.age_transformer_objective, ages, steps, language)
    for guide in (objective.guide, objective.identity):
        if guide is not None:
            guide.check(manifest.crop)
    return network, objective, loader


def side_of(network: AgeTransformer, options: AgeTransformerObjectiveSettings) -> int:
    """Side in pixels at which faces are read: enough for the network and for those that guide it."""
    return max(network.input_size, options.guided_at or 0)


def evenly(manifest: Manifest, count: int) -> Manifest:
    """So many faces of all ages: those at even distances in the order of their ages, or all."""
    age = (manifest.numbers("age_low") + manifest.numbers("age_high")) / 2
    ranked = np.argsort(age, kind="stable")
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(np.int64))
    return manifest.take(np.sort(ranked[places]))


def labels_of(recipe: Recipe, manifest: Manifest) -> dict[str, Tensor]:
    """What batches carry of each face: its age, and where known its label's deviation, gender and caption."""
    columns = manifest.columns(["age_low", "age_high"])
    labels = {AGE: age_intervals(columns)}
    if manifest.has(SPREAD):
        labels[SPREAD] = torch.as_tensor(manifest.numbers(SPREAD)).float()
    if manifest.has("gender"):
        labels[GENDER] = torch.as_tensor(manifest.codes("gender"))
    width = (recipe.age_transformer or AgeTransformerSettings()).text
    if bool(width) != bool(recipe.captions):
        raise MienError(
            f"captions is {recipe.captions!r} and age_transformer.text {width}: give both, or neither (text is the "
            "length of a caption's tokens)"
        )
    if recipe.captions:
        hashes = [key.hex() if key else "" for key in manifest.strings("sha256")]
        labels[TEXT] = caption_tokens(recipe.captions, hashes, build_language(recipe.language, width))
    return labels


def _require_words(recipe: Recipe, tokens: Tensor) -> None:
    """Say how many of the training faces have a caption, of tokens (N, L, D).

    Raises:
        MienError: none has.
    """
    worded = int((~tokens.isnan().all(dim=2).all(dim=1)).sum())
    if not worded:
        raise MienError(
            f"captions {recipe.captions}: none is of a training face, which are known by their pictures' sha256; make "
            "some with `mien caption`, or leave captions and age_transformer.text out"
        )
    if worded < len(tokens):
        say(f"captions: {worded:,} of {len(tokens):,} training faces have one")


def finish(
    recipe: Recipe, manifest: Manifest, folder: Path, history: list[dict[str, Any]], device: str, show: bool
) -> dict[str, Any]:
    """Render faces of `val` and `test` with the chosen weights; figures by the guides go to metrics.<split>.json.

    They are what the network was trained towards: `mien audit --ageing` judges it by other networks.
    """
    network = load_renderer(folder, device)
    assert isinstance(network, AgeTransformer)
    options = recipe.age_transformer_objective
    side = side_of(network, options)
    guide, identity = guides_of(options)

    def judge(split: str) -> dict[str, Any]:
        faces = evenly(manifest.split(split), options.judged)
        tally = Ageing(network, guide, identity, guided_at=options.guided_at)
        with torch.inference_mode():
            loader = FaceLoader(faces, labels_of(recipe, faces), side, TOGETHER)
            for batch in read(loader, f"no picture of the split {split!r} can be read, to judge {folder} by"):
                tally.see(batch, torch.device(device))
        return {"faces": len(tally.column("own")), "judge": "guide", **tally.figures()}

    return judge_splits(manifest, folder, history, judge)
