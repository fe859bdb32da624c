"""Judges: equal pictures are looked at once, a mixture of experts is one, an estimator's features know a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample
from mien.errors import MienError
from mien.evaluation.ageing.judges import EstimatorJudge, IdentityJudge, Judges, MixtureJudge, load_judge
from mien.experts.ours import Ours
from mien.models.checkpoint import load_estimator
from tests.evaluation.ageing.conftest import Coarse, RedAge


def faces(count: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([draw(sample(1, number), 112)[0] for number in range(count)]))


def test_equal_pictures_are_looked_at_once_and_answers_keep_their_order() -> None:
    age = RedAge()
    images = faces(3)[[2, 0, 2, 1, 0]]
    found = Judges(age, Coarse()).look(images)  # type: ignore[arg-type]
    assert age.seen == 3
    assert found["age"] == pytest.approx(images[:, 0].double().mean(dim=(1, 2)).numpy() / 2.55)
    assert found["embedding"].shape == (5, 108)
    assert found["gender"].shape == (5,)


def test_a_mixture_is_the_mean_of_its_experts_and_its_hash_tells_it_from_others(tmp_path: Path) -> None:
    file = tmp_path / "experts.yaml"
    each = "  - {kind: ours, name: NAME, model: face-mobile}\n"
    other = "  - {kind: ours, name: b, model: face-ensemble}\n"
    file.write_text("fusion: mean\nexperts:\n" + each.replace("NAME", "a") + other)
    judge, images = load_judge(str(file)), faces(2)
    assert isinstance(judge, MixtureJudge)
    assert judge.name == "experts (a, b)"
    alone = EstimatorJudge(load_estimator("face-mobile"))
    ages = [Ours(name).ask(list(images.numpy())).ages for name in ("face-mobile", "face-ensemble")]
    assert np.abs(ages[0] - ages[1]).max() > 0.5
    assert judge.ask(images)["age"] == pytest.approx(np.mean(ages, axis=0), abs=1e-3)
    assert set(judge.ask(images)) == {"age"}
    assert {"age", "gender", "race"} <= set(alone.ask(images))
    file.write_text("experts:\n" + each.replace("NAME", "a"))
    assert load_judge(str(file)).hash != judge.hash


def test_identity_by_an_estimators_features() -> None:
    judge = IdentityJudge("face-mobile")
    embedded = judge.embed(faces(2))
    assert np.linalg.norm(embedded, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert judge.perceptual is None
    assert judge.name == "features of face-mobile"


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(picture)
    with pytest.raises(MienError):
        IdentityJudge(picture)
