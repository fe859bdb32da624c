from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.data.pictures import Pictures
from mien.evaluation.predictions import Predictions
from mien.evaluation.tiles import tiles
from mien.faces import EXPRESSIONS

Table = Callable[..., Predictions]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    for i in range(40):
        Image.new("RGB", (24, 24), (i * 6, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "7.png").write_bytes(b"no picture")
    return Pictures(tmp_path)


def table_of(table: Table, wrong: int) -> Predictions:
    true = np.array(EXPRESSIONS, dtype=object)[np.arange(40) % 8]
    said = np.where(np.arange(40) < wrong, np.roll(true, 1), true)
    valence = np.linspace(-1, 1, 40)
    valence[0] = np.nan
    return table(
        40, path=[f"{i}.png" for i in range(40)], true_expression=true, expression=said, expression_p=np.full(40, 0.5),
        true_valence=valence, valence=np.full(40, -0.25), arousal=np.full(40, 0.125), true_arousal=np.zeros(40),
    )  # fmt: skip


@pytest.mark.parametrize(("wrong", "shown"), [(20, 6), (2, 2), (0, 0), (38, 10), (40, 12)])
def test_half_are_right_and_half_wrong_as_far_as_there_are(
    table: Table, pictures: Pictures, wrong: int, shown: int
) -> None:
    predictions = table_of(table, wrong)
    found = tiles(predictions, pictures, 12)
    assert [tile["right"] for tile in found] == [True] * (12 - shown) + [False] * shown
    assert len({tile["path"] for tile in found}) == 12
    for tile in found:
        row = int(tile["path"].removesuffix(".png"))
        assert tile["right"] == (row >= wrong)
        assert tile["title"] == f"{EXPRESSIONS[row % 8]} → {predictions.strings('expression')[row]} (0.50)"
        true = predictions.numbers("true_valence")[row]
        assert tile["lines"][-2] == f"valence {'?' if true != true else f'{true:+.2f}'.replace('-', '−')} → −0.25"
        assert tile["lines"][-1] == "arousal +0.00 → +0.12"
        if row == 7:
            assert tile["image"] is None
        else:
            assert tile["image"].shape == (3, 24, 24)
            assert abs(int(tile["image"][0].mean()) - row * 6) <= 1  # the picture of this very face


def test_what_decides_without_an_expression(table: Table, pictures: Pictures) -> None:
    paths = [f"{i}.png" for i in range(40)]
    predictions = table(40, path=paths)
    error = np.abs(predictions.numbers("age") - predictions.numbers("true_age_low"))
    found = tiles(predictions, pictures, 10)
    assert all(tile["right"] == (error[int(tile["path"].removesuffix(".png"))] <= 5) for tile in found)
    assert found[0]["title"].startswith("age ")
    assert any("Male" in line for line in found[0]["lines"]) or any("Female" in line for line in found[0]["lines"])
    only = {"age": None, "gender": None, "race": None}
    valence = table(40, path=paths, true_valence=np.full(40, 0.5), valence=np.linspace(-1, 1, 40), **only)
    assert {tile["right"] for tile in tiles(valence, pictures, 10)} == {True, False}
    assert tiles(table(40, path=paths, **only), pictures, 10) == []
    assert tiles(predictions, pictures, 0) == []
