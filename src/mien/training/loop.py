"""The training loop: one function for estimators, VAEs and GANs, on one process or many. It knows no task."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import FaceBatch
from mien.files import write_json
from mien.objectives.base import Objective
from mien.progress import Progress, clock, wait_for
from mien.training.optim import Average, OptimSettings, build_optimiser, rate_at, set_rate
from mien.training.position import Position

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


class TrainingSettings(BaseModel):
    """How long and in what steps."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(default=12, ge=1)
    batch: int = Field(default=64, ge=1, description="faces a step, over all processes and accumulated micro-batches")
    accumulate: int = Field(default=1, ge=1, description="micro-batches a step")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    average: float | None = Field(default=0.998, gt=0, lt=1, description="decay of the averaged weights; null: none")
    stop_after: int | None = Field(default=None, ge=1, description="stop after so many epochs without a better figure")
    save_every: int | None = Field(default=None, ge=1, description="save after so many steps too, not only each epoch")
    keep: int = Field(default=2, ge=1, description="how many of the last checkpoints stay, beside the best")


#: The faces of a run whose pictures cannot be read, by split, with reasons.
UNREADABLE = "unreadable.json"


class Batches(Protocol):
    """What the loop reads: a loader of faces. `rejected` holds the rows that could not be read, with reasons."""

    rejected: dict[int, str]

    def __len__(self) -> int: ...
    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]: ...


class BrokenLossError(MienError):
    """A loss that is no number stopped the training."""


def train(
    objective: Objective,
    batches: Batches,
    folder: Path,
    training: TrainingSettings,
    optim: OptimSettings,
    *,
    accelerator: Accelerator,
    seed: int = 0,
    resume: bool = False,
    faces: Any = None,
    show: bool = True,
) -> list[dict[str, Any]]:
    """Train until the epochs are over or nothing gets better, and return the history, an entry an epoch.

    Checkpoints, `history.json` and TensorBoard files go to `folder`, and `unreadable.json` where pictures cannot be
    read. Each loss term is divided by its count over all processes and the window of accumulation, so the batch may be
    cut in any way. Everything random in a step comes from (seed, step), so a resumed run ends with the weights of an
    unbroken one.

    Args:
        faces: maps rows to readable names of faces, for the record of a batch that broke.

    Raises:
        BrokenLossError: a loss is not finite; `broken.json` says at which step, in which term and for which faces.
    """
    rank = accelerator.process_index
    steps_per_epoch = len(batches) // training.accumulate
    if steps_per_epoch == 0:
        raise MienError(
            f"training.batch {training.batch}: the training split fills {len(batches)} micro-batches, fewer than "
            f"training.accumulate {training.accumulate}; lower either"
        )

    # Players, their optimisers and averages.
    players = objective.players
    for network in players.values():
        network.to(accelerator.device)
        _make_alike(network)
    optimisers = {name: build_optimiser(net, objective.depths(name), optim) for name, net in players.items()}
    averages = {name: Average(net, training.average) for name, net in players.items()} if training.average else {}
    scaler = accelerator.scaler

    # Where an earlier run stopped.
    state = Position(better_is_lower=objective.chooses[1])
    if resume:
        state.load(folder, objective, optimisers, averages, scaler)
    writer = _tensorboard(folder, state.step) if rank == 0 else None
    total, lost = training.epochs * steps_per_epoch, 0

    with Progress(total, "steps", "training", show=show and rank == 0) as progress:
        progress.skip(state.step)
        while state.epoch < training.epochs and not state.stopped:
            objective.start_epoch(state.epoch)
            # A run killed while it was judged resumes behind its epoch's last step.
            lr = _rate(optim, max(state.step - 1, 0), steps_per_epoch, training, state)
            started = time.monotonic()
            stream = batches.epoch(state.epoch, start=state.step_in_epoch * training.accumulate)
            while state.step_in_epoch < steps_per_epoch:
                window = [next(stream).to(accelerator.device) for _ in range(training.accumulate)]
                torch.manual_seed(hash((seed, state.step, rank)) & 0x7FFFFFFF)
                lr = _rate(optim, state.step, steps_per_epoch, training, state)
                found: dict[str, tuple[float, float]] = {}
                for name in players:
                    set_rate(optimisers[name], lr)
                    terms = _move(objective, name, optimisers[name], window, state.step, optim.clip, accelerator)
                    found.update({f"{name}/{term}" if len(players) > 1 else term: v for term, v in terms.items()})
                    if name in averages:
                        averages[name].update(players[name])
                _check(found, window, state.step, folder, faces)
                objective.after_step(lambda tensor: _reduce(tensor, accelerator.device))

                # Keep account.
                for term, (total_loss, count) in found.items():
                    loss, faces_seen = state.sums.get(term, (0.0, 0.0))
                    state.sums[term] = (loss + total_loss, faces_seen + count)
                state.step += 1
                state.step_in_epoch += 1
                progress.advance(1, note=_note(found))
                if writer is not None and state.step % 20 == 0:
                    for term, (total_loss, count) in found.items():
                        writer.add_scalar(f"train/{term}", total_loss / max(count, 1), state.step)
                    writer.add_scalar("train/lr", lr, state.step)
                if training.save_every and state.step % training.save_every == 0:
                    state.unreadable |= _unreadable(batches)
                    if rank == 0:
                        state.save(folder, objective, optimisers, averages, scaler, training.keep)

            # The epoch is over: judge, record, save, perhaps stop.
            with accelerator.autocast():
                figures = objective.validate({name: average.weights for name, average in averages.items()})
            # Processes differ in what their normalisation has seen; one word counts, or some would stop and others not.
            figures = _of_the_first(figures)
            better = state.judge(figures, objective.chooses[0])
            entry = state.close_epoch(figures, lr, time.monotonic() - started)
            state.plan(optim, training.stop_after, better)
            state.unreadable |= _unreadable(batches)
            gone = {
                "train": sorted(state.unreadable.values()),
                "select": sorted(objective.select.rejected.values()) if objective.select is not None else [],
            }
            if any(gone.values()):
                entry["unreadable"] = {split: len(reasons) for split, reasons in gone.items()}
            if rank == 0:
                if sum(map(len, gone.values())) > lost:
                    lost = sum(map(len, gone.values()))
                    write_json(folder / UNREADABLE, gone)
                    progress.tell(
                        f"{len(gone['train']):,} pictures of train, in whose place others were shown, and "
                        f"{len(gone['select']):,} of select cannot be read: {folder / UNREADABLE}"
                    )
                state.save(folder, objective, optimisers, averages, scaler, training.keep, best=better)
                write_json(folder / "history.json", state.history)
                _log(writer, objective, entry, state.step)
                progress.advance(0, note=_summary(entry, objective.chooses[0]))
    if rank == 0 and state.history:  # a run killed before it wrote this has nothing left to do but that
        write_json(folder / "history.json", state.history)
    if writer is not None:
        writer.close()
    return state.history


def estimate(objective: Objective, batches: Batches, training: TrainingSettings, accelerator: Accelerator) -> float:
    """Seconds that the training steps will take, from two passes over one batch; nothing is learnt from them."""
    player = next(iter(objective.players))
    for other in objective.players.values():  # the one's losses ask the others
        other.to(accelerator.device)
    network = objective.players[player]
    kept = {name: value.detach().clone() for name, value in network.state_dict().items()}
    remembered = objective.state_dict()
    objective.start_epoch(0)
    batch = next(batches.epoch(0)).to(accelerator.device)
    seconds = math.inf
    for _ in range(2):
        wait_for(accelerator.device)
        started = time.monotonic()
        with accelerator.autocast():
            terms = objective.losses(player, batch, 0)
        loss = sum((total for total, _ in terms.values()), torch.zeros((), device=accelerator.device))
        if loss.requires_grad:
            loss.backward()
        wait_for(accelerator.device)
        seconds = min(seconds, time.monotonic() - started)
    network.zero_grad(set_to_none=True)
    network.load_state_dict(kept)
    objective.load_state_dict(remembered)
    return seconds * len(batches) * training.epochs * len(objective.players)


def _rate(optim: OptimSettings, step: int, steps_per_epoch: int, training: TrainingSettings, state: Position) -> float:
    return optim.lr * rate_at(optim, step, steps_per_epoch, training.epochs, state.plateau)


def _shared() -> bool:
    """Whether other processes train with this one."""
    return dist.is_available() and dist.is_initialized()


def _of_the_first(figures: dict[str, float]) -> dict[str, float]:
    """The figures that the first process found."""
    if not _shared():
        return figures
    told = [figures]
    dist.broadcast_object_list(told)
    return told[0]


def _of_all(items: list[T]) -> list[T]:
    """What all processes found, each at its own faces, one after another."""
    if not _shared():
        return items
    parts: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def _unreadable(batches: Batches) -> dict[str, str]:
    """The rows that any process could not read, each with its reason."""
    return dict(_of_all([(str(row), reason) for row, reason in batches.rejected.items()]))


def _move(
    objective: Objective,
    player: str,
    optimiser: torch.optim.Optimizer,
    window: list[FaceBatch],
    step: int,
    clip: float | None,
    accelerator: Accelerator,
) -> dict[str, tuple[float, float]]:
    """One step of one player; the sum and the count of each loss term over all processes."""
    network = objective.players[player]
    weights = {term: weight for term, weight in objective.weights(player).items() if weight}
    order = sorted(weights)

    # How many faces each term speaks of, everywhere.
    local = torch.zeros(len(order), dtype=torch.float64)
    for batch in window:
        counted = objective.counts(player, batch)
        local += torch.tensor([counted.get(term, 0) for term in order], dtype=torch.float64)
    counts = dict(zip(order, _reduce(local, accelerator.device).tolist(), strict=True))

    # Accumulate gradients.
    sums = torch.zeros(len(order), dtype=torch.float64)
    for batch in window:
        with accelerator.autocast():
            terms = objective.losses(player, batch, step)
        parts = [weights[term] * terms[term][0] / counts[term] for term in order if term in terms and counts[term]]
        present = [place for place, term in enumerate(order) if term in terms]
        if present:
            # Added up beside the device: Apple's has no double precision.
            sums[present] += torch.stack([terms[order[place]][0].detach().float() for place in present]).cpu().double()
        if parts:
            loss = torch.stack([part.float() for part in parts]).sum()
            if loss.requires_grad:
                accelerator.scaler.scale(loss).backward() if accelerator.scaler else loss.backward()

    # Share them, clip, move. A parameter that no face spoke for keeps grad None and is not moved, decay included.
    _share_gradients(network)
    spoken = any(parameter.grad is not None for parameter in network.parameters())
    if accelerator.scaler and spoken:
        accelerator.scaler.unscale_(optimiser)
    norm = float(nn.utils.clip_grad_norm_(network.parameters(), clip or math.inf))
    totals = _reduce(sums, accelerator.device).tolist()
    found = {term: (total, counts[term]) for term, total in zip(order, totals, strict=True) if counts[term]}
    if accelerator.scaler and spoken:
        # fp16 gradients overflow now and then by design; the scaler leaves such a step out and scales down.
        accelerator.scaler.step(optimiser)
        accelerator.scaler.update()
    elif math.isfinite(norm):
        optimiser.step()
    elif all(math.isfinite(total) for total, _ in found.values()):
        found["gradient"] = (norm, 1)
    optimiser.zero_grad(set_to_none=True)
    return found


def _make_alike(network: nn.Module) -> None:
    """Give every process the first one's weights: what is fitted to faces before training, each fits to its own."""
    if _shared():
        for value in network.state_dict().values():
            dist.broadcast(value, 0)


def _reduce(tensor: Tensor, device: torch.device) -> Tensor:
    """The sum over all processes, which talk from `device`; on the tensor's own device."""
    if not _shared():
        return tensor
    shared = tensor.to(device, copy=True)
    dist.all_reduce(shared)
    return shared.to(tensor.device)


def _share_gradients(network: nn.Module) -> None:
    """Sum the gradients of all processes in one flat all-reduce, as StyleGAN3's published loop does."""
    if not _shared():
        return
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=parameters[0].device)
    dist.all_reduce(present)
    moving = [p for p, n in zip(parameters, present.tolist(), strict=True) if n > 0]
    if not moving:
        return
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in moving])
    dist.all_reduce(flat)
    for parameter, part in zip(moving, flat.split([p.numel() for p in moving]), strict=True):
        parameter.grad = part.view_as(parameter)


def _check(
    found: Mapping[str, tuple[float, float]], window: list[FaceBatch], step: int, folder: Path, faces: Any
) -> None:
    broken = {term: total for term, (total, _) in found.items() if not math.isfinite(total)}
    if not broken:
        return
    # Processes know of each other's losses, but not of whose face a bad one is.
    rows = _of_all(torch.cat([batch.index for batch in window]).tolist())
    record = folder / "broken.json"
    if not (_shared() and dist.get_rank()):
        write_json(
            record,
            {
                "step": step,
                "terms": {term: str(total / max(count, 1)) for term, (total, count) in found.items()},
                "faces": [str(faces(row)) if faces else row for row in rows],
            },
        )
    raise BrokenLossError(
        f"step {step}: the loss {', '.join(broken)} is not a number; the weights were not moved by it. The terms and "
        f"the batch's faces are in {record}; lower optim.lr, set optim.clip or training.precision=fp32, "
        "and start again"
    )


def _tensorboard(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    # What a killed run wrote beyond its last checkpoint is dropped from the curves.
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)


def _log(writer: Any, objective: Objective, entry: Mapping[str, Any], step: int) -> None:
    for term, value in entry["train"].items():
        writer.add_scalar(f"epoch/{term}", value, step)
    for name, value in entry["select"].items():
        if math.isfinite(value):
            writer.add_scalar(f"select/{name}", value, step)
    for name, figure in objective.figures().items():
        writer.add_figure(name, figure, step)
    writer.flush()


def _note(found: Mapping[str, tuple[float, float]]) -> str:
    return " ".join(f"{term} {total / max(count, 1):.3g}" for term, (total, count) in sorted(found.items()))


def _summary(entry: Mapping[str, Any], chooses: str) -> str:
    return f"epoch {entry['epoch']} ({clock(entry['seconds'])}): {chooses} {entry['select'][chooses]:.3f} on select"
