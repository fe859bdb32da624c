"""Recipes: one YAML or JSON an experiment. Each setting's type sits in the file of what it sets; here they compose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mien.data.loading import Picture
from mien.data.sampling import Sampling
from mien.data.transforms import AugmentSettings
from mien.errors import MienError, nearest, unknown
from mien.models.age_flow import AgeFlowSettings
from mien.models.age_transformer import AgeTransformerSettings
from mien.models.beta_vae import BetaVaeSettings
from mien.models.estimator import ModelSettings
from mien.models.landmarker import LandmarkerSettings
from mien.objectives.ageing_settings import AgeTransformerObjectiveSettings
from mien.objectives.beta_vae_settings import BetaVaeObjectiveSettings
from mien.objectives.estimator import EstimatorSettings
from mien.tasks.face import TasksSettings
from mien.training.loop import TrainingSettings
from mien.training.optim import OptimSettings


class DataSettings(BaseModel):
    """Which faces are learnt from, and which choose, calibrate and report."""

    model_config = ConfigDict(extra="forbid")

    faces: str | list[str] | None = Field(default=None, description="a manifest, or several that are joined")
    root: str | None = Field(default=None, description="where the pictures are, if they moved")
    train: str = "train"
    select: str = "select"
    allow_relabelled: bool = Field(
        default=False, description="judge the run on val and test although their ages are those of `mien relabel`"
    )
    picture: Picture = Field(
        default="original",
        description="what is learnt from where `mien enhance` made a better picture: original, enhanced or both",
    )
    workers: int | None = Field(
        default=None, ge=0, description="processes that read pictures; by default from the cores"
    )


class Recipe(BaseModel):
    """Everything that decides what a run does. `record` is written by the run and ignored when read back.

    With `landmarker` a landmarker learns, with `beta_vae` a beta-VAE by its `beta_vae_objective`, with
    `age_transformer` an AgeTransformer by its `age_transformer_objective`, with `age_flow` an age flow; then `model`,
    `tasks` and `objective`, which are an estimator's, are not looked at, but for `model.init`: another network of the
    kind to start from, built alike.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = "run"
    seed: int = Field(default=0, ge=-(1 << 63), lt=1 << 64)
    data: DataSettings = DataSettings()
    sampling: Sampling = Sampling()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    tasks: TasksSettings = TasksSettings()
    objective: EstimatorSettings = EstimatorSettings()
    landmarker: LandmarkerSettings | None = None
    beta_vae: BetaVaeSettings | None = None
    beta_vae_objective: BetaVaeObjectiveSettings = BetaVaeObjectiveSettings()
    age_transformer: AgeTransformerSettings | None = None
    age_transformer_objective: AgeTransformerObjectiveSettings = AgeTransformerObjectiveSettings()
    age_flow: AgeFlowSettings | None = None
    captions: str | None = Field(default=None, description="a cache of captions, which the AgeTransformer may read")
    language: str | None = Field(
        default=None,
        description="what makes vectors of captions and of ages in words: hashed, or a folder of CLIP or a text model",
    )
    optim: OptimSettings = OptimSettings()
    training: TrainingSettings = TrainingSettings()
    record: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_network(self) -> Recipe:
        named = [name for name in ("landmarker", "beta_vae", "age_transformer", "age_flow") if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are {len(named)} networks; a run trains one of them")
        if (self.captions or self.language) and not self.age_transformer:
            told = " and ".join(name for name in ("captions", "language") if getattr(self, name))
            raise ValueError(f"{told} would not be looked at: no network but an age_transformer reads text")
        if self.optim.warmup_epochs > self.training.epochs:
            raise ValueError(
                f"optim.warmup_epochs {self.optim.warmup_epochs:g} is more than training.epochs "
                f"{self.training.epochs}: the learning rate would never be reached"
            )
        return self


def recipe_folder() -> Path:
    """Where the recipes that come with the package are: beside its code when installed, else in the checkout."""
    here = Path(__file__).resolve().parents[1]
    return here / "recipes" if (here / "recipes").is_dir() else here.parents[1] / "recipes"


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or of a shipped name, with `key=value` overrides on top.

    A value is read as YAML: `training.epochs=3`, `tasks.race=null`, `model.backbone=resnet18`, `tasks.age.given=[]`.

    Raises:
        MienError: no such recipe, or settings that are unknown or of a wrong type; all of them in one line.
    """
    path = Path(source)
    if not path.is_file():
        shipped = {file.stem: file for file in sorted(recipe_folder().glob("*.yaml"))}
        if str(source) not in shipped:
            raise unknown("recipe", str(source), shipped, "recipes/; as a file it does not exist either")
        path = shipped[str(source)]
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MienError(f"{path}: cannot be read as a recipe: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise MienError(f"{path}: a recipe is a table of settings, this is {type(values).__name__}")
    values.setdefault("name", path.stem)
    for override in overrides:
        _override(values, override)
    return check_recipe(values, str(path))


def check_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Validate a table of settings; every fault is named in one error."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = [_fault(dict(item)) for item in error.errors()]
        raise MienError(f"{where}: " + "; ".join(dict.fromkeys(faults))) from None


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise MienError(f"override {override!r}: expected key=value, such as training.epochs=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise MienError(f"override {override!r}: the value is not YAML; quote it") from None
    # YAML 1.1 reads 1e-3 as a word.
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            pass
    *parents, last = key.split(".")
    table = values
    for parent in parents:
        inner = table.get(parent)
        if not isinstance(inner, dict):
            # `augment: faces` names a preset; what is set in it starts from that.
            inner = table[parent] = {"preset": inner} if isinstance(inner, str) else {}
        table = inner
    table[last] = value


def _fault(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        parent, _, word = place.rpartition(".")
        known = _keys_at(parent)
        return f"unknown setting {place}{nearest(word, known)}" + (f" (known: {', '.join(known)})" if known else "")
    told = error["msg"].removeprefix("Value error, ")
    told = f"{told[0].lower()}{told[1:]}"
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        # Of several settings together, which the message names: the whole table would drown it.
        return f"{place}: {told}" if place else told
    return f"{place} = {error['input']!r}: {told}"


def _keys_at(place: str) -> list[str]:
    """The names of the settings in the table at a dotted `place` of a recipe."""
    model: Any = Recipe
    for part in place.split(".") if place else []:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            return []
        model = _model_in(field.annotation)
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    candidates: Iterable[Any] = (annotation, *get_args(annotation))
    return next((item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), None)
