"""What the training loop costs beyond the network: its steps against a bare torch loop, on the same batches.

    python benchmarks/step.py [--backbone mobilefacenet | --beta-vae] [--batch 64] [--steps 8] [--pairs 5]

Both train the same network with the same losses, clipping and AdamW in fp32; rounds alternate, and the median of the
paired ratios is what counts on a machine that others use too. The loop also averages weights, checks every loss, keeps
account and writes curves. Both keep freed memory for the next step, as `mien train` does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from mien.faces import Crop, FaceBatch
from mien.memory import keep_freed
from mien.models.beta_vae import BetaVae
from mien.models.estimator import ModelSettings, build_estimator
from mien.objectives.base import Objective, Reduce
from mien.objectives.beta_vae import BetaVaeObjective
from mien.objectives.estimator import EstimatorObjective, EstimatorSettings
from mien.tasks.face import TasksSettings
from mien.training.loop import TrainingSettings, train
from mien.training.optim import OptimSettings, build_optimiser
from mien.training.recipe import load_recipe


class Fixed:
    """The same batches in every epoch."""

    def __init__(self, batches: list[FaceBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        return iter(self.batches[start:])


def timed(objective: Objective) -> list[float]:
    """Let an objective note the time at each epoch's start and after each step; it judges nothing, as bare loops do."""
    ticks: list[float] = []
    start_epoch, after_step = objective.start_epoch, objective.after_step

    def begin(epoch: int) -> None:
        start_epoch(epoch)
        ticks.append(time.perf_counter())

    def stepped(reduce: Reduce) -> None:
        after_step(reduce)
        ticks.append(time.perf_counter())

    objective.start_epoch, objective.after_step = begin, stepped  # type: ignore[method-assign]
    objective.validate = lambda averages: {objective.chooses[0]: 0.0}  # type: ignore[method-assign]
    return ticks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilefacenet")
    parser.add_argument("--beta-vae", action="store_true", help="the beta-VAE of utkface-beta-vae")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()

    keep_freed()
    torch.manual_seed(0)
    name, side, objective = _beta_vae(given) if given.beta_vae else _estimator(given)
    batches = [_batch(given.batch, side) for _ in range(given.steps)]
    optim = OptimSettings()
    ratios, ours, bare = [], [], []
    for pair in range(given.pairs + 1):
        # Who goes first changes, since the second finds the memory as the first left it.
        order = (_loop, _bare) if pair % 2 else (_bare, _loop)
        times = {which: which(objective(), batches, optim) for which in order}
        loop, plain = times[_loop], times[_bare]
        if pair:  # the first pair warms up
            ratios.append(loop / plain)
            ours.append(loop)
            bare.append(plain)
    loop = statistics.median(ours)
    print(
        f"{name}, batch {given.batch}, {side} px, {torch.get_num_threads()} threads: loop {1e3 * loop:.1f} ms a step "
        f"({given.batch / loop:.0f} faces/s), bare {1e3 * statistics.median(bare):.1f} ms; "
        f"ratio {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}] over {given.pairs} pairs"
    )


def _estimator(given: argparse.Namespace) -> tuple[str, int, Callable[[], Objective]]:
    estimator = build_estimator(ModelSettings(backbone=given.backbone), TasksSettings(), Crop("chip"))

    def objective() -> Objective:
        return EstimatorObjective(estimator, None, EstimatorSettings())  # type: ignore[arg-type]

    return given.backbone, estimator.input_size, objective


def _beta_vae(given: argparse.Namespace) -> tuple[str, int, Callable[[], Objective]]:
    recipe = load_recipe("utkface-beta-vae")
    assert recipe.beta_vae
    vae = BetaVae(recipe.beta_vae, Crop("chip"))
    ages = np.random.default_rng(0).uniform(0, 90, (1000, 1)).repeat(2, axis=1)

    def objective() -> Objective:
        return BetaVaeObjective(vae, None, recipe.beta_vae_objective, ages, 1000)  # type: ignore[arg-type]

    return "beta-VAE", vae.input_size, objective


def _batch(faces: int, side: int) -> FaceBatch:
    ages = torch.randint(0, 90, (faces, 1)).float().expand(-1, 2)
    labels = {"age": ages, "gender": torch.randint(0, 2, (faces,)), "race": torch.randint(0, 5, (faces,))}
    return FaceBatch(torch.randint(0, 256, (faces, 3, side, side), dtype=torch.uint8), labels, torch.arange(faces))


def _loop(objective: Objective, batches: list[FaceBatch], optim: OptimSettings) -> float:
    settings = TrainingSettings(epochs=1, batch=len(batches[0]), precision="fp32")
    ticks = timed(objective)
    with tempfile.TemporaryDirectory() as folder:
        train(objective, Fixed(batches), Path(folder), settings, optim, accelerator=Accelerator(cpu=True), show=False)
    return (ticks[len(batches)] - ticks[0]) / len(batches)


def _bare(objective: Objective, batches: list[FaceBatch], optim: OptimSettings) -> float:
    objective.start_epoch(0)
    ((player, network),) = objective.players.items()
    optimiser = build_optimiser(network, objective.depths(player), optim)
    weights = objective.weights(player)
    started = time.perf_counter()
    for step, batch in enumerate(batches):
        loss = torch.zeros(())
        for term, (total, count) in objective.losses(player, batch, step).items():
            loss = loss + weights[term] * total / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), optim.clip or 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return (time.perf_counter() - started) / len(batches)


if __name__ == "__main__":
    main()
