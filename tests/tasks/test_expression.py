from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mien.faces import EXPRESSIONS
from mien.tasks.expression import ExpressionSettings, ExpressionTask
from mien.tasks.face import TasksSettings, build_tasks

NOBODY = np.full(10, np.nan, dtype=np.float32)


def make(**settings: Any) -> ExpressionTask:
    torch.manual_seed(0)
    return ExpressionTask("expression", ExpressionSettings(**settings), features=6)


def votes(**cast: float) -> np.ndarray:
    row = np.zeros(10, dtype=np.float32)
    for word, count in cast.items():
        row[(*EXPRESSIONS, "unknown", "noface").index(word)] = count
    return row


def test_votes_become_shares_and_words_one_hot() -> None:
    columns = {
        "expression": np.array([1, -1, 3, -1, -1, 0]),
        "expression_votes": np.stack(
            [votes(Happy=8, Neutral=2), votes(Sad=5, Fear=5), NOBODY, votes(unknown=6, Sad=4), NOBODY, NOBODY]
        ),
    }
    labels = make().encode(columns)
    assert labels.dtype == torch.float32
    assert labels.shape == (6, 8)
    torch.testing.assert_close(labels[0], torch.tensor([0.2, 0.8, 0, 0, 0, 0, 0, 0]))
    torch.testing.assert_close(labels[1], torch.tensor([0, 0, 0.5, 0, 0.5, 0, 0, 0]))
    assert labels[[2, 5]].tolist() == [[0, 0, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert make().labelled(labels).tolist() == [True, True, True, False, False, True]
    hard = make(soft=False).encode(columns)
    assert hard.tolist() == [1, -1, 3, -1, -1, 0]
    columns["expression_votes"] = np.stack([NOBODY] * 6)
    assert make().encode(columns).tolist() == [1, -1, 3, -1, -1, 0]


def test_balanced_weights_over_shares() -> None:
    shares = torch.tensor([[0.5, 0.5, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [float("nan")] * 8])
    task = make(class_weights="balanced")
    task.balance(shares)
    # n / (K n_c) over the two classes that occur, the face in two halves counting half in each.
    assert task.class_weights[:2].tolist() == pytest.approx([2 / (2 * 1.5), 2 / (2 * 0.5)])
    assert (task.class_weights[2:] == 1).all()
    value, count = task.losses(task(torch.randn(3, 6)), shares)["cross_entropy"]
    assert torch.isfinite(value)
    assert int(count) == 2


def test_a_tied_face_teaches_but_is_not_judged() -> None:
    task = make(label_smoothing=0)
    labels = torch.tensor([[0.5, 0.5, 0, 0, 0, 0, 0, 0], [0, 0.4, 0.6, 0, 0, 0, 0, 0], [float("nan")] * 8])
    logits = torch.zeros(3, 8)
    logits[:, 2] = 1.0
    assert task.count(labels)["cross_entropy"] == 2
    assert task.hard(labels).tolist() == [-1, 2, -1]
    assert task.metrics(task.decode({"logits": logits}, {}), labels) == {"accuracy": 1.0, "macro_f1": 1.0}


def test_affect_joins_only_when_it_is_named() -> None:
    assert list(build_tasks(TasksSettings(), 4)) == ["gender", "race", "age"]
    settings = TasksSettings.model_validate({"expression": {}, "valence": {"given": ["expression"]}, "arousal": {}})
    tasks = build_tasks(settings, 4)
    assert set(tasks) == {"gender", "race", "age", "expression", "valence", "arousal"}
    assert list(tasks).index("expression") < list(tasks).index("valence")
    assert TasksSettings.model_validate(settings.model_dump()) == settings
    # What a checkpoint of before says of its tasks still means the same.
    before = {name: value for name, value in TasksSettings().model_dump().items() if name in ("gender", "race", "age")}
    assert TasksSettings.model_validate(before) == TasksSettings()
