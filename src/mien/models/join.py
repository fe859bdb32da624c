"""Several estimators as one, which answers with the mean of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mien.errors import MienError
from mien.models.checkpoint import inherited_terms
from mien.models.estimator import BackboneSettings, Estimator, ModelSettings, build_estimator
from mien.models.met import union
from mien.tasks.face import TasksSettings
from mien.tasks.ordinal import Coral

#: Settings of a task on which the meaning of its outputs depends.
SAME = ("given", "method", "grid", "decode", "regression", "bounded")


def join(estimators: Sequence[Estimator]) -> Estimator:
    """One estimator with the backbones of all, whose heads give the means of what theirs give.

    A linear head is a sum over features, so the mean of several heads is one head on all their features side by side:
    an ensemble that is calibrated, judged, exported, fine-tuned and shipped like any other network. Means are of
    logits, of years, and of valence and arousal before their tanh. Where a task is told its parents' probabilities,
    those of the joined parents are meant. What is fitted on held-out faces is to be fitted anew.

    Raises:
        MienError: fewer than two; they learnt other tasks or from other crops, read landmarks, or have a head of
            another build.
    """
    if len(estimators) < 2:
        raise MienError(f"{len(estimators)} model to join: name two or more")
    first = estimators[0]
    for one in estimators:
        _check(first, one)
    model = _model_settings(estimators)
    tasks = _task_settings(estimators)
    joined = build_estimator(model, tasks, first.crop, load=False).eval()
    state = {name: _merged(name, value, [one.state_dict() for one in estimators]) for name, value in _heads(joined)}
    part = 0
    for one in estimators:
        backbones = _parts(one)
        for prefix in backbones:
            state |= {
                f"backbone.parts.{part}.{name.removeprefix(prefix)}": value
                for name, value in one.state_dict().items()
                if name.startswith(prefix)
            }
            part += 1
    try:
        joined.load_state_dict(state)
    except RuntimeError as error:
        raise MienError(
            f"the heads of {first.name} and the others cannot be joined, only layers on the features can: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from None
    joined.card |= inherited_terms([one.card for one in estimators])
    joined.settings["splits"] = _splits(estimators)
    joined.learnt = union(one.learnt for one in estimators)
    augments = [one.settings.get("augment") for one in estimators]
    if all(augment == augments[0] for augment in augments):
        joined.settings["augment"] = augments[0]
    for mine, *theirs in zip(*(_corals(one) for one in (joined, *estimators)), strict=True):
        mine.be_mean_of(theirs)
    return joined


def _splits(estimators: Sequence[Estimator]) -> dict[str, str]:
    """The splits that any of them learnt from and was chosen on: the first one's, or "all" where they differ."""
    told = [one.settings.get("splits") or {} for one in estimators]
    found = {key: {str(one.get(key, key)) for one in told} for key in ("train", "select")}
    return {key: names.pop() if len(names) == 1 else "all" for key, names in found.items()}


def _corals(estimator: Estimator) -> list[Coral]:
    """Its heads with ordered thresholds, whose weights are no linear matter."""
    return [module for module in estimator.tasks.modules() if isinstance(module, Coral)]


def _parts(estimator: Estimator) -> list[str]:
    """How the names of each backbone's weights begin."""
    count = len(estimator.backbone_names)
    return ["backbone."] if count == 1 else [f"backbone.parts.{part}." for part in range(count)]


def _check(first: Estimator, one: Estimator) -> None:
    if one.branch is not None:
        raise MienError(f"{one.name} reads landmarks; only networks that see the picture alone can be joined")
    if not one.crop.same_view(first.crop):
        raise MienError(
            f"{one.name} sees faces as {one.crop.template} with margin {one.crop.margin}, {first.name} as "
            f"{first.crop.template} with {first.crop.margin}; join networks that learnt from the same crops"
        )
    for name in {*first.tasks, *one.tasks}:
        if name not in one.tasks or name not in first.tasks:
            lacks = one if name not in one.tasks else first
            raise MienError(
                f"{lacks.name} has not learnt {name}, which the others have; join networks of one set of tasks"
            )
        if _shape(first, name) != _shape(one, name):
            raise MienError(
                f"tasks.{name}: {first.name} and {one.name} do not give the same outputs; join networks whose recipes "
                f"agree in {', '.join(SAME)}, and on a hidden layer"
            )


def _shape(estimator: Estimator, name: str) -> dict[str, Any]:
    """What two heads of a task must share for their outputs to have a mean."""
    settings = estimator.task(name).settings.model_dump(mode="json")
    return {key: settings[key] for key in SAME if key in settings} | {"hidden": bool(settings.get("hidden"))}


def _model_settings(estimators: Sequence[Estimator]) -> ModelSettings:
    backbones = []
    for one in estimators:
        model = one.settings["model"]
        backbones.append({"backbone": model["backbone"], "input_size": model["input_size"]})
        backbones += [{**beside, "weights": None} for beside in model.get("beside", [])]
    models = [one.settings["model"] for one in estimators]
    return ModelSettings(
        **backbones[0],
        beside=[BackboneSettings(**beside) for beside in backbones[1:]],
        dropout=max(model["dropout"] for model in models),
        # The mean over the mirror image is one of features, so it is for all or none.
        mirror=any(one.mirror for one in estimators),
    )


def _task_settings(estimators: Sequence[Estimator]) -> TasksSettings:
    settings = estimators[0].settings["tasks"]
    wide = {}
    for name, task in settings.items():
        if task is not None:
            hidden = sum((one.settings["tasks"][name] or {}).get("hidden", 0) for one in estimators)
            wide[name] = {**task, "hidden": hidden} if "hidden" in task else task
    return TasksSettings.model_validate({**settings, **wide})


def _heads(joined: Estimator) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in joined.state_dict().items() if not name.startswith("backbone.")]


def _merged(name: str, own: Tensor, states: Sequence[dict[str, Tensor]]) -> Tensor:
    """What the joined head called `name`, now `own`, takes from those of the others."""
    parts = [state[name] for state in states]
    hidden = ".hidden." in name
    if own.ndim == 2:
        # (outputs, features of each and then what tells the parents' probabilities); a hidden layer has outputs of its
        # own for each, and the layer after it no such columns.
        told = _told(own, parts)
        scale = 1.0 if hidden else 1 / len(parts)
        features = [part[:, : part.shape[1] - told] for part in parts]
        seen = torch.block_diag(*features) if hidden else torch.cat(features, dim=1) * scale
        rest = [part[:, part.shape[1] - told :] for part in parts]
        return torch.cat([seen, torch.cat(rest) if hidden else torch.stack(rest).mean(0)], dim=1)
    if hidden:
        return torch.cat(parts)
    return torch.stack([part.to(own.dtype) for part in parts]).mean(0)


def _told(own: Tensor, parts: Sequence[Tensor]) -> int:
    """How many columns of a layer are no features: each network has them once, and so has the joined one."""
    return (sum(part.shape[1] for part in parts) - own.shape[1]) // (len(parts) - 1)
