"""The estimator: pictures to an output for each of its tasks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import Crop
from mien.models.backbone import Backbone, Joined, build_backbone
from mien.models.landmarks import LandmarkBranch, mirrored
from mien.models.met import Met
from mien.tasks.base import Outputs, State, Task
from mien.tasks.face import TasksSettings, build_tasks, run_tasks


class BackboneSettings(BaseModel):
    """One backbone."""

    model_config = ConfigDict(extra="forbid")

    backbone: str = Field(default="mobilefacenet", description="mobilefacenet, or any architecture of timm")
    weights: str | None = Field(default=None, description="a file of backbone weights, or `hub` to download timm's")
    input_size: int | None = Field(default=None, ge=16, le=1024, description="pixels; the backbone's own if left out")


class ModelSettings(BackboneSettings):
    """What network learns, and from where it starts."""

    init: str | None = Field(
        default=None,
        description="a run, checkpoint or shipped model to start from; heads are matched by name",
    )
    beside: list[BackboneSettings] = Field(
        default_factory=list, description="further backbones beside the first; `mien join` makes such networks of runs"
    )
    dropout: float = Field(default=0.2, ge=0, lt=1, description="dropout on the features")
    mirror: bool = Field(
        default=False,
        description="judge and predict from the mean features of a face and its mirror image: twice the time",
    )
    landmarks: bool = Field(default=False, description="read a face's 68 landmarks too, where they are known")
    landmark_dropout: float = Field(
        default=0.3, ge=0, lt=1, description="share of the training faces whose landmarks are withheld"
    )
    freeze_backbone: bool | int = Field(
        default=False,
        ge=0,
        description="true: the backbone never learns; a number: it starts to learn after so many epochs",
    )


class Estimator(nn.Module):
    """A backbone and the heads of its tasks.

    `states` holds what each task fitted on held-out faces (blend, temperature, conformal quantiles) and `decode`
    uses it. `crop` is how the faces sat in the pictures it learnt from. `calibrated_on` names the faces of `states`:
    `{"manifest": hash, "split": name, ...}`. `learnt` tells its training faces, None where they are not known.
    """

    def __init__(
        self,
        backbone: Backbone | Joined,
        tasks: Mapping[str, Task],
        dropout: float,
        crop: Crop,
        mirror: bool = False,
        branch: LandmarkBranch | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.mirror = mirror
        self.branch = branch
        self.dropout = nn.Dropout(dropout)
        self.tasks = nn.ModuleDict(dict(tasks))
        self.crop = crop
        self.states: dict[str, State] = {}
        self.calibrated_on: dict[str, str] = {}
        self.learnt: Met | None = None
        self.name = ""
        #: What builds this network again, {"model": ..., "tasks": ...}; of a trained one "augment" and "splits" too.
        self.settings: dict[str, Any] = {}
        #: Terms, training data and figures, as shipped models carry them.
        self.card: dict[str, Any] = {}

    @property
    def input_size(self) -> int:
        """Side in pixels of the pictures the network sees."""
        return self.backbone.input_size

    @property
    def backbone_names(self) -> list[str]:
        """The architecture of each of its backbones."""
        model = self.settings["model"]
        return [model["backbone"], *(one["backbone"] for one in model.get("beside", []))]

    def task(self, name: str) -> Task:
        """One of its tasks.

        Raises:
            MienError: it has not learnt that one.
        """
        if name not in self.tasks:
            raise MienError(f"{self.name} does not tell {name}, only {', '.join(self.tasks)}; name a model that does")
        return cast(Task, self.tasks[name])

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, Outputs]:
        """Uint8 or float [0, 1] pictures (B, 3, H, W) to `{task: {output: tensor}}`.

        `landmarks` is (B, 68, 2) float32 in pixels of `images`, NaN where unknown; None: all are. A network
        without a landmark branch does not look at them.
        """
        features = self.features(images, landmarks)
        if self.mirror and not self.training:
            flipped = None if landmarks is None else mirrored(landmarks, images.shape[-1])
            features = (features + self.features(images.flip(-1), flipped)) / 2
        return self.heads(features)

    def features(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """What the heads see of a picture and its landmarks, (B, F), before dropout."""
        features = self.backbone(images)
        return features if self.branch is None else self.branch(features, landmarks)

    def heads(self, features: Tensor) -> dict[str, Outputs]:
        """Features (B, F) to `{task: {output: tensor}}`; parents come before the tasks that are given them."""
        return run_tasks({name: self.task(name) for name in self.tasks}, self.dropout(features))

    def decode(self, outputs: Mapping[str, Outputs]) -> dict[str, np.ndarray]:
        """Outputs to the columns of a predictions table, (B,) each."""
        columns: dict[str, np.ndarray] = {}
        for name, output in outputs.items():
            columns.update(self.task(name).decode(output, self.states.get(name, {})))
        return columns

    @torch.inference_mode()
    def predict(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, np.ndarray]:
        """Decoded columns for one batch of `forward`'s arguments; the network is used as in evaluation."""
        training = self.training
        self.eval()
        try:
            return self.decode(self(images, landmarks))
        finally:
            self.train(training)


def weights_hash(estimator: Estimator) -> str:
    """sha256 over the weights and what decoding uses: two estimators with one hash answer alike."""
    crop = Crop(estimator.crop.template, estimator.crop.margin, estimator.input_size)
    built = estimator.settings  # empty for one that was put together by hand
    model = _without_paths(built.get("model", {}))
    facts = {"crop": crop.to_dict(), "states": estimator.states, "model": model, "tasks": built.get("tasks", {})}
    return fingerprint(estimator, facts)


def _without_paths(model: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a network without the files that it once started from."""
    kept = {key: value for key, value in model.items() if key not in ("weights", "init")}
    if "beside" in kept:
        kept["beside"] = [_without_paths(one) for one in kept["beside"]]
    return kept


def fingerprint(network: nn.Module, facts: Mapping[str, Any]) -> str:
    """sha256 over a network's weights and the JSON of `facts`."""
    return digest_with(network, json.dumps(facts, sort_keys=True, default=str))


def digest_with(network: nn.Module, about: str) -> str:
    """sha256 over a text and a network's weights."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def build_estimator(model: ModelSettings, tasks: TasksSettings, crop: Crop, load: bool = True) -> Estimator:
    """An estimator with starting weights as `model` says; `load=False` leaves them random (a checkpoint follows)."""
    parts = [
        build_backbone(one.backbone, one.weights if load else None, one.input_size) for one in [model, *model.beside]
    ]
    backbone = Joined(parts) if model.beside else parts[0]
    built = build_tasks(tasks, backbone.features)
    branch = LandmarkBranch(backbone.features, model.landmark_dropout) if model.landmarks else None
    estimator = Estimator(backbone, built, model.dropout, crop, model.mirror, branch)
    estimator.settings = {"model": model.model_dump(mode="json"), "tasks": tasks.model_dump(mode="json")}
    return estimator


def start_from(estimator: Estimator, other: Estimator) -> list[str]:
    """Copy the weights of `other` where name, shape and meaning agree, and return the names that did not find a match.

    Class weights stay: they are settings of the one run, nothing that was learnt. A head of a task that is given other
    tasks, has a hidden layer more or less, or reads ages from another grid or in another way, begins anew.

    Raises:
        MienError: the two have different backbones.
    """
    own, given = (
        {key: value for key, value in one.state_dict().items() if not key.endswith(".class_weights")}
        for one in (estimator, other)
    )
    foreign = tuple(
        f"tasks.{name}."
        for name in estimator.tasks
        if name in other.tasks and not estimator.task(name).means_the_same(other.task(name))
    )
    fitting = {
        key: value
        for key, value in given.items()
        if key in own and own[key].shape == value.shape and not key.startswith(foreign)
    }
    backbone = [key for key in own if key.startswith("backbone.") and key not in fitting]
    if backbone:
        given_names, own_names = (" and ".join(one.backbone_names) for one in (other, estimator))
        raise MienError(
            f"model.init {other.name or given_names}: its backbone is {given_names}, this recipe's is {own_names}; "
            "give both the same model.backbone and model.beside"
        )
    estimator.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def seen_otherwise(estimator: Estimator, other: Estimator) -> str:
    """The settings by which `other` sees faces otherwise than `estimator` does with the same weights; empty: none."""
    told = []
    if estimator.input_size != other.input_size:
        told.append(f"model.input_size={other.input_size}")
    if estimator.mirror != other.mirror:
        told.append(f"model.mirror={str(other.mirror).lower()}")
    return " ".join(told)
