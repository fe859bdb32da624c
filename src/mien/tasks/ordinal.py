"""The methods that learn an age as a distribution over bins, each one small class, and their table.

A label is an interval (low, high) of years, equal when exact. Thresholds inside an interval are left out, a
distribution is asked for the probability of the interval. Losses come per face, in float32 at least.

Threshold methods (coral, corn, or_cnn) average over all thresholds of the grid, so that one with 100
thresholds weighs no more than one with 44; a face whose interval leaves thresholds out therefore counts for
less, as it tells less. Distribution methods return nats, with the further terms of their papers in years.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.tasks.grid import bin_of, centres, mean
from mien.tasks.head import precise

#: Where an untrained head that needs a start puts everybody: near the mean age of faces in the wild.
START_AGE = 35.0


class AgeMethod(nn.Module, ABC):
    """The last layer of an age head, its loss and the distribution its outputs stand for."""

    edges: Tensor

    def __init__(self, inputs: int, edges: Tensor, sigma: float = 2.0) -> None:
        """`inputs` is the length of the vectors it gets, `edges` (bins + 1,) the grid in years.

        `sigma` is the standard deviation in years of the label distribution, in methods that have one.
        """
        super().__init__()
        self.register_buffer("edges", edges, persistent=False)
        self.sigma = sigma
        self.build(inputs)

    @property
    def bins(self) -> int:
        return len(self.edges) - 1

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers a face gets."""

    def build(self, inputs: int) -> None:
        """Make the layers; `self.linear` unless a method says otherwise."""
        self.linear = nn.Linear(inputs, self.outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs) to logits (B, outputs)."""
        return self.linear(inputs)

    @abstractmethod
    def loss(self, logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Loss of each face, (B,), for ages between `low` and `high` (B,) years; no NaN among them."""

    @abstractmethod
    def pmf(self, logits: Tensor) -> Tensor:
        """Probability of each bin, (B, bins), rows sum to 1."""


class Thresholds(AgeMethod):
    """Methods whose logits are those of "older than threshold k"."""

    @property
    def outputs(self) -> int:
        return self.bins - 1

    def loss(self, logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
        logits = precise(logits)
        thresholds = self.edges[1:-1].to(low.dtype)
        older = low[:, None] >= thresholds
        known = older | (high[:, None] < thresholds)
        each = F.binary_cross_entropy_with_logits(logits, older.to(logits.dtype), reduction="none")
        return torch.where(known, each, 0.0).mean(1)

    def pmf(self, logits: Tensor) -> Tensor:
        # Sorting changes nothing where ranks agree. Where they do not (or_cnn), rearrangement never takes a
        # cumulative curve further from the true one (Chernozhukov et al., Biometrika 2009), and it keeps the
        # mean.
        older = precise(logits).sigmoid().sort(1, descending=True).values
        return -F.pad(F.pad(older, (1, 0), value=1.0), (0, 1), value=0.0).diff(dim=1)


class OrCnn(Thresholds):
    """Independent thresholds (Niu et al., "Ordinal Regression with Multiple Output CNN", CVPR 2016).

    What seed 000 calls CORAL. Ranks may disagree in the logits; `pmf` puts them in order.
    """

    def build(self, inputs: int) -> None:
        super().build(inputs)
        remaining = torch.arange(self.outputs, 0, -1.0)
        with torch.no_grad():  # start from even odds over the bins
            self.linear.bias.copy_((remaining / remaining.flip(0)).log())


class Coral(Thresholds):
    """One shared weight vector, a bias a threshold (Cao et al., Pattern Recognition Letters 2020).

    The paper's biases are in order only at the optimum; here each is the one before less a softplus, so that
    ranks agree for any weights.
    """

    #: Least step between two biases: softplus may round to nothing.
    MIN_GAP = 1e-4
    #: Years to a logit in an untrained head; near what trained ones have.
    YEARS_PER_LOGIT = 4.0

    def build(self, inputs: int) -> None:
        self.linear = nn.Linear(inputs, 1, bias=False)
        thresholds = self.edges[1:-1]
        gaps = thresholds.diff() / self.YEARS_PER_LOGIT - self.MIN_GAP
        self.first = nn.Parameter((START_AGE - thresholds[:1]) / self.YEARS_PER_LOGIT)
        self.gaps = nn.Parameter(gaps.expm1().log())  # the inverse of softplus

    def forward(self, inputs: Tensor) -> Tensor:
        return precise(self.linear(inputs)) + self.biases()

    def biases(self) -> Tensor:
        """(thresholds,) float32, falling."""
        drops = F.softplus(precise(self.gaps)) + self.MIN_GAP
        return torch.cat([precise(self.first), precise(self.first) - drops.cumsum(0)])

    @torch.no_grad()
    def be_mean_of(self, others: Sequence[Coral]) -> None:
        """Take the means of the biases of `others`."""
        biases = torch.stack([other.biases() for other in others]).mean(0)
        self.first.copy_(biases[:1])
        self.gaps.copy_((-biases.diff() - self.MIN_GAP).clamp_min(1e-6).expm1().log())


class Corn(AgeMethod):
    """Conditional thresholds: "older than k, being older than k - 1" (Shi, Cao & Raschka, arXiv 2111.08851).

    Ranks agree for any weights, as the probability of being older than k is a product. The loss is the
    paper's: for an exact age its sum over the tasks whose condition holds is -log of the bin's probability,
    and for an interval it is -log of the interval's. Divided by the number of thresholds here (the paper
    divides by the number of tasks whose condition held in the batch, which couples faces).
    """

    @property
    def outputs(self) -> int:
        return self.bins - 1

    def build(self, inputs: int) -> None:
        super().build(inputs)
        with torch.no_grad():  # start from an even distribution over the bins
            self.linear.bias.copy_(torch.arange(self.outputs, 0, -1.0).log())

    def log_pmf(self, logits: Tensor) -> Tensor:
        logits = precise(logits)
        reached = F.pad(F.logsigmoid(logits).cumsum(1), (1, 0))
        return reached + F.pad(F.logsigmoid(-logits), (0, 1))

    def loss(self, logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return interval_nll(self.log_pmf(logits), low, high, self.edges) / self.outputs

    def pmf(self, logits: Tensor) -> Tensor:
        return self.log_pmf(logits).exp()


class Classification(AgeMethod):
    """Cross-entropy over the bins (DEX: Rothe et al., IJCV 2018); the base of distributions."""

    @property
    def outputs(self) -> int:
        return self.bins

    def loss(self, logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
        log_pmf = precise(logits).log_softmax(1)
        interval = interval_nll(log_pmf, low, high, self.edges)
        return torch.where(low == high, self.exact_loss(log_pmf, low.to(log_pmf.dtype), interval), interval)

    def exact_loss(self, log_pmf: Tensor, age: Tensor, nll: Tensor) -> Tensor:
        """Loss (B,) of faces of exact `age` (B,), whose bin has the negative log-likelihood `nll` (B,)."""
        return nll

    def pmf(self, logits: Tensor) -> Tensor:
        return precise(logits).softmax(1)

    def within(self, age: Tensor) -> Tensor:
        """`age` clamped to the middles of the first and last bin, beyond which no distribution reaches.

        Where bins differ in width, the middle of its own bin: the nearest middle may be a neighbour's.
        """
        middle, widths = centres(self.edges).to(age.dtype), self.edges.diff()
        clamped = age.clamp(float(middle[0]), float(middle[-1]))
        return torch.where(widths.max() > widths.min(), middle[bin_of(age, self.edges)], clamped)

    def divergence(self, log_pmf: Tensor, energy: Tensor) -> Tensor:
        """KL (B,) from the softmax of `energy` (B, bins) to the head's distribution."""
        target = energy.log_softmax(1)
        return (target.exp() * (target - log_pmf)).sum(1)

    def distance(self, age: Tensor) -> Tensor:
        """Years between each age (B,) and each bin's middle, (B, bins)."""
        return (self.within(age)[:, None] - centres(self.edges).to(age.dtype)).abs()


class Dldl(Classification):
    """KL to a Gaussian round the label (DLDL: Gao et al., IEEE TIP 2017)."""

    def exact_loss(self, log_pmf: Tensor, age: Tensor, nll: Tensor) -> Tensor:
        return self.divergence(log_pmf, -0.5 * (self.distance(age) / self.sigma) ** 2)


class DldlV2(Dldl):
    """DLDL and the absolute error of the mean, weight 1 (DLDL-v2: Gao et al., IJCAI 2018)."""

    MEAN_WEIGHT = 1.0

    def exact_loss(self, log_pmf: Tensor, age: Tensor, nll: Tensor) -> Tensor:
        off = (mean(log_pmf.exp(), self.edges) - self.within(age)).abs()
        return super().exact_loss(log_pmf, age, nll) + self.MEAN_WEIGHT * off


class MeanVariance(Classification):
    """Cross-entropy, half the squared error of the mean, and the variance (Pan et al., CVPR 2018)."""

    MEAN_WEIGHT, VARIANCE_WEIGHT = 0.2, 0.05

    def exact_loss(self, log_pmf: Tensor, age: Tensor, nll: Tensor) -> Tensor:
        pmf, middle = log_pmf.exp(), centres(self.edges).to(log_pmf.dtype)
        expected = (pmf * middle).sum(1)
        variance = (pmf * (middle - expected[:, None]) ** 2).sum(1)
        off = (expected - self.within(age)) ** 2 / 2
        return nll + self.MEAN_WEIGHT * off + self.VARIANCE_WEIGHT * variance


class SoftLabel(Classification):
    """KL to softmax(-|years off|) (SORD: Diaz & Marathe, CVPR 2019)."""

    def exact_loss(self, log_pmf: Tensor, age: Tensor, nll: Tensor) -> Tensor:
        return self.divergence(log_pmf, -self.distance(age))


#: Names to methods. `regression` has no distribution: it is the direct head of `tasks/age.py` alone.
METHODS: dict[str, type[AgeMethod] | None] = {
    "coral": Coral,
    "corn": Corn,
    "or_cnn": OrCnn,
    "dldl": Dldl,
    "dldl_v2": DldlV2,
    "mean_variance": MeanVariance,
    "soft_label": SoftLabel,
    "classification": Classification,
    "regression": None,
}


def interval_nll(log_pmf: Tensor, low: Tensor, high: Tensor, edges: Tensor) -> Tensor:
    """-log of the probability, by log_pmf (B, bins), of the bins from `low`'s to `high`'s (B,); (B,)."""
    index = torch.arange(log_pmf.shape[1], device=log_pmf.device)
    inside = (index >= bin_of(low, edges)[:, None]) & (index <= bin_of(high, edges)[:, None])
    return -log_pmf.masked_fill(~inside, -math.inf).logsumexp(1)
