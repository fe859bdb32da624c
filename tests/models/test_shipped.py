"""The models that come with the package."""

import json
import re

import numpy as np
import pytest
import torch

from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample
from mien.models.checkpoint import (
    CODE,
    DEFAULT_MODEL,
    FACTS,
    LANDMARKER,
    RENDERER,
    load_estimator,
    load_landmarker,
    load_renderer,
    shipped_models,
)

KINDS = {name: json.loads((folder / FACTS).read_text())["kind"] for name, folder in shipped_models().items()}
LOADERS = {
    "estimator": load_estimator,
    "landmarker": load_landmarker,
    "age_transformer": load_renderer,
    "beta_vae": load_renderer,
}


def test_the_models_that_commands_ask_by_themselves_are_there() -> None:
    assert KINDS[DEFAULT_MODEL] == "estimator"
    assert KINDS[LANDMARKER] == "landmarker"
    assert KINDS[RENDERER] in ("age_transformer", "beta_vae")
    assert KINDS[CODE] == "beta_vae"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_loads_is_small_and_says_its_terms_data_and_figures(name: str) -> None:
    folder = shipped_models()[name]
    network = LOADERS[KINDS[name]](name)
    assert network.name == name
    assert {"terms", "data", "figures"} <= set(network.card)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("**Terms.**", "**Data.**", "**Made by**", "**Judged**", "## Limits", network.card["terms"]):
        assert part in card
    # A figure with its interval, and none that was left blank.
    assert re.search(r"\d( %)? \[\S+, \S+\]", card)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20e6


def test_the_renderer_gives_the_same_bytes_twice_and_other_pictures_at_other_ages() -> None:
    network = load_renderer()
    face = torch.from_numpy(draw(sample(3, 1), 112)[0].copy())[None]
    ages = torch.tensor([[10.0, 40.0, 70.0]])
    with torch.inference_mode():
        once, again = (network.render(face, ages) for _ in range(2))
    assert once.shape == (1, 3, 3, 112, 112)
    assert torch.equal(once, again)
    assert 0 <= once.min() <= once.max() <= 1
    assert (once[0, 1:] - once[0, :-1]).abs().mean(dim=(1, 2, 3)).min() > 0.01


def test_weights_in_half_precision_answer_in_single() -> None:
    network = load_renderer(CODE)
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {torch.float32}
    face = torch.from_numpy(draw(sample(3, 1), 64)[0].copy())[None]
    with torch.inference_mode():
        made = network.render(face, torch.tensor([[10.0, 70.0]]))
    assert made.dtype == torch.float32
    assert (made[0, 1] - made[0, 0]).abs().mean() > 0.005


#: What each says today of six drawn faces: other weights, or other pixels before them, say other things.
SAID = {
    "face-mobile": ("age", [25.5, 75.2, 31.0, 8.3, 57.8, 64.5], 1.0),
    "face-ensemble": ("age", [26.8, 72.5, 29.7, 5.1, 56.7, 63.6], 1.0),
    "face-affect": ("valence", [-0.48, -0.14, -0.19, 0.45, -0.48, -0.30], 0.04),
}


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind == "estimator"])
def test_shipped_estimators_say_what_they_said(name: str) -> None:
    column, expected, near = SAID[name]
    estimator = load_estimator(name)
    images = torch.from_numpy(np.stack([draw(sample(5, number), 112)[0] for number in range(0, 24, 4)]))
    with torch.inference_mode():
        outputs = estimator(images)
    said = estimator.task(column).decode(outputs[column], {})[column]
    assert said == pytest.approx(expected, abs=near)
