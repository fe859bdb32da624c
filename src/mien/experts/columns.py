"""What relabelling adds to a manifest: columns that stand beside the given label and never replace it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.experts.fusion import Fused, Fusion
from mien.experts.methods import Method
from mien.faces import MAX_AGE, SPLITS

#: Years of spread at which an age is half as reliable as one that is certain.
HALF = 5.0
#: Years between a given and a fused age from which a face is flagged.
FAR = 15.0
#: Years that experts, on the root mean square, lie apart from which a face is flagged.
APART = 10.0
#: What `age_from` says of an age that is the experts'.
SOURCE = "moe"
EXPERTS = "moe_experts"


def spread(fusion: Fusion | Method, fused: Fused) -> np.ndarray:
    """How far off a fused age is to be expected, (N,) years: fitted on trusted faces where that was done, else the
    root of the total variance, which is too small since experts err together."""
    if isinstance(fusion, Fusion) and fusion.interval is not None:
        a, b, _ = fusion.interval
        return np.sqrt(a + b * fused.total)
    return np.sqrt(fused.total)


def reliability(std: np.ndarray) -> np.ndarray:
    """1 / (1 + (std / HALF)^2), (N,) in [0, 1]; 0 where no expert answered, or nothing tells how far off it may be."""
    result: np.ndarray = 1 / (1 + (std / HALF) ** 2)
    return np.nan_to_num(result, nan=0.0)


def kept(age: np.ndarray, std: np.ndarray, max_std: float | None) -> np.ndarray:
    """Which faces pass the variance filter, (N,) bool: those with an answer, and where there is a filter with a spread
    that is known and small enough."""
    return np.isfinite(age) & (np.ones(len(age), bool) if max_std is None else std <= max_std)


def fused_columns(
    part: Manifest,
    fusion: Fusion | Method,
    ages: np.ndarray,
    confidences: np.ndarray,
    variances: np.ndarray,
    hashes: Mapping[str, str],
    max_std: float | None,
) -> dict[str, pa.Array]:
    """The columns for the faces of `part`; answers are (N, E), `hashes` name each expert's weights by their sha256."""
    fused = fusion(ages, confidences, variances)
    std = spread(fusion, fused)
    keep, sure = kept(fused.age, std, max_std), reliability(std)
    numbers: dict[str, np.ndarray] = {
        "moe_age": fused.age,
        "moe_std": std,
        "moe_variance_between": fused.between,
        "moe_variance_total": fused.total,
        "moe_low": fused.low,
        "moe_high": fused.high,
        "moe_reliability": sure,
        "moe_weight": np.where(keep, sure, 0.0),
    }
    for i, name in enumerate(hashes):
        numbers[f"moe_{name}_age"] = ages[:, i]
        numbers[f"moe_{name}_confidence"] = confidences[:, i]
    columns = {name: pa.array(values.astype(np.float32), from_pandas=True) for name, values in numbers.items()}
    columns["moe_answered"] = pa.array(fused.answered, pa.int32())
    columns["moe_kept"] = pa.array(keep)
    columns["moe_flags"] = pa.array(flags(part, fused, keep, len(hashes))).dictionary_encode()
    columns[EXPERTS] = pa.array([json.dumps(dict(hashes))] * len(part)).dictionary_encode()
    return columns


def flags(part: Manifest, fused: Fused, keep: np.ndarray, experts: int) -> list[str]:
    """What to know of each face, words with a blank between: `no_answer`, `missing_expert`, `experts_apart`,
    `filtered`, `far_from_label`, `outside_interval`."""
    low, high = part.numbers("age_low"), part.numbers("age_high")
    off = np.maximum(np.maximum(low - fused.age, fused.age - high), 0.0)
    there = fused.answered > 0
    with np.errstate(invalid="ignore"):
        table = {
            "no_answer": ~there,
            "missing_expert": there & (fused.answered < experts),
            "experts_apart": np.sqrt(fused.between) >= APART,
            "filtered": there & ~keep,
            "far_from_label": off >= FAR,
            "outside_interval": (low > fused.high) | (high < fused.low),
        }
    return [" ".join(name for name, holds in table.items() if holds[row]) for row in range(len(part))]


def with_fused_ages(part: Manifest) -> Manifest:
    """The faces that pass the filter, the fused age as their age; the given one in `given_age_low`, `given_age_high`.

    Those of the splits select, val and test stay, with their given ages: what learnt from the experts is not judged by
    them.

    Raises:
        MienError: the manifest was not relabelled.
    """
    if "moe_age" not in part.table.column_names:
        raise MienError(f"{part.path or 'the manifest'} has no fused ages; `mien relabel` adds them")
    held = part.codes("split") > SPLITS.index("train")
    part = part.where(held | part.strings("moe_kept").astype(bool))
    held = part.codes("split") > SPLITS.index("train")
    low, high, ages = part.numbers("age_low"), part.numbers("age_high"), np.clip(part.numbers("moe_age"), 0, MAX_AGE)
    return part.with_columns(
        {
            "given_age_low": low,
            "given_age_high": high,
            "age_low": np.where(held, low, ages),
            "age_high": np.where(held, high, ages),
            "age_std": np.where(held, np.nan, part.numbers("moe_std")),
            "age_from": np.where(held, part.strings("age_from"), SOURCE).tolist(),
        }
    )


def experts_of(part: Manifest) -> dict[str, str]:
    """The experts that relabelled a manifest, name to sha256 of the weights; {} where none did."""
    if not part.has(EXPERTS):
        return {}
    found: dict[str, str] = {}
    for word in sorted({word for word in part.strings(EXPERTS) if word is not None}):
        found |= json.loads(word)
    return found
