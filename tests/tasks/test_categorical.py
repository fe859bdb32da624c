from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import sklearn.utils.class_weight
import torch
import torch.nn.functional as F

from mien.errors import MienError
from mien.faces import RACES
from mien.tasks.categorical import CategoricalSettings, CategoricalTask


def make(**settings: Any) -> CategoricalTask:
    torch.manual_seed(0)
    return CategoricalTask("race", RACES, CategoricalSettings(**settings), features=6)


LABELS = torch.tensor([0, 4, -1, 2, 2, -1, 1])
SOFT = torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.2, 0.8], [float("nan")] * 5])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_loss_by_hand(smoothing: float) -> None:
    task = make(label_smoothing=smoothing, class_weights=[1, 2, 3, 4, 5])
    outputs = task(torch.randn(7, 6))
    value, count = task.losses(outputs, LABELS)["cross_entropy"]
    p = outputs["logits"].double().softmax(1).detach().numpy()
    weights = np.arange(1.0, 6.0)
    expected = 0.0
    for row, label in zip(p, LABELS.tolist(), strict=True):
        if label >= 0:
            target = np.full(5, smoothing / 5)
            target[label] += 1 - smoothing
            expected -= (target * weights * np.log(row)).sum()
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    assert int(count) == 5 == task.count(LABELS)["cross_entropy"]


def test_soft_loss_by_hand_and_one_hot_equals_hard() -> None:
    task = make()
    outputs = task(torch.randn(3, 6))
    value, count = task.losses(outputs, SOFT)["cross_entropy"]
    log_p = outputs["logits"].log_softmax(1)
    torch.testing.assert_close(value, -(SOFT[:2] * log_p[:2]).sum())
    assert int(count) == 2
    hard = torch.tensor([3, -1, 0])
    one_hot = F.one_hot(hard.clamp_min(0), 5).float()
    one_hot[1] = float("nan")
    torch.testing.assert_close(
        task.losses(outputs, one_hot)["cross_entropy"][0], task.losses(outputs, hard)["cross_entropy"][0]
    )


@pytest.mark.parametrize("labels", [LABELS[:3], SOFT], ids=["hard", "soft"])
def test_a_face_without_a_label_changes_nothing_bit_for_bit(labels: torch.Tensor) -> None:
    task = make(hidden=4, label_smoothing=0.1)
    features = torch.randn(3, 6)
    missing = torch.full((5, *labels.shape[1:]), -1 if labels.ndim == 1 else float("nan")).to(labels.dtype)
    results = []
    for extra, garbage in ((0, 0.0), (5, 3.0), (5, float("nan"))):
        task.zero_grad()
        logits = task(features)["logits"]
        logits = torch.cat([logits, torch.full((extra, 5), garbage)])
        value, count = task.losses({"logits": logits}, torch.cat([labels, missing[:extra]]))["cross_entropy"]
        (value / count).backward()
        results.append([value.detach(), count, *(p.grad.clone() for p in task.parameters() if p.grad is not None)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_no_labels_no_term() -> None:
    task = make()
    nobody = torch.full((3,), -1)
    outputs = task(torch.randn(3, 6))
    assert task.losses(outputs, nobody) == {}
    assert task.fit(outputs, nobody) == {}
    assert np.isnan(task.metrics(task.decode(outputs, {}), nobody)["accuracy"])
    assert make(weight=0).losses(outputs, LABELS[:3]) == {}


def test_balanced_weights_are_sklearns_and_average_one() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [3] * 4 + [4] + [-1] * 9)
    task = make(class_weights="balanced")
    assert torch.isnan(task.losses(task(torch.randn(7, 6)), LABELS)["cross_entropy"][0])  # not resolved yet
    task.balance(labels)
    known = labels[labels >= 0].numpy()
    expected = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.arange(5), y=known)
    np.testing.assert_allclose(task.class_weights.numpy(), expected, rtol=1e-5)
    assert float(task.class_weights[known].mean()) == pytest.approx(1)
    fixed = make(class_weights=[1, 1, 1, 1, 2])
    fixed.balance(labels)
    assert fixed.class_weights.tolist() == [1, 1, 1, 1, 2]


def test_balanced_weights_without_a_class() -> None:
    task = make(class_weights="balanced")
    task.balance(torch.tensor([0, 0, 1, -1]))
    assert torch.isfinite(task.class_weights).all()
    assert task.class_weights[4] == 1


def test_face_weights() -> None:
    task = make()
    outputs = task(torch.randn(7, 6))
    weights = torch.tensor([1.0, 2, 9, 0, 1, 9, 3])
    value, count = task.losses(outputs, LABELS, weights)["cross_entropy"]
    known = LABELS >= 0
    each = F.cross_entropy(outputs["logits"][known], LABELS[known], reduction="none")
    torch.testing.assert_close(value, (each * weights[known]).sum())
    assert int(count) == 5


def test_decode_and_accuracy() -> None:
    task = make()
    outputs = task(torch.randn(200, 6))
    columns = task.decode(outputs, {})
    assert list(columns) == ["race", "race_p", *(f"race_{word}" for word in RACES)]
    p = np.stack([columns[f"race_{word}"] for word in RACES], axis=1)
    np.testing.assert_allclose(p, outputs["logits"].softmax(1).detach(), atol=1e-6)  # as they are before a fit
    np.testing.assert_array_equal(columns["race_p"], p.max(1))
    assert columns["race"].tolist() == [RACES[i] for i in p.argmax(1)]
    labels = torch.randint(-1, 5, (200,))
    known = labels >= 0
    reference = sklearn.metrics.accuracy_score(labels[known], p.argmax(1)[known.numpy()])
    assert task.metrics(columns, labels)["accuracy"] == pytest.approx(reference)


def test_fitted_temperature_calibrates() -> None:
    task = make()
    logits = 2 * torch.randn(4000, 5)
    labels = torch.distributions.Categorical(logits=logits).sample()
    state = task.fit({"logits": logits / 2}, labels)
    assert state["temperature"] == pytest.approx(0.5, rel=0.1)
    assert state["nll"][1] < state["nll"][0] == pytest.approx(float(F.cross_entropy(logits / 2, labels)))
    columns = task.decode({"logits": logits / 2}, state)
    right = np.array([RACES[i] for i in labels], dtype=object) == columns["race"]
    assert columns["race_p"].mean() == pytest.approx(right.mean(), abs=0.03)


def test_bfloat16_is_finite() -> None:
    task = make()
    value, _ = task.losses({"logits": (300 * torch.randn(7, 5)).bfloat16()}, LABELS)["cross_entropy"]
    assert value.dtype == torch.float32
    assert torch.isfinite(value)


def test_encode() -> None:
    task = make()
    assert task.columns == ("race",)
    assert task.encode({"race": np.array([0, -1, 4])}).dtype == torch.int64
    assert task.encode({"race": SOFT.double().numpy()}).dtype == torch.float32


def test_wrong_number_of_class_weights() -> None:
    with pytest.raises(MienError, match=r"tasks\.race\.class_weights has 2 numbers, expected 5"):
        make(class_weights=[1, 2])
