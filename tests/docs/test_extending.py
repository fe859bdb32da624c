"""Every snippet of docs/extending.md is run, in its order, and what it adds is used."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mien.data.manifest import Manifest
from mien.data.pictures import encode
from mien.data.prepare import prepare
from mien.data.sources import SOURCES
from mien.errors import MienError
from mien.evaluation.judge import AGE_FIGURES
from mien.jobs.inputs import expand
from mien.jobs.predict import load
from mien.tasks.face import TASKS
from mien.training.optim import SCHEDULES
from mien.training.recipe import check_recipe
from mien.training.run import train_run

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def added() -> Iterator[dict]:
    """The snippets' names; the tables are as before when the test is over."""
    tables = (SOURCES, AGE_FIGURES, TASKS, SCHEDULES)
    before = [dict(table) for table in tables]
    module = ModuleType("extending_example")
    sys.modules[module.__name__] = module  # timm looks a registered network's module up
    names = vars(module)
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(snippet, str(PAGE), "exec"), names)
    yield names
    del sys.modules[module.__name__]
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)


def test_what_the_page_adds_trains_and_is_judged(added: dict, tmp_path: Path) -> None:
    assert PAGE.read_text(encoding="utf-8").count("```python") == 5
    random = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(60):
        image = random.integers(0, 256, (3, 32, 32), dtype=np.uint8)
        (pictures / f"p{number}_{10 + number}.png").write_bytes(encode(image, "PNG"))
    (pictures / "nobody.png").write_bytes(encode(image, "PNG"))
    made = prepare(added["Initials"](), pictures, tmp_path / "faces", show=False)
    assert [item.reason for item in made.rejected] == ["no age in its name"]
    assert Manifest.open(tmp_path / "faces").numbers("smile").tolist() == [0.5] * 60
    recipe = check_recipe(
        {
            "name": "extended",
            "data": {"faces": str(tmp_path / "faces"), "workers": 0},
            "model": {"backbone": "small_example"},
            "tasks": {"gender": None, "race": None, "smile": {"mse_weight": 2.0}},
            "optim": {"schedule": "root", "warmup_epochs": 0, "lr": 0.01},
            "training": {"epochs": 2, "batch": 16, "precision": "fp32"},
        },
        "test",
    )
    result = train_run(recipe, tmp_path / "run", show=False)
    assert result is not None
    rates = [entry["lr"] for entry in result["history"]]
    # Of the last step: (1 + 1/2)^-0.5 and (1 + 1 + 1/2)^-0.5, with two steps an epoch.
    assert rates == pytest.approx([0.01 * 1.5**-0.5, 0.01 * 2.5**-0.5])
    assert 0 <= result["metrics"]["val"]["age"]["cs10"]["low"] <= result["metrics"]["val"]["age"]["cs10"]["high"] <= 1
    answers = load(tmp_path / "run", "cpu")
    told = answers.predict(pictures / "p0_10.png", crops=True)[0]
    assert -1 <= told.own["smile"] <= 1
    assert told.to_row()["smile"] == told.own["smile"]
    asked = answers.asking(expand([str(pictures)]), crops=True, tasks="smile")
    assert asked.tasks == ("smile",)
    assert str(asked.schema().field("smile").type) == "float"
    del TASKS["smile"]
    with pytest.raises(MienError, match="smile is no task of mien's; the program that adds it"):
        load(tmp_path / "run", "cpu")
    assert any(name.startswith("smile/") for name in result["history"][0]["select"])
