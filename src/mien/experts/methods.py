"""Ways to make several ages one that need no trusted faces, with the same answer as a fitted fusion gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import MienError, unknown
from mien.experts.baselines import Combine, mean, median, winsorised
from mien.experts.fusion import Fused, Fusion
from mien.metrics.weighted import mean_of_known

METHODS: dict[str, Combine] = {"mean": mean, "median": median, "winsorised": winsorised}


@dataclass(frozen=True)
class Method:
    """A combination that looks at ages alone and weighs all experts alike; it tells no interval."""

    name: str
    experts: Sequence[str]

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise unknown("way to fuse", self.name, METHODS)

    def __call__(self, ages: np.ndarray, confidences: np.ndarray, variances: np.ndarray | None = None) -> Fused:
        """As `Fusion.__call__`; `confidences` are not looked at."""
        ages = np.asarray(ages, dtype=np.float64)
        known = np.isfinite(ages)
        answered = known.sum(1)
        age = METHODS[self.name](np.where(known, ages, np.nan))
        between = mean_of_known(np.where(known, (ages - age[:, None]) ** 2, np.nan))
        own = np.zeros_like(ages) if variances is None else np.nan_to_num(variances, nan=0.0)
        total = between + np.where(known, own, 0.0).sum(1) / np.maximum(answered, 1)
        nothing = np.full(len(ages), np.nan)
        return Fused(age, between, total, nothing, nothing, known / np.maximum(answered, 1)[:, None], answered)


def open_fusion(what: str | Path, experts: Sequence[str]) -> Fusion | Method:
    """A fitted fusion from its file, or a method by name, for these experts in this order.

    Raises:
        MienError: no such file or method, or a fusion that was fitted for other experts.
    """
    if str(what) in METHODS:
        return Method(str(what), list(experts))
    path = Path(what)
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MienError(f"{path}: no such file, and no way to fuse ({', '.join(METHODS)})") from None
    except (ValueError, UnicodeDecodeError):
        raise MienError(f"{path}: no JSON; a fusion is what `mien relabel --fit` writes") from None
    if not isinstance(value, dict):
        raise MienError(f"{path}: not a fusion of experts, but {type(value).__name__}")
    fusion = Fusion.from_dict(value)
    if fusion.experts != list(experts):
        raise MienError(
            f"{path}: fitted for {', '.join(fusion.experts)}, asked for {', '.join(experts)}; fit it anew with --fit"
        )
    return fusion
