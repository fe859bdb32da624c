"""The age task: a distribution over ages, a direct regression beside it, and what holds the two together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from mien.errors import unknown
from mien.faces import MAX_AGE, MIN_AGE
from mien.metrics import age
from mien.tasks import grid
from mien.tasks.base import Outputs, State, Task, TaskSettings
from mien.tasks.calibrate import conformal_half_width, fit_blend, fit_conformal, fit_temperature
from mien.tasks.grid import DECODERS, GridSettings
from mien.tasks.head import hidden_layer, precise, summed
from mien.tasks.ordinal import METHODS, START_AGE

#: Years in one unit of the regression and consistency losses and of the regression layer. In decades an error
#: of five years costs 0.5, as much as a categorical loss; in years regression would drown all other terms.
UNIT = 10.0
#: Below this many units (one year) smooth L1 is quadratic.
SMOOTH = 0.1

#: Ages (n,) in years.
Years = TypeVar("Years", np.ndarray, Tensor)

#: A loss of distances d >= 0 in units, elementwise.
DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda d: d,
    "smooth_l1": lambda d: F.smooth_l1_loss(d, torch.zeros_like(d), beta=SMOOTH, reduction="none"),
    "mse": lambda d: d**2,
}


class AgeSettings(TaskSettings):
    """Settings of the age task; weights are seed 000's, for the reductions that `AgeTask.losses` states.

    Sizes of the unweighted terms once a head's MAE is near 5 years (made-up data, 101 bins): `ordinal` 0.04
    (corn), 0.10 (coral), 0.13 (or_cnn), 1.5-2.1 (dldl, soft_label), 4.9 (classification), 6.5 (dldl_v2), 11
    (mean_variance); `regression` 0.44; `consistency` 0.03-0.34. Another method may want other weights.
    """

    method: str = Field(default="coral", description=f"how age is learnt: {', '.join(METHODS)}")
    grid: GridSettings = Field(default_factory=GridSettings, description="bins of the distribution")
    sigma: float = Field(default=2.0, gt=0, description="years of the label's Gaussian (dldl, dldl_v2)")
    decode: Literal["median", "mean", "argmax"] = Field(default="median", description="distribution to age")
    regression: bool = Field(default=True, description="a direct regression head beside the distribution")
    regression_loss: Literal["l1", "smooth_l1", "mse"] = Field(default="smooth_l1", description="in decades")
    ordinal_weight: float = Field(default=1.5, ge=0, description="weight of the distribution's loss")
    regression_weight: float = Field(default=1.2, ge=0, description="weight of the regression's loss")
    consistency_weight: float = Field(default=0.2, ge=0, description="weight of the two heads' disagreement")
    blend: float = Field(default=0.6, ge=0, le=1, description="share of the distribution's age before a fit")
    fit_blend: bool = Field(default=True, description="decode with the share fitted on held-out faces")
    hidden: int = Field(default=0, ge=0, description="width of a hidden layer both heads share; 0: linear heads")

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise unknown("age method", method, METHODS)
        return method

    @model_validator(mode="after")
    def _something_to_learn(self) -> AgeSettings:
        if not ((self.distribution and self.ordinal_weight) or (self.direct and self.regression_weight)):
            raise ValueError("every age loss is switched off; give ordinal_weight or regression_weight a value > 0")
        return self

    @property
    def distribution(self) -> bool:
        """Whether there is a distribution over ages."""
        return METHODS[self.method] is not None

    @property
    def direct(self) -> bool:
        """Whether there is a direct regression: method `regression` is that alone."""
        return self.regression or not self.distribution

    @property
    def share(self) -> float:
        """`blend`, or all of the one head that any loss teaches."""
        if self.consistency_weight or (self.ordinal_weight and self.regression_weight):
            return self.blend
        return 1.0 if self.ordinal_weight else 0.0


class AgeTask(Task):
    """Age in years from a distribution over bins (`ordinal`), a direct regression, or both blended.

    Labels are (N, 2) float32 intervals (low, high) in years: equal when exact, NaN when missing. Outputs:
    `ordinal` (B, method's outputs) logits and `regression` (B,) years.
    """

    columns = ("age_low", "age_high")
    chooses: ClassVar[Mapping[str, bool]] = {
        "mae": True,
        "inside": False,
        "macro_mae": True,
        "mae_ordinal": True,
        "mae_regression": True,
        "bias": True,
    }

    def __init__(self, name: str, settings: AgeSettings, features: int, given: int = 0) -> None:
        """`features` is the length of the backbone's vector, `given` that of the parents' probabilities."""
        super().__init__(name, settings, width=1)
        self.options = settings
        self.drop = nn.Dropout(settings.dropout)
        self.hidden, width = hidden_layer(features + given, settings.hidden)
        method = METHODS[settings.method]
        self.ordinal = None if method is None else method(width, settings.grid.edges(), settings.sigma)
        self.regression = nn.Linear(width, 1) if settings.direct else None

    def encode(self, columns: Mapping[str, np.ndarray]) -> Tensor:
        return torch.stack([torch.as_tensor(columns[name], dtype=torch.float32) for name in self.columns], dim=1)

    def labelled(self, labels: Tensor) -> Tensor:
        return ~labels.isnan().any(1)

    def forward(self, features: Tensor, given: Tensor | None = None) -> Outputs:
        inputs = self.hidden(self.given_input(self.drop(features), given))
        outputs = {}
        if self.ordinal is not None:
            outputs["ordinal"] = self.ordinal(inputs)
        if self.regression is not None:
            outputs["regression"] = START_AGE + UNIT * precise(self.regression(inputs)).squeeze(1)
        return outputs

    def condition(self, outputs: Outputs) -> Tensor:
        """Age in centuries, (B, 1) in [0, 1]."""
        age = outputs["regression"] if self.ordinal is None else self._expected(outputs["ordinal"])
        return (age[:, None] / 100.0).clamp(0.0, 1.0)

    def loss_weights(self) -> dict[str, float]:
        options = self.options
        both = options.distribution and options.direct
        weights = {
            "ordinal": options.ordinal_weight if options.distribution else 0.0,
            "regression": options.regression_weight if options.direct else 0.0,
            "consistency": options.consistency_weight if both else 0.0,
        }
        return {term: weight for term, weight in weights.items() if weight}

    def losses(
        self, outputs: Outputs, labels: Tensor, weights: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Task.losses`. Terms, each a sum over faces:

        - `ordinal`: the method's own (`tasks/ordinal.py`): for threshold methods the mean over thresholds.
        - `regression`: distance to the label in decades; zero inside an interval (a hinge).
        - `consistency`: smooth L1 in decades between the mean of the distribution and the regression. It pulls
          both; over labelled faces only, though it needs no label, lest a face without one change anything.
        """
        rows = self.labelled(labels).nonzero().squeeze(1)
        if len(rows) == 0:
            return {}
        low, high = labels[rows].unbind(1)
        low, high = low.contiguous(), high.contiguous()
        selected = {name: precise(value[rows]) for name, value in outputs.items()}
        terms = {}
        for term in self.loss_weights():
            if term == "ordinal":
                assert self.ordinal is not None
                per_face = self.ordinal.loss(selected["ordinal"], low, high)
            elif term == "regression":
                age = selected["regression"]
                outside = (low - age).relu() + (age - high).relu()
                per_face = DISTANCES[self.options.regression_loss](outside / UNIT)
            else:
                apart = (self._expected(selected["ordinal"]) - selected["regression"]).abs()
                per_face = smooth_decades(apart)
            terms[term] = summed(per_face, weights, rows)
        return terms

    def answers(self, outputs: Outputs, state: State) -> dict[str, Tensor]:
        """Years, (B,) float32, ages clipped to 0-120: `age`; `age_std` where there is a distribution; `age_low` and
        `age_high` where intervals were fitted."""
        return self._told(*self._ages(outputs, state.get("temperature", 1.0)), state)

    def decode(self, outputs: Outputs, state: State) -> dict[str, np.ndarray]:
        """Columns of years, (B,) float32: `answers`, NaN where there is none, and `age_ordinal` and `age_regression`
        where there are two heads."""
        ages, std = self._ages(outputs, state.get("temperature", 1.0))
        # What is fitted was fitted on numbers of double precision, which not every device knows.
        ages, std = {head: age.cpu().double() for head, age in ages.items()}, std.cpu().double()
        told = self._told(ages, std, state)
        if len(ages) == 2:
            told |= {f"age_{head}": _years(age) for head, age in ages.items()}
        every = ("age", "age_std", "age_low", "age_high")
        columns = {name: torch.full_like(told["age"], torch.nan) for name in every} | told
        return {name: value.numpy() for name, value in columns.items()}

    def fit(self, outputs: Outputs, labels: Tensor) -> State:
        """Fit temperature, blend and 90 % conformal intervals, on faces with exact ages; others are left out.

        Returns {} without any such face, else: `n`; `temperature` (1 where another helps neither likelihood
        nor MAE); `blend`; `mae`: of each head, and of `age` with the `default` and the `fitted` blend;
        `conformal`.
        """
        exact = (labels[:, 0] == labels[:, 1]).nonzero().squeeze(1)  # NaN equals nothing
        if len(exact) == 0:
            return {}
        outputs = {name: value.detach()[exact.to(value.device)] for name, value in outputs.items()}
        truth = labels[exact, 0].cpu().double().numpy()

        def mae(age: np.ndarray) -> float:
            return float(np.abs(age - truth).mean())

        state: State = {"n": len(truth), "temperature": self._temperature(outputs, truth)}
        ages, std = self._numbers(outputs, state["temperature"])
        default = self._blend(ages, self.options.share)
        state["mae"] = {head: mae(value) for head, value in ages.items()} | {"default": mae(default)}
        age = default
        if len(ages) == 2:
            state["blend"] = fit_blend(ages["ordinal"], ages["regression"], truth)
            fitted = self._blend(ages, state["blend"])
            state["mae"]["fitted"] = mae(fitted)
            age = fitted if self.options.fit_blend else default
        conformal = fit_conformal(age, std, truth)
        return state | ({"conformal": conformal} if conformal else {})

    def means_the_same(self, other: Task) -> bool:
        """Also of one grid, and of methods that read it in one way: a probability of each bin, or of each threshold."""
        if not (isinstance(other, AgeTask) and super().means_the_same(other)):
            return False
        mine, theirs = self.ordinal, other.ordinal
        if mine is None or theirs is None:
            return mine is theirs
        return self.options.grid == other.options.grid and type(mine).pmf is type(theirs).pmf

    def metrics(self, columns: Mapping[str, np.ndarray], labels: Tensor) -> dict[str, float]:
        """Of exact ages: `mae`, `macro_mae` (mean over the age bins that have faces), `bias`; with two heads
        `mae_ordinal` and `mae_regression`. Of age bins: `inside`, the share of the ages told that lie in them."""
        low, high = labels.cpu().double().numpy().T
        exact, binned = low == high, low < high
        inside = {}
        if binned.any():
            inside["inside"] = float(age.inside(low[binned], high[binned], columns["age"][binned]))
        columns_of = {"mae": "age", "mae_ordinal": "age_ordinal", "mae_regression": "age_regression"}
        there = {name: columns[column][exact] for name, column in columns_of.items() if column in columns}
        told = {name: ages.astype(np.float64) for name, ages in there.items()}
        truth = low[exact]
        found = {name: float(age.mae(truth, ages)) for name, ages in told.items()}
        found |= {"macro_mae": float(age.macro_mae(truth, told["mae"])), "bias": float(age.bias(truth, told["mae"]))}
        return found | inside

    def _expected(self, logits: Tensor) -> Tensor:
        """Mean of the distributions, (B,) years."""
        assert self.ordinal is not None
        return grid.mean(self.ordinal.pmf(logits), self.ordinal.edges)

    def _ages(self, outputs: Outputs, temperature: float) -> tuple[dict[str, Tensor], Tensor]:
        """Each head's age, (B,) years, and the std of the distribution (NaN without one)."""
        ages: dict[str, Tensor] = {}
        if self.regression is not None:
            ages["regression"] = precise(outputs["regression"].detach())
        if self.ordinal is None:
            return ages, torch.full_like(ages["regression"], torch.nan)
        pmf = self.ordinal.pmf(precise(outputs["ordinal"].detach()) / temperature)
        edges = self.ordinal.edges.to(pmf.device)
        return {"ordinal": DECODERS[self.options.decode](pmf, edges)} | ages, grid.std(pmf, edges)

    def _numbers(self, outputs: Outputs, temperature: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`_ages` as float64 arrays."""
        ages, std = self._ages(outputs, temperature)
        return {head: age.cpu().double().numpy() for head, age in ages.items()}, std.cpu().double().numpy()

    def _told(self, ages: dict[str, Tensor], std: Tensor, state: State) -> dict[str, Tensor]:
        """See `answers`, from what `_ages` gave."""
        share = state.get("blend", self.options.share) if self.options.fit_blend else self.options.share
        age = self._blend(ages, share)
        told = {"age": _years(age)}
        if self.ordinal is not None:
            told["age_std"] = std.float()
        if "conformal" in state:
            half = conformal_half_width(state["conformal"], age, std)
            told |= {"age_low": _years(age - half), "age_high": _years(age + half)}
        return told

    def _blend(self, ages: dict[str, Years], share: float) -> Years:
        """`share` of the distribution's age, the rest of the regression's; or the only one there is."""
        if len(ages) == 1:
            return next(iter(ages.values()))
        return share * ages["ordinal"] + (1 - share) * ages["regression"]

    def _temperature(self, outputs: Outputs, truth: np.ndarray) -> float:
        """The distribution's likeliest temperature, if the MAE does not pay for it; else 1."""
        if self.ordinal is None:
            return 1.0
        ordinal, logits = self.ordinal, precise(outputs["ordinal"])
        edges = ordinal.edges.to(logits.device)
        age = torch.as_tensor(truth, dtype=logits.dtype, device=logits.device)
        bins = grid.bin_of(age, edges)[:, None]

        def nll(temperature: float) -> float:
            likelihood = ordinal.pmf(logits / temperature).gather(1, bins)
            return float(-likelihood.clamp_min(1e-12).log().mean())

        def mae(temperature: float) -> float:
            decoded = self._numbers({**outputs, "ordinal": logits}, temperature)[0]
            return float(np.abs(decoded["ordinal"] - truth).mean())

        best = fit_temperature(nll)
        return best if nll(best) < nll(1.0) and mae(best) <= mae(1.0) else 1.0


def smooth_decades(years: Tensor) -> Tensor:
    """Smooth L1 of distances >= 0 in years, in decades, quadratic below one year."""
    return DISTANCES["smooth_l1"](years / UNIT)


def _years(age: Tensor) -> Tensor:
    return age.clamp(MIN_AGE, MAX_AGE).float()
