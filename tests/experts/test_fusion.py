"""The fusion against hand-computed cases, and on experts whose errors are known."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.errors import MienError
from mien.experts import fusion as module
from mien.experts.fusion import Fusion, fit

nan = float("nan")


def two(tau: float = 1.0) -> Fusion:
    return Fusion(["a", "b"], mu=[0.0, 10.0], sigma=[1.0, 2.0], tau=tau)


def test_by_hand() -> None:
    # Standardised: (1 - 0) / 1 = 1 and (12 - 10) / 2 = 1: equal weights.
    fused = two()(np.array([[20.0, 40.0]]), np.array([[1.0, 12.0]]), np.array([[9.0, 25.0]]))
    assert fused.weights[0] == pytest.approx([0.5, 0.5])
    assert (fused.age[0], fused.between[0], fused.total[0]) == pytest.approx((30.0, 100.0, 117.0))
    part = two()(np.array([[20.0, 40.0]]), np.array([[1.0, 12.0]]), np.array([[9.0, nan]]))
    assert part.total[0] == pytest.approx(104.5)  # one that gives none adds nothing
    # 2 against 0 at tau 2: weights e^1 : e^0.
    fused = two(tau=2.0)(np.array([[20.0, 40.0]]), np.array([[2.0, 10.0]]))
    share = np.e / (np.e + 1)
    assert fused.weights[0] == pytest.approx([share, 1 - share])
    assert fused.age[0] == pytest.approx(20 * share + 40 * (1 - share))
    assert fused.between[0] == pytest.approx(share * (1 - share) * 400)


def test_one_expert_is_believed_as_it_is() -> None:
    fused = Fusion(["a"], [3.0], [2.0])(np.array([[31.0], [nan]]), np.array([[0.1], [0.2]]))
    assert fused.age[0] == 31
    assert fused.between[0] == 0
    assert np.isnan(fused.age[1])
    assert fused.answered.tolist() == [1, 0]


def test_missing_experts_are_masked_and_the_weights_of_the_others_sum_to_one() -> None:
    ages = np.array([[20.0, nan], [nan, nan], [20.0, 40.0]])
    confidences = np.array([[nan, 50.0], [1.0, 1.0], [nan, 10.0]])
    fused = two()(ages, confidences)
    assert fused.age[0] == 20
    assert fused.weights[0].tolist() == [1.0, 0.0]
    assert np.isnan([fused.age[1], fused.between[1], fused.total[1]]).all()
    assert fused.weights[1].tolist() == [0.0, 0.0]
    assert fused.age[2] == 30  # without a confidence it is as sure as it usually is


def test_extreme_confidences_neither_overflow_nor_share() -> None:
    for huge in (1e300, np.inf):
        fused = two(tau=0.05)(np.array([[20.0, 40.0]]), np.array([[-huge, huge]]))
        assert fused.age[0] == 40
        assert fused.weights[0].tolist() == [0.0, 1.0]


@given(st.floats(-1e3, 1e3), st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_a_common_shift_of_mu_changes_nothing(shift: float, confidences: list[float]) -> None:
    ages = np.array([[10.0, 30.0, 70.0]])
    one = Fusion(["a", "b", "c"], [0.0, 1.0, 2.0], [1.5] * 3)(ages, np.array([confidences]))
    other = Fusion(["a", "b", "c"], [shift, 1.0 + shift, 2.0 + shift], [1.5] * 3)(ages, np.array([confidences]))
    assert other.age == pytest.approx(one.age, abs=1e-6)


def test_a_common_mu_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="mu is common to all experts: it cancels"):
        Fusion(["a", "b"], [0.5, 0.5], [1.0, 1.0])


def planted(count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Three experts whose error grows as their confidence falls; the third says ages two fifths too high."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(5, 80, count)
    spread = rng.uniform(1, 12, (count, 3))
    ages = true[:, None] + rng.normal(0, spread) + np.array([0, 1.0, 0]) + np.outer(true * 0.4, [0, 0, 1.0])
    return ages, -spread * [1, 10, 0.1] + [0, 500, 7], true, spread**2


def test_a_fit_finds_bias_and_temperature_and_beats_every_expert() -> None:
    ages, confidences, true, variances = planted(3000)
    fusion = fit(["a", "b", "c"], ages, confidences, true, variances)
    held, sure, truth, own = planted(3000, seed=1)
    fused = fusion(held, sure, own)
    single = np.abs(held - truth[:, None]).mean(0)
    error = np.abs(fused.age - truth).mean()
    assert error < 0.75 * single.min()
    assert error < np.abs(held[:, :2].mean(1) - truth).mean()
    assert np.interp(70.0, fusion.knots, fusion.bias["c"]) == pytest.approx(20, abs=3)  # 70 = 1.4 x 50
    held_in = (fused.low <= truth) & (truth <= fused.high)
    assert held_in.mean() == pytest.approx(0.9, abs=0.02)
    assert np.corrcoef(fused.high - fused.low, np.abs(fused.age - truth))[0, 1] > 0.1


def test_a_fit_tells_how_far_off_each_expert_is() -> None:
    true = np.linspace(10, 60, 101)
    noise = np.random.default_rng(0).normal(0, 3, (101, 3))
    ages = true[:, None] + [0.0, 5.0, 0.0] + noise
    ages[::2, 0], ages[:, 2] = nan, nan
    fusion = fit(["half", "biased", "silent"], ages, np.zeros((101, 3)), true)
    assert fusion.mae["half"] == pytest.approx(np.abs(noise[1::2, 0]).mean())
    assert fusion.mae["biased"] == pytest.approx(np.abs(noise[:, 1] + 5).mean())
    assert fusion.mae["silent"] is None
    # Bias taken off, two answers where there are two: better than either, and not as good as on the faces of the fit.
    assert fusion.fused_mae is not None
    inside = np.abs(fusion(ages, np.zeros((101, 3))).age - true).mean()
    assert inside < fusion.fused_mae < fusion.mae["biased"]


def test_a_person_is_held_out_with_all_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    ages, confidences, _, _ = planted(100)
    person = np.arange(100) % 25  # four faces each, of one age that nobody else has
    true = 20.0 + person
    learnt: list[set[float]] = []
    whole = module._fit
    monkeypatch.setattr(module, "_fit", lambda *given: learnt.append(set(given[3])) or whole(*given))
    fit(["a", "b", "c"], ages, confidences, true, groups=person)
    assert len(learnt) == module.FOLDS + 1
    held = [set(true) - some for some in learnt]
    assert sorted(age for some in held for age in some) == sorted(set(true))  # each once, with all faces
    # Faces of unknown persons stand alone, as all do unless told.
    same = fit(["a", "b", "c"], ages, confidences, true, groups=np.full(100, -1.0))
    assert same == fit(["a", "b", "c"], ages, confidences, true)
    with pytest.raises(MienError, match="all of one person"):
        fit(["a", "b", "c"], ages, confidences, true, groups=np.zeros(100))


def test_it_is_saved_and_read_back(tmp_path: Path) -> None:
    ages, confidences, true, variances = planted(200)
    fusion = fit(["a", "b", "c"], ages, confidences, true, variances)
    fusion.save(tmp_path / "fusion.json")
    again = Fusion.from_dict(json.loads((tmp_path / "fusion.json").read_text()))
    for one, other in zip(
        vars(fusion(ages, confidences)).values(), vars(again(ages, confidences)).values(), strict=True
    ):
        np.testing.assert_allclose(one, other)


def test_wrong_shapes_and_too_few_faces_are_refused() -> None:
    with pytest.raises(MienError, match=r"answers of shape \(4, 3\), expected \(faces, 2\)"):
        two()(np.zeros((4, 3)), np.zeros((4, 3)))
    with pytest.raises(MienError, match="10 trusted faces with an age and an answer; a fit takes 50 or more"):
        fit(["a", "b"], np.zeros((10, 2)), np.zeros((10, 2)), np.zeros(10))
    with pytest.raises(MienError, match="tau is 0"):
        Fusion(["a"], [0.0], [1.0], tau=0)
    for wrong in (
        {"mu": [None, 0.0]},
        {"sigma": ["a", 1.0]},
        {"tau": float("inf")},
        {"interval": [1.0, 2.0]},
        {"knots": [0.0, 5.0], "bias": {"a": [0.0, 0.0]}},
        {"bias": [1.0]},
    ):
        with pytest.raises(MienError, match="not a fusion of experts"):
            Fusion.from_dict({"experts": ["a", "b"], "mu": [0.0, 0.0], "sigma": [1.0, 2.0], **wrong})
    with pytest.raises(MienError, match="not a fusion of experts"):
        Fusion.from_dict({"names": []})


@pytest.mark.parametrize("wrong", [{"sigma": ["1"]}, {"knots": [0.0, 5.0]}, {"knots": [0.0], "bias": {"a": []}}])
def test_a_file_that_was_changed_by_hand_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MienError, match="not a fusion of experts"):
        Fusion.from_dict({"experts": ["a"], "mu": [0.0], "sigma": [1.0], **wrong})


def test_a_merit_counts_beside_the_confidence() -> None:
    # Logits: (2 - 1) / 1 / 2 + 0.5 * log 4 = 0.5 + log 2, and (3 - 3) / 1 / 2 + 0.5 * log 1 = 0.
    fusion = Fusion(["a", "b"], [1.0, 3.0], [1.0, 1.0], tau=2.0, merit=[np.log(4.0), 0.0], gamma=0.5)
    fused = fusion(np.array([[30.0, 40.0]]), np.array([[2.0, 3.0]]))
    share = 2 * np.exp(0.5) / (2 * np.exp(0.5) + 1)
    np.testing.assert_allclose(fused.weights, [[share, 1 - share]])
    np.testing.assert_allclose(fused.age, [30 * share + 40 * (1 - share)])
    with pytest.raises(MienError, match="2 experts has 1 merits"):
        Fusion(["a", "b"], [1.0, 3.0], [1.0, 1.0], merit=[0.0])


def test_a_poor_expert_has_little_say_however_sure_it_is_of_itself() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(5, 80, 600)
    off = np.array([4.0, 4.0, 15.0])
    ages = true[:, None] + rng.normal(size=(600, 3)) * off
    sure = rng.normal(size=(600, 3))
    fusion = fit(["a", "b", "poor"], ages[:300], sure[:300], true[:300])
    np.testing.assert_allclose(np.array(fusion.merit), -2 * np.log(off), atol=0.4)
    fused = fusion(ages[300:], sure[300:])
    assert fused.weights[:, 2].mean() < 0.1
    error = np.abs(ages[300:] - true[300:, None]).mean(0)
    assert np.abs(fused.age - true[300:]).mean() < 0.85 * error.min()
    assert Fusion.from_dict(json.loads(json.dumps(asdict(fusion)))) == fusion


@pytest.mark.parametrize("answers", [1, 2])
def test_an_expert_with_hardly_an_answer_at_trusted_faces_does_not_decide_alone(answers: int) -> None:
    generator = np.random.default_rng(0)
    true = generator.uniform(1, 80, 100)
    ages = true[:, None] + generator.normal(size=(100, 3)) * [4, 6, 20]
    sure = -generator.uniform(7, 9, (100, 3))
    ages[answers:, 2], sure[answers:, 2] = nan, nan
    ages[:answers, 2], sure[:answers, 2] = true[:answers] + 9, [-8.0, -8.001][:answers]
    fused = fit(["a", "b", "c"], ages, sure, true)(np.array([[40.0, 40.0, 70.0]]), np.array([[-8.0, -8.0, -7.0]]))
    assert fused.weights[0, 2] < 1 / 3


def test_the_interval_of_an_expert_that_is_never_wrong_is_its_age() -> None:
    true = np.random.default_rng(0).uniform(1, 80, 60)
    fusion = fit(["a"], true[:, None], np.zeros((60, 1)), true)
    fused = Fusion.from_dict(json.loads(json.dumps(asdict(fusion))))(np.array([[30.0]]), np.array([[0.0]]))
    assert (fused.low[0], fused.high[0]) == (30.0, 30.0)


def test_the_interval_holds_what_it_says_with_few_trusted_faces_and_many_experts() -> None:
    held = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        true = rng.uniform(1, 90, 2050)
        spread = 5 * np.exp(rng.normal(0, 0.3, (2050, 12)))
        ages = true[:, None] + rng.normal(0, spread) + 0.1 * (45 - true)[:, None]
        few, others = slice(50), slice(50, None)
        names = [f"expert{number}" for number in range(12)]
        fusion = fit(names, ages[few], -spread[few], true[few], spread[few] ** 2)
        fused = fusion(ages[others], -spread[others], spread[others] ** 2)
        held.append(((fused.low <= true[others]) & (true[others] <= fused.high)).mean())
    assert np.mean(held) == pytest.approx(0.9, abs=0.03)  # scores of the faces that it was fitted on: 0.83


def test_the_interval_is_fitted_by_least_squares_and_a_conformal_quantile() -> None:
    total = np.linspace(1, 30, 19)
    assert module._interval(np.sqrt(4 + 2 * total), total) == pytest.approx((4, 2, 1))
    errors = np.arange(1.0, 20)
    for told in (np.zeros(19), -errors):  # a variance that says nothing, and one that falls as errors grow
        a, b, q = module._interval(errors, told)
        assert (a, b) == pytest.approx((np.square(errors).mean(), 0), abs=1e-9)
        assert q * np.sqrt(a) == pytest.approx(18)  # the 18th of 19: (19 + 1) x 0.9


def test_ages_and_their_intervals_stay_within_a_life() -> None:
    fusion = Fusion(
        ["a", "b"], [0, 0], [1, 2], knots=[0, 120], bias={"a": [5, -5], "b": [6, -6]}, interval=(25.0, 1.0, 2.0)
    )
    fused = fusion(np.array([[1.0, 2], [0, 0], [119, 120], [40, 42]]), np.zeros((4, 2)))
    assert fused.age[:3] == pytest.approx([0, 0, 120])
    half = 2 * np.sqrt(25 + fused.total[3])
    assert (fused.low[3], fused.high[3]) == pytest.approx((fused.age[3] - half, fused.age[3] + half))
    assert ((fused.low >= 0) & (fused.low <= fused.age) & (fused.age <= fused.high) & (fused.high <= 120)).all()


def test_experts_without_confidences_are_no_reason_to_warn(recwarn: pytest.WarningsRecorder) -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(10, 80, 60)
    fit(["a", "b"], true[:, None] + rng.normal(0, 5, (60, 2)), np.full((60, 2), np.nan), true)
    assert not recwarn.list
