from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from mien.tasks.age import UNIT, AgeSettings, AgeTask
from mien.tasks.ordinal import METHODS

NAN = float("nan")


def make(features: int = 8, **settings: Any) -> AgeTask:
    torch.manual_seed(0)
    return AgeTask("age", AgeSettings(**settings), features)


def labels_of(*ages: float | tuple[float, float]) -> Tensor:
    return torch.tensor([age if isinstance(age, tuple) else (age, age) for age in ages])


MIXED = labels_of(23, (30, 39), 1, 88, (0, 2), 45)


def total(task: AgeTask, terms: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    return sum((task.loss_weights()[term] * value / count for term, (value, count) in terms.items()), torch.zeros(()))


@pytest.mark.parametrize("method", METHODS)
def test_a_face_without_a_label_changes_nothing_bit_for_bit(method: str) -> None:
    """Must-show f: other faces appended to the call, or anything at all in an unlabelled face's outputs."""
    task = make(method=method, hidden=5)
    features = torch.randn(6, 8)

    def learn(extra: int, garbage: float) -> tuple[list[Tensor], list[Tensor]]:
        task.zero_grad()
        outputs = task(features)
        more = {k: torch.cat([v, v.new_full((extra, *v.shape[1:]), garbage)]) for k, v in outputs.items()}
        labels = torch.cat([MIXED, torch.full((extra, 2), NAN)])
        terms = task.losses(more, labels, torch.cat([torch.arange(1.0, 7.0), torch.ones(extra)]))
        total(task, terms).backward()
        gradients = [p.grad.clone() for p in task.parameters() if p.grad is not None]
        return [x.detach() for pair in terms.values() for x in pair], gradients

    plain = learn(0, 0.0)
    for garbage in (1.0, 1e30, NAN, float("inf")):
        assert all(
            torch.equal(a, b)
            for one, two in zip(plain, learn(7, garbage), strict=True)
            for a, b in zip(one, two, strict=True)
        )
    assert len(plain[1]) == len(list(task.parameters()))


@pytest.mark.parametrize("method", METHODS)
def test_what_an_unlabelled_face_looks_like_does_not_matter(method: str) -> None:
    task = make(method=method)
    labels = torch.cat([MIXED, torch.full((3, 2), NAN)])
    results = []
    for seed in (0, 1):
        features = torch.cat([torch.ones(6, 8), torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)) * 100])
        task.zero_grad()
        total(task, task.losses(task(features), labels)).backward()
        results.append([p.grad.clone() for p in task.parameters() if p.grad is not None])
    assert results[0]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_without_any_label_there_are_no_terms(method: str) -> None:
    task = make(method=method)
    nobody = torch.full((3, 2), NAN)
    assert task.losses(task(torch.randn(3, 8)), nobody) == {}
    assert set(task.count(nobody).values()) == {0}
    assert task.fit(task(torch.randn(3, 8)), nobody) == {}
    assert all(np.isnan(v) for v in task.metrics(task.decode(task(torch.randn(3, 8)), {}), nobody).values())


@pytest.mark.parametrize("method", METHODS)
def test_terms_counts_and_weights_agree(method: str) -> None:
    task = make(method=method)
    labels = torch.cat([MIXED, torch.full((3, 2), NAN)])
    terms = task.losses(task(torch.randn(9, 8)), labels)
    assert terms.keys() == task.loss_weights().keys() == task.count(labels).keys()
    assert {term: int(count) for term, (_, count) in terms.items()} == task.count(labels)
    expected = (
        {"regression": 1.2} if method == "regression" else {"ordinal": 1.5, "regression": 1.2, "consistency": 0.2}
    )
    assert task.loss_weights() == expected


@pytest.mark.parametrize("method", METHODS)
def test_overfits_32_faces(method: str) -> None:
    task = make(64, method=method)
    features, ages = torch.randn(32, 64), torch.randint(0, 91, (32,)).float()
    labels = torch.stack([ages, ages], 1)
    optimiser = torch.optim.Adam(task.parameters(), lr=0.1)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimiser.zero_grad()
        total(task, task.losses(task(features), labels)).backward()
        optimiser.step()
    metrics = task.metrics(task.decode(task(features), {}), labels)
    assert metrics["mae"] < 1
    assert max(metrics.values()) < 1.5  # each head for itself as well


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_throughout_stays_finite(method: str) -> None:
    task = make(method=method).bfloat16()
    outputs = task(100 * torch.randn(6, 8, dtype=torch.bfloat16))
    terms = task.losses(outputs, MIXED)
    loss = total(task, terms)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)
    columns = task.decode(outputs, {})
    assert np.isfinite(columns["age"]).all()


def test_autocast_keeps_losses_in_float32() -> None:
    task = make(hidden=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = task.losses(task(torch.randn(6, 8)), MIXED)
    assert {value.dtype for pair in terms.values() for value in pair} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "by_hand"),
    [
        ("l1", lambda d: d),
        ("mse", lambda d: d**2),
        ("smooth_l1", lambda d: np.where(d < 0.1, 0.5 * d**2 / 0.1, d - 0.05)),
    ],
)
def test_regression_is_a_hinge_round_the_interval(kind: str, by_hand: Any) -> None:
    task = make(method="regression", regression_loss=kind)
    ages = torch.tensor([20.0, 29.5, 35.0, 39.0, 44.0, 50.0])
    labels = labels_of(26, (30, 39), (30, 39), (30, 39), (30, 39), 50)
    years_off = np.array([6, 0.5, 0, 0, 5, 0])
    value, count = task.losses({"regression": ages}, labels)["regression"]
    assert float(value) == pytest.approx(by_hand(years_off / UNIT).sum(), rel=1e-6)
    assert int(count) == 6


def test_consistency_is_smooth_l1_between_mean_and_regression() -> None:
    task = make(method="classification")
    logits = torch.randn(2, 101)
    regression = torch.tensor([30.0, 60.0])
    value, _ = task.losses({"ordinal": logits, "regression": regression}, labels_of(1, 2))["consistency"]
    means = logits.softmax(1) @ torch.arange(101.0)
    reference = F.smooth_l1_loss(means / 10, regression / 10, beta=0.1, reduction="sum")
    torch.testing.assert_close(value, reference)


def test_weights_scale_each_face() -> None:
    task = make()
    outputs = task(torch.randn(6, 8))
    each = [task.losses({k: v[i : i + 1] for k, v in outputs.items()}, MIXED[i : i + 1]) for i in range(6)]
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0, 1.0])
    for term, (value, count) in task.losses(outputs, MIXED, weights).items():
        torch.testing.assert_close(value, sum(w * one[term][0] for w, one in zip(weights, each, strict=True)))
        assert int(count) == 6


def noisy(task: AgeTask, n: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs whose heads know the age with noise of their own; the distribution admits half of its own."""
    generator = torch.Generator().manual_seed(seed)
    ages = torch.randint(0, 91, (n,), generator=generator).float()
    spread = 1 + 7 * torch.rand(n, generator=generator)
    seen = ages + spread * torch.randn(n, generator=generator)
    logits = -0.5 * ((torch.arange(101.0) - seen[:, None]) / (spread[:, None] / 2)) ** 2
    regression = ages + 8 * torch.randn(n, generator=generator)
    return {"ordinal": logits, "regression": regression}, torch.stack([ages, ages], 1)


def test_fit_finds_temperature_blend_and_intervals() -> None:
    task = make(method="dldl")
    outputs, labels = noisy(task, 3000, 0)
    state = json.loads(json.dumps(task.fit(outputs, labels)))
    assert state["n"] == 3000
    assert state["temperature"] == pytest.approx(4.0, rel=0.1)  # half the true std: four times the logits
    assert state["mae"]["fitted"] <= min(state["mae"][head] for head in ("default", "ordinal", "regression"))
    assert 0.7 < state["blend"] < 1

    outputs, labels = noisy(task, 6000, 1)
    columns, truth = task.decode(outputs, state), labels[:, 0].numpy()
    assert columns.keys() == {"age", "age_std", "age_low", "age_high", "age_ordinal", "age_regression"}
    covered = (columns["age_low"] <= truth) & (truth <= columns["age_high"])
    assert 0.88 < covered.mean() < 0.92
    width = columns["age_high"] - columns["age_low"]
    unsure = columns["age_std"] > np.median(columns["age_std"])
    assert width[unsure].mean() > 1.4 * width[~unsure].mean()
    blended = state["blend"] * columns["age_ordinal"] + (1 - state["blend"]) * columns["age_regression"]
    inside = (columns["age_regression"] > 0) & (columns["age_regression"] < 100)
    np.testing.assert_allclose(columns["age"][inside], blended[inside], atol=1e-3)
    assert columns["age_low"].min() >= 0
    assert columns["age_high"].max() <= 120


@pytest.mark.parametrize(
    ("weights", "head"),
    [({"ordinal_weight": 0}, "age_regression"), ({"regression_weight": 0}, "age_ordinal")],
)
def test_a_head_that_no_loss_teaches_says_nothing(weights: dict[str, float], head: str) -> None:
    task = make(method="dldl", fit_blend=False, consistency_weight=0, **weights)
    outputs = task(torch.randn(5, 8))
    columns = task.decode(outputs, {})
    np.testing.assert_array_equal(columns["age"], columns[head])
    assert task.fit(outputs, labels_of(20, 30, 40, 50, 60))["mae"]["default"] == pytest.approx(
        np.abs(columns[head] - [20, 30, 40, 50, 60]).mean(), abs=1e-4
    )
    # The one follows the other where they are held together.
    assert make(consistency_weight=0.2, **weights).options.share == 0.6


def test_the_default_blend_is_sixty_forty_and_may_be_kept() -> None:
    outputs, labels = noisy(make(method="dldl"), 500, 0)
    for task, state in (
        (make(method="dldl"), {}),
        (make(method="dldl", fit_blend=False), {"blend": 0.0}),
    ):
        columns = task.decode(outputs, state)
        inside = (columns["age_regression"] > 0) & (columns["age_regression"] < 100)
        mixed = 0.6 * columns["age_ordinal"] + 0.4 * columns["age_regression"]
        np.testing.assert_allclose(columns["age"][inside], mixed[inside], atol=1e-3)
        assert np.isnan(columns["age_low"]).all()
    kept = make(method="dldl", fit_blend=False).fit(outputs, labels)
    assert "default" in kept["mae"]
    assert "fitted" in kept["mae"]
    assert kept["conformal"] != make(method="dldl").fit(outputs, labels)["conformal"]  # of the age that is told


def test_only_exact_ages_are_fitted_and_measured() -> None:
    task = make(method="dldl")
    outputs, labels = noisy(task, 400, 0)
    blurred = labels.clone()
    blurred[200:, 1] += 9
    blurred[300:] = NAN
    half = {name: value[:200] for name, value in outputs.items()}
    assert task.fit(outputs, blurred) == task.fit(half, labels[:200])
    all_columns, half_columns = task.decode(outputs, {}), task.decode(half, {})
    measured = task.metrics(all_columns, blurred)
    assert 0 < measured.pop("inside") < 1
    assert measured == task.metrics(half_columns, labels[:200])


def test_temperature_stays_one_where_it_does_not_help() -> None:
    task = make(method="classification", regression=False)
    truth = torch.arange(10.0, 60.0)
    outputs = {"ordinal": F.one_hot(truth.long(), 101) * 200.0}  # surely right: any other is less likely
    state = task.fit(outputs, torch.stack([truth, truth], 1))
    assert state["temperature"] == 1.0
    assert state["mae"] == {"ordinal": 0.0, "default": 0.0}
    assert "blend" not in state


def test_regression_alone() -> None:
    task = make(method="regression", regression=False)  # the method wins: there is nothing else to learn
    outputs = task(torch.randn(50, 8))
    assert outputs.keys() == {"regression"}
    ages = torch.arange(50.0)
    state = task.fit(outputs, torch.stack([ages, ages], 1))
    columns = task.decode(outputs, state)
    assert columns.keys() == {"age", "age_std", "age_low", "age_high"}
    assert np.isnan(columns["age_std"]).all()
    assert (columns["age_low"] <= columns["age"]).all()


@pytest.mark.parametrize("decode", ["median", "mean", "argmax"])
def test_decoding_is_configurable(decode: str) -> None:
    task = make(method="classification", regression=False, decode=decode)
    logits = torch.full((1, 101), -100.0)
    logits[0, [10, 40, 90]] = torch.tensor([0.45, 0.3, 0.25]).log()
    expected = {"argmax": 10, "median": 39.5 + 0.05 / 0.3, "mean": 4.5 + 12 + 22.5}[decode]
    assert float(task.decode({"ordinal": logits}, {})["age"][0]) == pytest.approx(expected, abs=1e-3)


def test_metrics_by_hand() -> None:
    columns = {"age": np.array([12.0, 25.0, 50.0, 99.0], dtype=np.float32)}
    found = make().metrics(columns, labels_of(5, 20, 22, (30, 40)))
    assert found == pytest.approx({"mae": 40 / 3, "macro_mae": (7 + 16.5) / 2, "bias": 40 / 3, "inside": 0})


def test_encode_and_condition() -> None:
    task = make()
    labels = task.encode(
        {"age_low": np.array([3, 20, NAN], np.float32), "age_high": np.array([3, 29, NAN], np.float32)}
    )
    assert labels.dtype == torch.float32
    assert task.labelled(labels).tolist() == [True, True, False]
    for method, years in (("classification", 20.0), ("regression", 30.0)):
        outputs = {"ordinal": F.one_hot(torch.tensor([20]), 101) * 99.0, "regression": torch.tensor([30.0])}
        torch.testing.assert_close(make(method=method).condition(outputs), torch.tensor([[years / 100]]))
    told = task.condition(task(1000 * torch.randn(20, 8)))
    assert told.shape == (20, task.width)
    assert (told >= 0).all()
    assert (told <= 1).all()


def test_given_probabilities_are_used() -> None:
    task = AgeTask("age", AgeSettings(given=["gender"], hidden=3), 8, given=2)
    features = torch.randn(4, 8)
    one, two = (task(features, F.one_hot(torch.full((4,), i), 2).float())["regression"] for i in (0, 1))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "corall"}, "did you mean 'coral'"),
        ({"regression": False, "ordinal_weight": 0}, "switched off"),
        ({"method": "regression", "regression_weight": 0}, "switched off"),
        ({"blend": 1.2}, "less than or equal to 1"),
        ({"sigma": 0}, "greater than 0"),
        ({"thresholds": 44}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AgeSettings(**settings)
