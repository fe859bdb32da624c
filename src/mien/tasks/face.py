"""All tasks, each declared once, and how they are built and conditioned on each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from mien.errors import MienError, unknown
from mien.faces import GENDERS, RACES
from mien.tasks.age import AgeSettings, AgeTask
from mien.tasks.base import Outputs, Task, TaskSettings
from mien.tasks.categorical import CategoricalSettings, CategoricalTask


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


#: Each task's name and how it is made from (its settings, the features' length, the parents' total width).
TASKS: dict[str, Callable[[Any, int, int], Task]] = {
    "gender": lambda settings, features, given: CategoricalTask("gender", GENDERS, settings, features, given),
    "race": lambda settings, features, given: CategoricalTask("race", RACES, settings, features, given),
    "age": lambda settings, features, given: AgeTask("age", settings, features, given),
}


class TasksSettings(BaseModel):
    """Which tasks are learnt; null switches one off (`tasks.race=null` is a race-free model).

    The nesting gender -> race -> age is a default: a task that is switched off drops out of it. A `given`
    that is written down is taken at its word, and naming a task that is off is then an error.
    """

    model_config = ConfigDict(extra="forbid")

    gender: GenderSettings | None = Field(default_factory=GenderSettings)
    race: RaceSettings | None = Field(default_factory=RaceSettings)
    age: NestedAgeSettings | None = Field(default_factory=NestedAgeSettings)

    def on(self) -> dict[str, TaskSettings]:
        """The settings of the tasks that are switched on."""
        return {name: value for name in TASKS if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _nest(self) -> TasksSettings:
        on = self.on()
        for name, settings in on.items():
            if "given" not in settings.model_fields_set:
                given = [parent for parent in settings.given if parent in on]
                object.__setattr__(self, name, settings.model_copy(update={"given": given}))
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
        tasks[name] = TASKS[name](on[name], features, width)
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
