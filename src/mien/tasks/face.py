"""All tasks, each declared once, and how they are built and conditioned on each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails
from torch import Tensor

from mien.errors import MienError, unknown
from mien.faces import GENDERS, RACES
from mien.tasks.age import AgeSettings, AgeTask
from mien.tasks.base import Outputs, Task, TaskSettings
from mien.tasks.categorical import CategoricalSettings, CategoricalTask
from mien.tasks.continuous import ContinuousSettings, ContinuousTask
from mien.tasks.expression import ExpressionSettings, ExpressionTask


class GenderSettings(CategoricalSettings):
    """Gender, with seed 000's weight."""

    weight: float = Field(default=0.4, ge=0, description="weight of the loss")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of the label spread over all classes")


class RaceSettings(CategoricalSettings):
    """Race, told the gender, with seed 000's weight."""

    weight: float = Field(default=0.3, ge=0, description="weight of the loss")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of the label spread over all classes")
    given: list[str] = Field(default_factory=lambda: ["gender"], description="tasks it is told, of those switched on")


class NestedAgeSettings(AgeSettings):
    """Age, told gender and race: the nesting of seed 000."""

    given: list[str] = Field(
        default_factory=lambda: ["gender", "race"], description="tasks it is told, of those switched on"
    )


class Kind(NamedTuple):
    """What stands behind a task's name: the type of its settings, and what makes the task from (its settings, the
    features' length, the parents' total width)."""

    settings: type[TaskSettings]
    build: Callable[[Any, int, int], Task]


#: To add a task: a field of `TasksSettings` and its line here. A program that uses mien adds the line alone; a recipe
#: may then name the task.
TASKS: dict[str, Kind] = {
    "gender": Kind(GenderSettings, lambda *made: CategoricalTask("gender", GENDERS, *made)),
    "race": Kind(RaceSettings, lambda *made: CategoricalTask("race", RACES, *made)),
    "age": Kind(NestedAgeSettings, lambda *made: AgeTask("age", *made)),
    "expression": Kind(ExpressionSettings, lambda *made: ExpressionTask("expression", *made)),
    "valence": Kind(ContinuousSettings, lambda *made: ContinuousTask("valence", *made)),
    "arousal": Kind(ContinuousSettings, lambda *made: ContinuousTask("arousal", *made)),
}


class TasksSettings(BaseModel):
    """Which tasks are learnt; null switches one off (`tasks.race=null` is a race-free model).

    The nesting gender -> race -> age is a default: a task that is switched off drops out of it. A `given`
    that is written down is taken at its word, and naming a task that is off is then an error. Expression,
    valence and arousal join when they are named (`tasks.expression={}` takes their defaults), and so do those that
    a program has added to `TASKS`.
    """

    model_config = ConfigDict(extra="allow")

    gender: GenderSettings | None = Field(default_factory=GenderSettings)
    race: RaceSettings | None = Field(default_factory=RaceSettings)
    age: NestedAgeSettings | None = Field(default_factory=NestedAgeSettings)
    expression: ExpressionSettings | None = None
    valence: ContinuousSettings | None = None
    arousal: ContinuousSettings | None = None

    def on(self) -> dict[str, TaskSettings]:
        """The settings of the tasks that are switched on."""
        return {name: value for name in TASKS if (value := getattr(self, name, None)) is not None}

    @model_validator(mode="wrap")
    @classmethod
    def _added(cls, values: Any, rest: ModelWrapValidatorHandler[TasksSettings]) -> TasksSettings:
        """Check tasks that are no fields by `TASKS`; what stands there neither is an unknown setting."""
        added = {} if not isinstance(values, dict) else {k: v for k, v in values.items() if k not in cls.model_fields}
        faults: list[InitErrorDetails] = []
        for name, value in added.items():
            if name not in TASKS:
                faults.append({"type": "extra_forbidden", "loc": (name,), "input": value})
            elif isinstance(value, dict):
                try:
                    values = {**values, name: TASKS[name].settings.model_validate(value)}
                except ValidationError as error:
                    faults += [
                        {
                            "type": one["type"],
                            "loc": (name, *one["loc"]),
                            "input": one["input"],
                            "ctx": one.get("ctx", {}),
                        }
                        for one in error.errors()
                    ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return rest(values)

    @model_validator(mode="after")
    def _nest(self) -> TasksSettings:
        on = self.on()
        for name, settings in on.items():
            if "given" not in settings.model_fields_set:
                given = [parent for parent in settings.given if parent in on]
                told = settings.model_copy(update={"given": given})
                if name in type(self).model_fields:
                    object.__setattr__(self, name, told)
                else:  # an added task: pydantic keeps it apart, and writes it from there
                    assert self.__pydantic_extra__ is not None
                    self.__pydantic_extra__[name] = told
        return self


def build_tasks(settings: TasksSettings, features: int) -> dict[str, Task]:
    """The tasks that are switched on, parents before those that are `given` them; `features` is the length of
    the backbone's vector.

    Raises:
        MienError: no task is on; a `given` names an unknown task, one that is switched off, or closes a
        circle.
    """
    on = settings.on()
    if not on:
        raise MienError(f"no task is switched on; switch on one of {', '.join(f'tasks.{name}' for name in TASKS)}")
    for name, one in on.items():
        for parent in one.given:
            if parent not in TASKS:
                raise unknown("task", parent, TASKS, f"tasks.{name}.given")
            if parent not in on:
                rest = ", ".join(other for other in one.given if other in on)
                raise MienError(
                    f"tasks.{name} is given {parent}, which is switched off; switch tasks.{parent} on, or "
                    f"set tasks.{name}.given=[{rest}]"
                )
    try:
        order = list(TopologicalSorter({name: one.given for name, one in on.items()}).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise MienError(f"tasks are given each other in a circle: {circle}; take one out of a `given`") from None
    tasks: dict[str, Task] = {}
    for name in order:
        width = sum(tasks[parent].width for parent in on[name].given)
        tasks[name] = TASKS[name].build(on[name], features, width)
    return tasks


def run_tasks(tasks: Mapping[str, Task], features: Tensor) -> dict[str, Outputs]:
    """Every task's outputs from `features` (B, F), each told its parents' probabilities.

    `tasks` stands in the order of `build_tasks`; so do the outputs.
    """
    outputs: dict[str, Outputs] = {}
    for name, task in tasks.items():
        told = [tasks[parent].condition(outputs[parent]) for parent in task.given]
        if task.settings.detach_given:
            told = [values.detach() for values in told]
        outputs[name] = task(features, torch.cat(told, dim=1) if told else None)
    return outputs
