"""A run: a folder that repeats an experiment. From a recipe to trained, calibrated and judged weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.data.align import require_view
from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.relabelled import guard_labels
from mien.faces import SPLITS, VOCABULARIES
from mien.files import alone
from mien.memory import keep_freed
from mien.models.checkpoint import inherited_terms, load_estimator, read_pointer, save_facts
from mien.models.estimator import Estimator, build_estimator, seen_otherwise, start_from
from mien.objectives.base import Objective, say
from mien.objectives.estimator import GROUP, EstimatorObjective
from mien.progress import clock
from mien.tasks.categorical import CategoricalTask
from mien.training.batches import training_loader
from mien.training.finish import JUDGED, draw_history, splits_in
from mien.training.loop import estimate, train
from mien.training.recipe import Recipe
from mien.training.record import CONFIG, changed_settings, claim, open_faces
from mien.training.start import learnt_from

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mien.evaluation.predictions import Raw

LOCK = "run.lock"


def train_run(recipe: Recipe, folder: Path, *, resume: bool = False, show: bool = True) -> dict[str, Any] | None:
    """Train as `recipe` says into `folder`, calibrate on `val`, judge on `val` and once on `test`.

    Returns `{"run", "history", "metrics": {split: figures}, "reports": {split: page}}`, or None in the processes of a
    distributed run that do not report.

    Raises:
        MienError: the folder holds another run, the manifest lacks what the recipe needs, or the loss broke.
    """
    from mien.training import age_flow, age_transformer, beta_vae, landmarker

    keep_freed()
    manifest = open_faces(recipe)
    there = splits_in(manifest)
    if recipe.data.select == "select" and "select" not in there and recipe.data.train in there:
        raise MienError(
            f"{manifest.path or 'the joined manifests'}: no face is in split 'select', which chooses the best epoch; "
            "give it some faces of train, or let data.select=val choose (figures on val then flatter)"
        )
    accelerator = _accelerator(recipe)
    recipe = recipe.model_copy(deep=True)
    recipe.training.precision = accelerator.mixed_precision if accelerator.mixed_precision != "no" else "fp32"
    main = accelerator.is_main_process
    if main:
        _may_claim(folder, recipe, manifest, resume)
    accelerator.wait_for_everyone()

    build: Callable[..., tuple[nn.Module, Objective, FaceLoader]]
    build, conclude = (assemble, finish)
    if recipe.landmarker:
        build, conclude = landmarker.assemble, landmarker.finish
    elif recipe.beta_vae:
        build, conclude = beta_vae.assemble, beta_vae.finish
    elif recipe.age_transformer:
        build, conclude = age_transformer.assemble, age_transformer.finish
    elif recipe.age_flow:
        build, conclude = age_flow.assemble, age_flow.finish
    if conclude is finish and not recipe.data.allow_relabelled:
        judged = np.isin(manifest.codes("split"), [SPLITS.index(split) for split in JUDGED])
        guard_labels(manifest.where(judged), "data.allow_relabelled=true")
    network, objective, loader = build(recipe, manifest, accelerator)
    if main and (shared := _also_learnt(manifest, recipe.data.train)):
        say(f"data.faces: of {shared} the same pictures stand in {recipe.data.train}; figures on them will flatter")
    with ExitStack() as held:
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            if not held.enter_context(alone(folder / LOCK)):
                raise MienError(f"{folder}: another process trains this run; wait for it, or take another folder")
            _may_claim(folder, recipe, manifest, resume)  # again: another may have come between
            if not resume or not (folder / CONFIG).is_file():  # a recipe that cannot be built leaves the folder free
                claim(folder, recipe, manifest)
        return _train(recipe, manifest, folder, network, objective, loader, accelerator, conclude, resume, show)


def _also_learnt(manifest: Manifest, train: str) -> str:
    """How many faces of which other splits are pictures that the network learns from, in words: joined manifests, and
    splits that were given, may cut one picture in two."""
    codes, hashes = manifest.codes("split"), manifest.strings("sha256")
    if train not in SPLITS:  # all faces: what that means for the others is said
        return ""
    learnt = set(hashes[codes == SPLITS.index(train)]) - {None}
    found = []
    for split in SPLITS:
        there = hashes[codes == SPLITS.index(split)]
        if split != train and (both := sum(one in learnt for one in there)):
            found.append(f"{both:,} of the {len(there):,} faces of {split}")
    return ", ".join(found)


def _train(
    recipe: Recipe,
    manifest: Manifest,
    folder: Path,
    network: nn.Module,
    objective: Objective,
    loader: FaceLoader,
    accelerator: Accelerator,
    conclude: Callable[..., dict[str, Any]],
    resume: bool,
    show: bool,
) -> dict[str, Any] | None:
    """What `train_run` does once the folder is its own."""
    main = accelerator.is_main_process
    if main and show:
        faces = len(manifest.split(recipe.data.train))
        parameters = sum(p.numel() for p in network.parameters())
        where, world = str(accelerator.device), accelerator.num_processes
        where += f" of {world} processes" if world > 1 else ""
        say(f"{faces:,} faces, {parameters:,} parameters, {len(loader):,} steps an epoch on {where}")
        count = recipe.training.epochs
        seconds = estimate(objective, loader, recipe.training, accelerator)
        say(f"about {clock(seconds)} for {count} epoch{'' if count == 1 else 's'}, reading not counted")

    training_faces = manifest.split(recipe.data.train)
    history = train(
        objective,
        loader,
        folder,
        recipe.training,
        recipe.optim,
        accelerator=accelerator,
        seed=recipe.seed,
        resume=resume,
        faces=lambda row: training_faces.table["path"][row].as_py(),
        show=show,
    )
    if not main:
        return None
    return conclude(recipe, manifest, folder, history, str(accelerator.device), show)


def assemble(
    recipe: Recipe, manifest: Manifest, accelerator: Accelerator
) -> tuple[Estimator, EstimatorObjective, FaceLoader]:
    """The estimator, its objective and its loader of training faces."""
    training, select = manifest.split(recipe.data.train), manifest.split(recipe.data.select)
    torch.manual_seed(recipe.seed)
    estimator = build_estimator(recipe.model, recipe.tasks, manifest.crop)
    estimator.name = recipe.name
    # A robustness audit tells families of corruptions that it was shown from those that it was not.
    estimator.settings["augment"] = recipe.augment.model_dump(mode="json")
    # An evaluation tells which faces it is not to be judged on.
    estimator.settings["splits"] = {"train": recipe.data.train, "select": recipe.data.select}
    estimator.learnt = learnt_from(training)
    if recipe.model.init:
        other = load_estimator(recipe.model.init)
        require_view(manifest.crop, other.crop, "the manifest")
        new = start_from(estimator, other)
        estimator.card |= inherited_terms([other.card])
        estimator.learnt = learnt_from(training, other.learnt)
        if new:
            say(f"model.init {recipe.model.init}: starts without a match: {', '.join(new)}")
        if sees := seen_otherwise(estimator, other):
            say(f"model.init {recipe.model.init} has {sees}, which this run does not; set them to go on as it was")

    labels, told = encode(estimator, training), []
    for name in estimator.tasks:
        if not bool(estimator.task(name).labelled(labels[name]).any()):
            raise MienError(
                f"tasks.{name}: no face of the split {recipe.data.train!r} has this label; "
                f"switch the task off with tasks.{name}=null"
            )
        task = estimator.task(name)
        if isinstance(task, CategoricalTask):
            task.balance(labels[name])
            if absent := task.absent(labels[name]):
                told.append(
                    f"tasks.{name}: no face of the split {recipe.data.train!r} is {', '.join(absent)}; "
                    "the model will not learn to say so"
                )
    shares = None
    if recipe.objective.group_dro:
        chances = recipe.sampling.chances(training)
        groups, shares = _groups(training, recipe.objective.group_dro, chances)
        labels[GROUP] = torch.from_numpy(groups)
    loader, workers = training_loader(recipe, accelerator, training, labels, estimator.input_size)
    if estimator.backbone.folded:
        estimator.backbone.unfold(next(loader.epoch()).images)
    judge = FaceLoader(select, encode(estimator, select), estimator.input_size, 128, workers=min(workers, 1))
    objective = EstimatorObjective(estimator, judge, recipe.objective, recipe.model.freeze_backbone, shares)
    told += [objective.instead] if objective.instead else []
    if recipe.model.landmarks and not training.has("landmarks"):
        told.append(
            f"model.landmarks: no face of the split {recipe.data.train!r} has landmarks; the network learns without any"
        )
    for key, split in estimator.settings["splits"].items():
        if split in ("all", *JUDGED):
            told.append(
                f"data.{key}={split}: the figures on {'val and test' if split == 'all' else split} will flatter"
            )
    if told:
        say("\n".join(told))
    return estimator, objective, loader


def encode(estimator: Estimator, manifest: Manifest) -> dict[str, Tensor]:
    """The encoded labels of every task for the faces of `manifest`."""
    return {
        name: estimator.task(name).encode(manifest.columns(estimator.task(name).columns)) for name in estimator.tasks
    }


def _groups(manifest: Manifest, columns: list[str], chances: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Group of each face (-1 where a label is missing) by vocabulary columns, and each group's share of the faces that
    an epoch shows, each as often as its chance (N,) says; None: once."""
    groups = np.zeros(len(manifest), dtype=np.int64)
    known = np.ones(len(manifest), dtype=bool)
    for column in columns:
        if column not in VOCABULARIES:
            raise MienError(f"objective.group_dro: {column!r} is none of {', '.join(VOCABULARIES)}")
        codes = manifest.codes(column)
        known &= codes >= 0
        groups = groups * len(VOCABULARIES[column]) + np.maximum(codes, 0)
    present, numbers = np.unique(groups[known], return_inverse=True)
    if len(present) < 2:
        raise MienError(f"objective.group_dro {columns}: the training faces fall into fewer than two groups")
    groups[known], groups[~known] = numbers, -1
    shown = np.bincount(numbers, None if chances is None else chances[known])
    return groups, shown / shown.sum()


def finish(
    recipe: Recipe, manifest: Manifest, folder: Path, history: list[dict[str, Any]], device: str, show: bool
) -> dict[str, Any]:
    """Calibrate the best weights on `val` and judge them on `val` and `test`."""
    from mien.evaluation.evaluate import calibrate, evaluate_model

    estimator = load_estimator(folder, device)
    draw_history(folder, history)
    there = splits_in(manifest)
    metrics: dict[str, Any] = {}
    reports: dict[str, str] = {}
    raw: dict[str, Raw] = {}
    if "val" in there:
        raw = {"val": calibrate(estimator, manifest, "val", device=device, show=show)}
        save_facts(read_pointer(folder / "checkpoints", "best"), estimator)
    for split in JUDGED:
        if split in there:
            result = evaluate_model(estimator, manifest, split, folder, device=device, show=show, raw=raw.get(split))
            metrics[split], reports[split] = result.metrics, str(result.report)
    return {"run": str(folder), "history": history, "metrics": metrics, "reports": reports}


def _accelerator(recipe: Recipe) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # It is one for the whole process, and would refuse a second run in another precision.
    AcceleratorState._reset_state()
    wanted = recipe.training.precision
    if wanted == "auto":
        wanted = "bf16" if _fast_bf16() else "fp32"
    if wanted == "fp16" and not torch.cuda.is_available():
        raise MienError("training.precision fp16 needs a CUDA device; take bf16 or fp32")
    # Processes on processors know of each other only if it is told that there is nothing else.
    made = Accelerator(mixed_precision="no" if wanted == "fp32" else wanted, cpu=not torch.accelerator.is_available())
    here, cards = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if made.device.type == "cuda" and here > cards:  # NCCL refuses it too, at the first word they exchange
        raise MienError(
            f"{here} processes for {cards} graphics card{'s'[: cards > 1]} of this machine, and no two can share one; "
            f"start torchrun with --nproc-per-node {cards}, or all on the processor with CUDA_VISIBLE_DEVICES="
        )
    return made


def _fast_bf16() -> bool:
    """Whether bf16 is faster than fp32 here: on CUDA from Ampere on, on CPUs with instructions for it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))


def _may_claim(folder: Path, recipe: Recipe, manifest: Manifest, resume: bool) -> None:
    """Check that the folder is free to become a run of this recipe, or is one that may be resumed."""
    if (folder / CONFIG).is_file():
        if not resume and not _has_begun(folder):
            return  # it was refused at its first step, and the recipe has been mended since
        if not resume:
            raise MienError(f"{folder} holds a run already; go on with --resume, or name another folder with -o")
        changed = changed_settings(folder, recipe, manifest)
        if changed:
            raise MienError(
                f"{folder}: cannot be resumed, since these differ from the run's {CONFIG}: {', '.join(changed)}; "
                "resume with the same settings, or start another run with -o"
            )
        return
    if resume and folder.exists() and any(folder.iterdir()):
        raise MienError(
            f"{folder}: nothing to resume, it holds no {CONFIG}; leave --resume out, or name the right folder"
        )


def _has_begun(folder: Path) -> bool:
    """Whether a run has anything to go on from, or to show."""
    return any((folder / name).exists() for name in ("checkpoints/last", "checkpoints/best", "history.json"))
