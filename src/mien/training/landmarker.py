"""A run that trains the landmarker: the same loop, other faces' windows, other figures at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mien.data.align import TEMPLATES, crop_matrix, move_points
from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.data.transforms import AugmentSettings, Chance
from mien.errors import MienError
from mien.evaluation.landmarks import evaluate_landmarker
from mien.models.checkpoint import load_landmarker
from mien.models.landmarker import Landmarker, LandmarkerSettings
from mien.objectives.landmarker import LandmarkerObjective
from mien.training.batches import training_loader
from mien.training.finish import judge_splits
from mien.training.recipe import Recipe
from mien.training.start import start_from

if TYPE_CHECKING:
    from accelerate import Accelerator


def assemble(
    recipe: Recipe, manifest: Manifest, accelerator: Accelerator
) -> tuple[Landmarker, LandmarkerObjective, FaceLoader]:
    """The landmarker, its objective and its loader of training faces.

    Raises:
        MienError: the faces are not aligned, those of a split have no landmarks, or `model.init` is another network.
    """
    settings = recipe.landmarker or LandmarkerSettings()
    if manifest.crop.template not in TEMPLATES:
        raise MienError(
            f"{manifest.path or 'the manifest'} holds faces cropped as {manifest.crop.template}, but the landmarker "
            "learns from aligned ones with much around them; prepare them with --align --margin 0.5"
        )
    training, select = manifest.split(recipe.data.train), manifest.split(recipe.data.select)
    for split, faces in ((recipe.data.train, training), (recipe.data.select, select)):
        if not faces.has("landmarks"):
            raise MienError(f"data.faces: no face of the split {split!r} has landmarks, which the landmarker learns")
    torch.manual_seed(recipe.seed)
    landmarker = Landmarker(settings, manifest.crop.template)
    landmarker.name = recipe.name
    if recipe.model.init:
        init = recipe.model.init
        # The mean face, which the deviations it learnt are from, comes with the weights.
        start_from(landmarker, load_landmarker(init), init, "landmarker", ("frame", "mirror"))
    else:
        landmarker.shape.copy_(torch.from_numpy(mean_shape(training, landmarker)))
    look = window(recipe.augment, settings, manifest)
    loader, workers = training_loader(recipe, accelerator, training, {}, landmarker.input_size, look)
    # Chosen by faces that are moved as in training, always in the same way, and in the light they have.
    plain = AugmentSettings(scale=look.scale, shift=look.shift, rotation=look.rotation)
    judge = FaceLoader(
        select, {}, landmarker.input_size, 128, augment=plain, seed=0, workers=min(workers, 1), training=False
    )
    return landmarker, LandmarkerObjective(landmarker, judge), loader


def window(augment: AugmentSettings, settings: LandmarkerSettings, manifest: Manifest) -> AugmentSettings:
    """`augment` with its geometry in sides of what the landmarker sees, not of the stored pictures."""
    share = (1 + 2 * settings.margin) / (1 + 2 * manifest.crop.margin)

    def scaled(chance: Chance) -> Chance:
        low, high = chance.between
        return Chance(probability=chance.probability, between=(low * share, high * share))

    # Without a scale the window is the whole picture, so that there always has to be one.
    between = augment.scale.between if augment.scale.probability else (1.0, 1.0)
    scale = Chance(probability=1.0, between=between)
    return augment.model_copy(update={"scale": scaled(scale), "shift": scaled(augment.shift)})


def mean_shape(manifest: Manifest, landmarker: Landmarker) -> np.ndarray:
    """The mean landmarks (68, 2) of the faces, float32, in sides of the landmarker's crop from its middle."""
    points = manifest.landmarks()
    points = points[np.isfinite(points).all(axis=(1, 2))]
    side = landmarker.crop.size
    cut = np.mean([move_points(face, crop_matrix(face, landmarker.crop)) for face in points], axis=0)
    return ((cut - (side - 1) / 2) / side).astype(np.float32)


def finish(
    recipe: Recipe, manifest: Manifest, folder: Path, history: list[dict[str, Any]], device: str, show: bool
) -> dict[str, Any]:
    """Judge the best weights on `val` and `test`; the figures go to metrics.<split>.json."""
    landmarker = load_landmarker(folder, device)

    def judge(split: str) -> dict[str, Any] | None:
        if not manifest.split(split).has("landmarks"):
            return None
        return evaluate_landmarker(landmarker, manifest, split, device=device, show=show)

    return judge_splits(manifest, folder, history, judge)
