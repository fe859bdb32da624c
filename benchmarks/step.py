"""What the training loop costs beyond the network: its steps against a bare torch loop, on the same batches.

    python benchmarks/step.py [--backbone mobilefacenet] [--batch 64] [--steps 8] [--pairs 5]

Both train the same network with the same losses, clipping and AdamW in fp32; rounds alternate, and the median of the
paired ratios is what counts on a machine that others use too. The loop also averages weights, checks every loss, keeps
account and writes curves. Both keep freed memory for the next step, as `mien train` does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator

from mien.faces import Crop, FaceBatch
from mien.memory import keep_freed
from mien.models.estimator import Estimator, ModelSettings, build_estimator
from mien.objectives.base import Reduce
from mien.objectives.estimator import EstimatorObjective, EstimatorSettings
from mien.tasks.face import TasksSettings
from mien.training.loop import TrainingSettings, train
from mien.training.optim import OptimSettings, build_optimiser


class Fixed:
    """The same batches in every epoch."""

    def __init__(self, batches: list[FaceBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        return iter(self.batches[start:])


class Timed(EstimatorObjective):
    """Notes the time after each step; judging is left out, as the bare loop judges nothing."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__(estimator, None, EstimatorSettings())  # type: ignore[arg-type]
        self.ticks: list[float] = []

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.ticks.append(time.perf_counter())

    def after_step(self, reduce: Reduce) -> None:
        super().after_step(reduce)
        self.ticks.append(time.perf_counter())

    def validate(self, averages: object) -> dict[str, float]:
        return {"age/mae": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilefacenet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()

    keep_freed()
    torch.manual_seed(0)
    estimator = build_estimator(ModelSettings(backbone=given.backbone), TasksSettings(), Crop("chip"))
    batches = [_batch(given.batch, estimator.input_size) for _ in range(given.steps)]
    optim = OptimSettings()
    ratios, ours, bare = [], [], []
    for pair in range(given.pairs + 1):
        # Who goes first changes, since the second finds the memory as the first left it.
        order = (_loop, _bare) if pair % 2 else (_bare, _loop)
        times = {which: which(estimator, batches, optim) for which in order}
        loop, plain = times[_loop], times[_bare]
        if pair:  # the first pair warms up
            ratios.append(loop / plain)
            ours.append(loop)
            bare.append(plain)
    print(
        f"{given.backbone}, batch {given.batch}, {torch.get_num_threads()} threads: "
        f"loop {1e3 * statistics.median(ours):.1f} ms a step, bare {1e3 * statistics.median(bare):.1f} ms; "
        f"ratio {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}] over {given.pairs} pairs"
    )


def _batch(faces: int, side: int) -> FaceBatch:
    ages = torch.randint(0, 90, (faces, 1)).float().expand(-1, 2)
    labels = {"age": ages, "gender": torch.randint(0, 2, (faces,)), "race": torch.randint(0, 5, (faces,))}
    return FaceBatch(torch.randint(0, 256, (faces, 3, side, side), dtype=torch.uint8), labels, torch.arange(faces))


def _loop(estimator: Estimator, batches: list[FaceBatch], optim: OptimSettings) -> float:
    objective = Timed(estimator)
    settings = TrainingSettings(epochs=1, batch=len(batches[0]), precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        train(objective, Fixed(batches), Path(folder), settings, optim, accelerator=Accelerator(cpu=True), show=False)
    return (objective.ticks[len(batches)] - objective.ticks[0]) / len(batches)


def _bare(estimator: Estimator, batches: list[FaceBatch], optim: OptimSettings) -> float:
    objective = EstimatorObjective(estimator, None, EstimatorSettings())  # type: ignore[arg-type]
    optimiser = build_optimiser(estimator, objective.depths("estimator"), optim)
    weights = objective.weights("estimator")
    estimator.train()
    started = time.perf_counter()
    for batch in batches:
        outputs = estimator(batch.images, batch.landmarks)
        loss = torch.zeros(())
        for name in estimator.tasks:
            for term, (total, count) in estimator.task(name).losses(outputs[name], batch.labels[name]).items():
                loss = loss + weights[f"{name}/{term}"] * total / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(estimator.parameters(), optim.clip or 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return (time.perf_counter() - started) / len(batches)


if __name__ == "__main__":
    main()
