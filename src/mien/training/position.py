"""Where training stands, and what it takes to go on exactly from there."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mien.errors import MienError, unknown
from mien.files import write_json
from mien.models.checkpoint import read_json, read_pointer, read_tensors, save_tensors, write_pointer
from mien.objectives.base import Objective
from mien.training.optim import Average, OptimSettings, load_optimiser_state, optimiser_state


class Position:
    """Steps and epochs done, the best figure so far, the history, the rows of train that could not be read; saved with
    every checkpoint."""

    def __init__(self, better_is_lower: bool) -> None:
        self.better_is_lower = better_is_lower
        self.step = self.epoch = self.step_in_epoch = 0
        self.plateau = 1.0
        self.best: float | None = None
        self.best_step: int | None = None
        self.stale = self.plateau_stale = 0
        self.stopped = False
        self.history: list[dict[str, Any]] = []
        self.sums: dict[str, tuple[float, float]] = {}
        self.unreadable: dict[str, str] = {}

    def judge(self, figures: Mapping[str, float], name: str) -> bool:
        """Whether the epoch is the best so far. A figure that is NaN never is, but the first epoch always is."""
        if name not in figures:
            raise unknown("figure to choose by", name, figures)
        value = figures[name]
        if name.endswith("bias"):  # signed: the best is the nearest to 0
            value = abs(value)
        better = self.best is None or (value < self.best if self.better_is_lower else value > self.best)
        if not self.history or (math.isfinite(value) and better):
            self.best = value if math.isfinite(value) else None
            self.best_step = self.step
            self.stale = self.plateau_stale = 0
            return True
        self.stale += 1
        self.plateau_stale += 1
        return False

    def close_epoch(self, figures: Mapping[str, float], lr: float, seconds: float) -> dict[str, Any]:
        losses = {term: total / max(count, 1) for term, (total, count) in self.sums.items()}
        entry = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": lr,
            "seconds": round(seconds, 2),
            "train": losses,
            "select": dict(figures),
        }
        self.history.append(entry)
        self.epoch += 1
        self.step_in_epoch = 0
        self.sums = {}
        return entry

    def plan(self, optim: OptimSettings, stop_after: int | None, better: bool) -> None:
        if not better and self.plateau_stale > optim.plateau_patience:
            self.plateau *= optim.step_factor
            self.plateau_stale = 0
        self.stopped = stop_after is not None and self.stale >= stop_after

    def save(
        self,
        folder: Path,
        objective: Objective,
        optimisers: Mapping[str, torch.optim.Optimizer],
        averages: Mapping[str, Average],
        scaler: Any,
        keep: int,
        best: bool = False,
    ) -> None:
        """Write a checkpoint; it counts once the pointer `last` names it."""
        checkpoints = folder / "checkpoints"
        here = checkpoints / f"step-{self.step}"
        tensors: dict[str, Tensor] = {}
        for name, network in objective.players.items():
            tensors.update({f"{name}/weights/{key}": value for key, value in network.state_dict().items()})
            tensors.update({f"{name}/optim/{key}": value for key, value in optimiser_state(optimisers[name]).items()})
            if name in averages:
                tensors.update({f"{name}/average/{key}": value for key, value in averages[name].weights.items()})
        save_tensors(here / "training.safetensors", tensors)
        facts = {key: value for key, value in vars(self).items() if key != "better_is_lower"}
        facts["averages"] = {name: average.steps for name, average in averages.items()}
        facts["objective"] = objective.state_dict()
        facts["scaler"] = scaler.state_dict() if scaler else None
        write_json(here / "training.json", facts)
        objective.save_model(here, {name: average.weights for name, average in averages.items()})
        if best:
            write_pointer(checkpoints, "best", here.name)
        write_pointer(checkpoints, "last", here.name)
        _prune(checkpoints, keep)

    def load(
        self,
        folder: Path,
        objective: Objective,
        optimisers: Mapping[str, torch.optim.Optimizer],
        averages: Mapping[str, Average],
        scaler: Any,
    ) -> None:
        """Go on from the checkpoint that `last` names; from the beginning when none was finished yet."""
        if not (folder / "checkpoints" / "last").is_file():
            return
        checkpoints = folder / "checkpoints"
        elsewhere = f"to go on from an earlier checkpoint, write the name of its folder to {checkpoints / 'last'}"
        here = read_pointer(checkpoints, "last")
        try:
            tensors = read_tensors(here / "training.safetensors")
        except MienError as error:
            raise MienError(f"{error}: {elsewhere}") from None
        facts = read_json(here / "training.json", elsewhere)

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        for name, network in objective.players.items():
            network.load_state_dict(part(f"{name}/weights/"))
            load_optimiser_state(optimisers[name], part(f"{name}/optim/"))
            if name in averages:
                for key, value in part(f"{name}/average/").items():
                    averages[name].weights[key].copy_(value)
                averages[name].steps = facts["averages"][name]
        objective.load_state_dict(facts.pop("objective"))
        if scaler and facts["scaler"]:
            scaler.load_state_dict(facts["scaler"])
        facts.pop("scaler")
        facts.pop("averages")
        for key, value in facts.items():
            setattr(self, key, value)
        # A run killed between the writing of a checkpoint and that of the pointer to it.
        best = f"step-{self.best_step}"
        if (checkpoints / best).is_dir():
            write_pointer(checkpoints, "best", best)


def _prune(checkpoints: Path, keep: int) -> None:
    kept = {(checkpoints / name).read_text().strip() for name in ("best", "last") if (checkpoints / name).is_file()}
    folders = sorted(checkpoints.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
    for folder in folders[:-keep]:
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
