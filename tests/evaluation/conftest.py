from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mien.evaluation.predictions import Predictions
from mien.faces import GENDERS, RACES


def make_table(n: int = 600, seed: int = 0, **columns: Any) -> Predictions:
    """A predictions table of drawn numbers; `columns` replace or add (None: leave out)."""
    generator = np.random.default_rng(seed)
    true = generator.integers(1, 90, n).astype(float)
    predicted = true + generator.normal(0, 5, n)
    gender, race = generator.integers(0, 2, n), generator.choice(5, n, p=[0.4, 0.2, 0.2, 0.15, 0.05])
    said_gender = np.where(generator.random(n) < 0.1, 1 - gender, gender)
    said_race = np.where(generator.random(n) < 0.2, generator.integers(0, 5, n), race)
    genders, races = np.array(GENDERS, dtype=object), np.array(RACES, dtype=object)
    table: dict[str, Any] = {
        "path": [f"{i}.jpg" for i in range(n)],
        "archive": pa.nulls(n, pa.string()),
        "sha256": [f"{i:064x}" for i in range(n)],
        "row": np.arange(n),
        "group": np.arange(n),
        "true_age_low": true,
        "true_age_high": true,
        "true_gender": genders[gender],
        "true_race": races[race],
        "age": predicted,
        "age_low": predicted - 8.2,
        "age_high": predicted + 8.2,
        "gender": genders[said_gender],
        "gender_p": np.full(n, 0.9),
        "race": races[said_race],
    } | columns
    return Predictions(pa.table({name: values for name, values in table.items() if values is not None}))


@pytest.fixture
def table() -> Callable[..., Predictions]:
    return make_table
