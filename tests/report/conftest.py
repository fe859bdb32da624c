"""Made-up figures of the size and shape that an evaluation writes."""

from types import SimpleNamespace

import numpy as np
import pytest

from mien.faces import AGE_BIN_NAMES, GENDERS, RACES, age_bin


def estimate(values, digits=6):
    """Mean of `values` with its normal 95 % interval, as the evaluation's dicts have it."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    half = 1.96 * values.std() / np.sqrt(n)
    mean = values.mean()
    return {
        "value": round(mean, digits),
        "low": round(mean - half, digits),
        "high": round(mean + half, digits),
        "n": n,
    }


def judged(n=2000, seed=0):
    """Truth, predictions and the metrics dict of `n` faces."""
    rng = np.random.default_rng(seed)
    truth = np.clip(np.round(rng.gamma(3.2, 10.5, n)), 0, 105)
    gender = rng.choice(2, n, p=(0.52, 0.48))
    race = rng.choice(5, n, p=(0.425, 0.19, 0.145, 0.17, 0.07))
    spread = 1.5 + truth / 11
    prediction = np.clip(truth + rng.normal(0, spread) - 0.09 * (truth - 33), 0, 110)
    error = prediction - truth
    half = 1.7 * spread
    inside = np.abs(error) <= half

    def figures(keep):
        if keep.sum() < 30:
            return {"n": int(keep.sum()), "suppressed": True}
        return {
            "n": int(keep.sum()),
            "mae": estimate(np.abs(error[keep])),
            "bias": estimate(error[keep]),
            "cs5": estimate(np.abs(error[keep]) <= 5),
            "coverage90": estimate(inside[keep]),
            "width90": estimate(2 * half[keep]),
        }

    def table(codes, names):
        return {name: figures(codes == place) for place, name in enumerate(names)}

    both = [f"{g} x {r}" for g in GENDERS for r in RACES]
    groups = {
        "age_bin": table(age_bin(truth), AGE_BIN_NAMES),
        "gender": table(gender, GENDERS),
        "race": table(race, RACES),
        "gender x race": table(gender * 5 + race, both),
        "predicted_age": table(age_bin(prediction), AGE_BIN_NAMES),
        "tag": {
            "blur": figures(rng.random(n) < 0.06),
            "low resolution": figures(rng.random(n) < 0.09),
            "occluded": figures(rng.random(n) < 0.01),
            "none": figures(rng.random(n) < 0.8),
        },
    }
    for key in ("age_bin", "gender", "race", "gender x race"):
        for group in groups[key].values():
            group["train_n"] = group["n"] * 3
    guess = np.median(truth)
    age = figures(np.ones(n, bool)) | {
        "median_ae": {"value": 2.96, "low": 2.88, "high": 3.05, "n": n},
        "rmse": {"value": 5.02, "low": 4.86, "high": 5.19, "n": n},
        "bias_slope": {"value": -0.09, "low": -0.1, "high": -0.08, "n": n},
        "macro_mae": {"value": 4.93, "low": 4.7, "high": 5.2, "n": n},
        "cs": [float((np.abs(error) <= t).mean()) for t in range(16)],
        "constant": {
            "years": float(guess),
            "mae": estimate(np.abs(truth - guess)),
            "macro_mae": estimate(np.abs(truth - guess)),
            "cs": [float((np.abs(truth - guess) <= t).mean()) for t in range(16)],
        },
        "heads": {
            "age_ordinal": {"mae": estimate(np.abs(error) + 0.1)},
            "age_regression": {"mae": estimate(np.abs(error) + 0.2)},
        },
        "undercovered": ["age_bin: 0-9"],
        "groups": groups,
        "gaps": {
            "gender": {
                "raw": {"value": 0.51, "low": 0.21, "high": 0.8, "n": n},
                "age_standardised": {"value": 0.22, "low": -0.1, "high": 0.5, "n": n},
                "between": ["Male", "Female"],
                "between_standardised": ["Male", "Female"],
            },
            "race": {
                "raw": {"value": 1.4, "low": 0.9, "high": 1.9, "n": n},
                "age_standardised": {"value": 0.7, "low": 0.2, "high": 1.3, "n": n},
                "between": ["Asian", "White"],
                "between_standardised": ["Asian", "Others"],
                "bins": ["20-29", "30-39"],
            },
        },
    }

    def classes(codes, names, right):
        given = np.where(rng.random(n) < right, codes, rng.integers(0, len(names), n))
        matrix = np.zeros((len(names), len(names)), int)
        np.add.at(matrix, (codes, given), 1)
        share = np.bincount(codes, minlength=len(names)).max() / n
        hit = given == codes
        return {
            "accuracy": estimate(hit),
            "macro_f1": estimate(hit),
            "confusion": matrix.tolist(),
            "classes": list(names),
            "ece": estimate(np.full(n, 0.031)),
            "per_class": {
                name: {
                    "n": int((codes == k).sum()),
                    "precision": estimate(hit[given == k]),
                    "recall": estimate(hit[codes == k]),
                }
                for k, name in enumerate(names)
            },
            "majority": {
                "class": names[0],
                "accuracy": {"value": share, "low": share - 0.02, "high": share + 0.02, "n": n},
            },
            "groups": {
                "race": {r: {"accuracy": estimate(hit[race == k])} for k, r in enumerate(RACES)},
                "age_bin": {
                    b: {"accuracy": estimate(hit[age_bin(truth) == k])}
                    if (age_bin(truth) == k).sum() >= 30
                    else {"n": int((age_bin(truth) == k).sum()), "suppressed": True}
                    for k, b in enumerate(AGE_BIN_NAMES)
                },
            },
        }, hit

    sex, sex_hit = classes(gender, GENDERS, 0.87)
    skin, _ = classes(race, RACES, 0.82)
    return SimpleNamespace(
        truth=truth,
        prediction=prediction,
        gender=gender,
        race=race,
        hit=sex_hit,
        confidence=np.clip(rng.beta(9, 1.2, n), 0.5, 1),
        metrics={"age": age, "gender": sex, "race": skin},
    )


@pytest.fixture(scope="session")
def evaluation():
    return judged()


@pytest.fixture
def pictures():
    """Four small pictures, (3, 40, 32) uint8."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (3, 40, 32), dtype=np.uint8) for _ in range(4)]
