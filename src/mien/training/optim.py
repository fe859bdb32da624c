"""Optimisers and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from mien.errors import unknown

#: What is kept of a running mean at each step.
Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimSettings(BaseModel):
    """How fast the weights move."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1.5e-3, gt=0, description="learning rate of the deepest layers of the backbone")
    weight_decay: float = Field(default=0.01, ge=0, description="not on biases and norms")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="adamw")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd, with Nesterov's correction")
    head_scale: float = Field(default=2.0, gt=0, description="learning rate of the heads, as a multiple of lr")
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="learning rate of a layer over that of the next")
    schedule: str = Field(default="cosine", description="how the rate goes: cosine, step, plateau, constant")
    warmup_epochs: float = Field(default=0.5, ge=0)
    floor: float = Field(default=0.01, ge=0, le=1, description="cosine: the last rate as a share of the first")
    step_epochs: int = Field(default=10, ge=1, description="step: the rate falls every so many epochs")
    step_factor: float = Field(default=0.1, gt=0, lt=1, description="step and plateau: the rate falls to this share")
    plateau_patience: int = Field(
        default=2, ge=0, description="plateau: epochs without a better figure before it falls"
    )
    clip: float | None = Field(default=5.0, gt=0, description="largest norm of the gradient")

    @field_validator("schedule")
    @classmethod
    def _known(cls, schedule: str) -> str:
        if schedule not in SCHEDULES:
            raise unknown("schedule", schedule, SCHEDULES)
        return schedule


class Moment(NamedTuple):
    """Where a training stands: `epoch` counts from 0 and has a fraction, `done` is the share of the steps after the
    warm-up that are over, in [0, 1], `plateau` the share that the plateau rule has come down to."""

    epoch: float
    done: float
    plateau: float


#: A schedule's name and how it makes the learning rate, as a share of the base rate. Pure functions of the moment:
#: resuming needs no state.
SCHEDULES: dict[str, Callable[[OptimSettings, Moment], float]] = {
    "cosine": lambda s, now: s.floor + (1 - s.floor) * 0.5 * (1 + math.cos(math.pi * now.done)),
    "step": lambda s, now: s.step_factor ** (now.epoch // s.step_epochs),
    "plateau": lambda s, now: now.plateau,
    "constant": lambda s, now: 1.0,
}


def build_optimiser(network: nn.Module, depths: list[list[str]], settings: OptimSettings) -> torch.optim.Optimizer:
    """An optimiser over all parameters of `network`, grouped by depth (input first, heads last) and by decay.

    Each group carries `scale`, its learning rate over the base rate, and `names`, by which its state is saved.
    """
    parameters = dict(network.named_parameters())
    groups: list[dict[str, Any]] = []
    for depth, names in enumerate(depths):
        heads = depth == len(depths) - 1 and len(depths) > 1
        # The layer below the heads learns at the base rate.
        scale = settings.head_scale if heads else settings.layer_decay ** max(0, len(depths) - 2 - depth)
        for decays in (True, False):
            chosen = [name for name in names if (parameters[name].ndim > 1) is decays]
            if chosen:
                groups.append(
                    {
                        "params": [parameters[name] for name in chosen],
                        "names": chosen,
                        "scale": scale,
                        "lr": settings.lr * scale,
                        "weight_decay": settings.weight_decay if decays else 0.0,
                    }
                )
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def rate_at(settings: OptimSettings, step: int, steps_per_epoch: int, epochs: int, plateau: float = 1.0) -> float:
    """The learning rate at a step as a share of the base rate; `plateau` is the share that the plateau rule has come
    down to."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)
    return SCHEDULES[settings.schedule](settings, Moment(step / steps_per_epoch, min(1.0, done), plateau))


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the base rate `lr` times its scale."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["scale"]


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name: `{"layer.weight/exp_avg": tensor}`."""
    state: dict[str, Tensor] = {}
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimiser.state.get(parameter, {}).items():
                if value is not None:
                    state[f"{name}/{key}"] = torch.as_tensor(value)
    return state


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Take back what `optimiser_state` gave."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, field = key.rpartition("/")
        found.setdefault(name, {})[field] = value
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if name in found:
                optimiser.state[parameter] = {
                    # AdamW keeps its step count on the CPU.
                    field: value.clone() if field == "step" else value.clone().to(parameter.device)
                    for field, value in found[name].items()
                }


class Average:
    """An exponential moving average of a network's weights and buffers.

    The decay grows as min(decay, (1 + t) / (10 + t)), so that the first steps do not hold the average back.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        state = network.state_dict()
        moving = [name for name, value in self.weights.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in moving], [state[n] for n in moving], 1 - decay)
        for name, value in self.weights.items():
            if not value.is_floating_point():
                value.copy_(state[name])
