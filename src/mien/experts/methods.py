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
    """A combination that looks at ages alone and weighs all experts alike; it tells no interval.

    The total variance is NaN of a single answer that tells no spread of its own.
    """

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
        own = np.full_like(ages, np.nan) if variances is None else np.asarray(variances, dtype=np.float64)
        within = mean_of_known(np.where(known, own, np.nan))
        total = between + np.nan_to_num(within)
        # One answer whose spread nobody knows is no certain one.
        total = np.where((answered <= 1) & np.isnan(within), np.nan, total)
        nothing = np.full(len(ages), np.nan)
        return Fused(age, between, total, nothing, nothing, known / np.maximum(answered, 1)[:, None], answered)


def open_fusion(what: str | Path, experts: Sequence[str], hashes: Sequence[str] = ()) -> Fusion | Method:
    """A fitted fusion from its file, or a method by name, for these experts in this order, with weights of `hashes`.

    Raises:
        MienError: no such file or method, or a fusion that was fitted for other experts, or for others of their names.
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
    others = [name for name, mine, theirs in zip(experts, hashes, fusion.hashes, strict=False) if mine != theirs]
    if others:
        raise MienError(f"{path}: fitted for other weights of {', '.join(others)}; fit it anew with --fit")
    return fusion
