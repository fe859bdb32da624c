from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.autograd import gradcheck

from mien.metrics import concordance
from mien.tasks.continuous import ContinuousSettings, ContinuousTask, batch_ccc

NAN = float("nan")
LABELS = torch.tensor([0.5, -0.25, NAN, 0.0, 1.0, NAN, -1.0])


def make(**settings: Any) -> ContinuousTask:
    torch.manual_seed(0)
    return ContinuousTask("valence", ContinuousSettings(**settings), features=6)


def test_losses_by_hand() -> None:
    task = make()
    outputs = task(torch.randn(7, 6))
    assert outputs["value"].abs().max() < 1
    terms = task.losses(outputs, LABELS)
    known = ~LABELS.isnan()
    value, target = outputs["value"][known].detach().double().numpy(), LABELS[known].double().numpy()
    assert float(terms["mse"][0].detach()) == pytest.approx(((value - target) ** 2).sum())
    assert float(terms["batch_ccc"][0].detach()) == pytest.approx(5 * (1 - concordance.ccc(target, value)), rel=1e-5)
    assert {name: int(count) for name, (_, count) in terms.items()} == task.count(LABELS) == {"mse": 5, "batch_ccc": 5}


def test_the_loss_is_of_the_labelled_faces_of_the_whole_batch() -> None:
    value, target = torch.randn(64).double(), torch.randn(64).double()
    assert float(batch_ccc(value, target)) == pytest.approx(concordance.ccc(target.numpy(), value.numpy()))
    weights = torch.randint(0, 4, (64,)).double()
    expected = concordance.ccc(target.numpy(), value.numpy(), weights.numpy())
    assert float(batch_ccc(value, target, weights)) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 5])
def test_gradients_of_the_concordance(n: int) -> None:
    torch.manual_seed(n)
    value, target, weights = torch.randn(n).double().requires_grad_(), torch.randn(n).double(), torch.rand(n).double()
    assert gradcheck(lambda v: batch_ccc(v, target), value)
    assert gradcheck(lambda v: batch_ccc(v, target, weights), value)
    # All answers alike: 0, with a gradient that drives them apart.
    alike = torch.full((n,), 0.3).double().requires_grad_()
    assert gradcheck(lambda v: batch_ccc(v, target), alike)
    found = batch_ccc(alike, target)
    found.backward()
    assert float(found.detach()) == pytest.approx(0)
    assert alike.grad is not None
    assert ((alike.grad > 0) == (target > target.mean())).all()


@pytest.mark.parametrize("labels", [[0.4], [0.4, 0.4, 0.4], [0.0, 0.0], [0.3, NAN, NAN]])
def test_one_face_and_labels_that_do_not_vary_have_no_gradient(labels: list[float]) -> None:
    task = make(mse_weight=0)
    target = torch.tensor(labels)
    value, count = task.losses(task(torch.randn(len(labels), 6)), target)["batch_ccc"]
    value.backward()
    assert float(value.detach()) == float(count) == task.count(target)["batch_ccc"]
    assert all(float(p.grad.abs().max()) == 0 for p in task.parameters() if p.grad is not None)
    # Answers that meet such labels exactly are no division by zero.
    assert float(batch_ccc(target[:1].repeat(3), target[:1].repeat(3))) == 0


def test_a_face_without_a_label_changes_nothing_bit_for_bit() -> None:
    task = make(hidden=4)
    features = torch.randn(7, 6)
    results = []
    for extra, garbage in ((0, 0.0), (5, 3.0), (5, NAN)):
        task.zero_grad()
        value = torch.cat([task(features)["value"], torch.full((extra,), garbage)])
        terms = task.losses({"value": value}, torch.cat([LABELS, torch.full((extra,), NAN)]))
        sum(total / count for total, count in terms.values()).backward()
        results.append([*(t.detach() for pair in terms.values() for t in pair), *(p.grad for p in task.parameters())])
        results[-1] = [tensor.clone() for tensor in results[-1]]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    nobody = torch.full((3,), NAN)
    assert task.losses(task(features[:3]), nobody) == {}
    assert set(task.count(nobody).values()) == {0}


def test_face_weights() -> None:
    task = make()
    outputs = task(torch.randn(7, 6))
    weights = torch.tensor([1.0, 2, 9, 0, 1, 9, 3])
    terms = task.losses(outputs, LABELS, weights)
    known = ~LABELS.isnan()
    error = (outputs["value"] - LABELS)[known] ** 2
    torch.testing.assert_close(terms["mse"][0], (error * weights[known]).sum())
    assert int(terms["mse"][1]) == 5
    # A face of weight 0 is no face.
    without = known & (weights > 0)
    kept = batch_ccc(outputs["value"][without], LABELS[without], weights[without])
    torch.testing.assert_close(terms["batch_ccc"][0], 5 * (1 - kept))


def test_which_losses_there_are() -> None:
    assert make(ccc_weight=0).loss_weights() == {"mse": 1.0}
    assert make(mse_weight=0, ccc_weight=2).loss_weights() == {"batch_ccc": 2.0}
    with pytest.raises(ValidationError, match="both losses are switched off"):
        ContinuousSettings(mse_weight=0, ccc_weight=0)


def test_a_linear_head_is_clipped_when_decoded() -> None:
    task = make(bounded=False)
    outputs = task(30 * torch.randn(50, 6))
    assert outputs["value"].abs().max() > 1
    columns = task.decode(outputs, {})
    assert list(columns) == ["valence"]
    np.testing.assert_array_equal(columns["valence"], outputs["value"].detach().numpy().clip(-1, 1))
    assert columns["valence"].dtype == np.float32
    condition = task.condition(outputs)
    assert condition.shape == (50, 1)
    assert 0 <= condition.min() <= condition.max() <= 1


def test_figures_for_the_log_and_nothing_to_fit() -> None:
    task = make()
    outputs = task(torch.randn(7, 6))
    columns = task.decode(outputs, {})
    known = ~LABELS.isnan().numpy()
    figures = task.metrics(columns, LABELS)
    true, said = LABELS.numpy()[known], columns["valence"][known]
    assert figures["ccc"] == pytest.approx(float(concordance.ccc(true, said)))
    assert figures["rmse"] == pytest.approx(float(np.sqrt(((true - said) ** 2).mean())))
    assert all(np.isnan(value) for value in task.metrics(columns, torch.full((7,), NAN)).values())
    assert task.fit(outputs, LABELS) == {}


def test_half_precision_is_finite_and_encode_keeps_what_is_missing() -> None:
    task = make()
    value, _ = task.losses({"value": torch.randn(7).bfloat16()}, LABELS)["batch_ccc"]
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    encoded = task.encode({"valence": np.array([0.5, np.nan])})
    assert task.labelled(encoded).tolist() == [True, False]
    assert task.columns == ("valence",)
