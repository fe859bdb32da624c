from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.predictions import (
    Predictions,
    Raw,
    calibrated_on,
    calibration_mark,
    crossfitted,
    decode,
    halves,
    predict_split,
    predictions_table,
)
from mien.faces import Crop, Face
from mien.models.estimator import ModelSettings, build_estimator
from mien.tasks.face import TasksSettings

Table = Callable[..., Predictions]


def faces_of(ages: list[float], splits: list[str], groups: list[int] | None = None) -> Manifest:
    faces = [
        Face(f"{i}.png", age=(age, age), gender="Female" if i % 2 else "Male", split=split)
        for i, (age, split) in enumerate(zip(ages, splits, strict=True))
    ]
    return Manifest.from_faces(
        faces,
        ".",
        Crop("chip"),
        sha256=[bytes([i]) * 32 for i in range(len(faces))],
        groups=None if groups is None else np.array(groups),
    )


class Spy:
    """A task whose outputs and labels are the faces' numbers; its state is the faces it was fitted on."""

    columns = ("age_low",)

    def __init__(self) -> None:
        self.fits: list[set[int]] = []

    def encode(self, columns: Mapping[str, np.ndarray]) -> torch.Tensor:
        return torch.as_tensor(columns["age_low"])

    def fit(self, outputs: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, Any]:
        assert torch.equal(outputs["number"], labels)
        self.fits.append(set(labels.int().tolist()))
        return {"fitted_on": self.fits[-1]}

    def decode(self, outputs: dict[str, torch.Tensor], state: dict[str, Any]) -> dict[str, np.ndarray]:
        numbers = outputs["number"].int().tolist()
        seen = [float(number in state["fitted_on"]) for number in numbers]
        names = np.array([str(number) for number in numbers], dtype=object)
        return {"seen": np.array(seen, dtype=np.float32), "name": names}


def test_crossfitting_never_judges_a_face_by_what_was_fitted_on_it() -> None:
    numbers, spy = torch.arange(100).float(), Spy()
    groups = np.repeat(np.arange(40), 3)[:100]
    half = halves(groups)
    columns = crossfitted(spy, {"number": numbers}, numbers, half)  # type: ignore[arg-type]
    assert columns["seen"].dtype == np.float32
    np.testing.assert_array_equal(columns["seen"], 0)
    # Every face is decoded once, in its own place.
    assert columns["name"].tolist() == [str(i) for i in range(100)]
    # The two fits share no face and no group, and together they are all faces.
    first, second = spy.fits
    assert first | second == set(range(100))
    assert not {groups[i] for i in first} & {groups[i] for i in second}
    assert min(len(first), len(second)) >= 30


def test_decode_crossfits_only_when_asked() -> None:
    manifest = faces_of([float(i) for i in range(60)], ["val"] * 60, [i // 2 for i in range(60)])
    spy, rows = Spy(), np.arange(5, 60)
    raw = Raw({"age": {"number": torch.arange(5, 60).float()}}, rows, {})
    estimator: Any = SimpleNamespace(
        task=lambda name: spy, decode=lambda outputs: {"own": outputs["age"]["number"].numpy()}
    )
    every, none = np.ones(55, bool), np.zeros(55, bool)
    np.testing.assert_array_equal(decode(estimator, raw, manifest, crossfit=every)["seen"], np.zeros(55))
    fitted = [{number // 2 for number in fit} for fit in spy.fits]
    assert not fitted[0] & fitted[1]
    np.testing.assert_array_equal(decode(estimator, raw, manifest, crossfit=none)["own"], rows)
    assert len(spy.fits) == 2
    # Of some of the faces: they alone are fitted on and cross-fitted, the model's own serves the others.
    estimator.decode = lambda outputs: {"seen": np.full(len(outputs["age"]["number"]), 7.0, np.float32)}
    some = rows < 25
    found = decode(estimator, raw, manifest, crossfit=some)["seen"]
    np.testing.assert_array_equal(found, np.where(some, 0.0, 7.0))
    assert set.union(*spy.fits[2:]) == set(range(5, 25))


def test_calibration_is_recognised_by_manifest_and_by_pictures() -> None:
    manifest = faces_of([20.0, 30.0, 40.0, 50.0], ["train", "val", "val", "test"])
    estimator: Any = SimpleNamespace(calibrated_on={})
    assert not calibrated_on(estimator, manifest, "val").any()
    estimator.calibrated_on = calibration_mark(manifest, "val")
    assert calibrated_on(estimator, manifest, "val").all()
    assert calibrated_on(estimator, manifest, "all").tolist() == [False, True, True, False]
    assert not calibrated_on(estimator, manifest, "test").any()
    # The same pictures elsewhere: other labels, other split names, another order.
    moved = manifest.take(np.array([2, 1])).with_columns({"split": ["test", "test"], "age_low": [1.0, 2.0]})
    assert moved.hash != manifest.hash
    assert calibrated_on(estimator, moved, "test").all()
    # Some of them, among others.
    part = manifest.take(np.array([0, 2])).with_columns({"split": ["val", "val"]})
    assert calibrated_on(estimator, part, "val").tolist() == [False, True]
    # Marks of earlier versions know the whole split alone.
    del estimator.calibrated_on["pictures"]
    assert calibrated_on(estimator, moved, "test").all()
    assert not calibrated_on(estimator, part, "val").any()


def test_the_table_holds_truth_beside_predictions(tmp_path: Path) -> None:
    manifest = faces_of([20.0, 30.0, 40.0], ["train", "val", "val"])
    columns = {"age": np.array([33.0, 41.0]), "gender": np.array(["Male", "Male"], dtype=object)}
    table = predictions_table(manifest, np.array([1, 2]), columns, {"model": "m", "split": "val"})
    table.save(tmp_path / "predictions.val.parquet")
    again = Predictions.open(tmp_path / "predictions.val.parquet")
    assert again.facts == {"model": "m", "split": "val"}
    assert again.strings("path").tolist() == ["1.png", "2.png"]
    assert again.strings("sha256").tolist() == ["01" * 32, "02" * 32]
    np.testing.assert_array_equal(again.numbers("row"), [1, 2])
    np.testing.assert_array_equal(again.numbers("true_age_low"), [30, 40])
    np.testing.assert_array_equal(again.numbers("age"), [33, 41])
    assert again.strings("true_gender").tolist() == ["Female", "Male"]
    assert not again.has("true_race")
    assert again.strings("true_race").tolist() == [None, None]
    np.testing.assert_array_equal(again.codes("gender", ("Male", "Female")), [0, 0])


def test_faces_without_a_group_are_their_own(table: Table) -> None:
    groups = table(5, group=pa.array([3, None, 3, None, 0])).groups()
    assert groups[0] == groups[2] == 3
    assert len(set(groups.tolist())) == 4


def test_codes_refuse_a_strange_word(table: Table) -> None:
    said = np.array(["Male", None, "Robot"], dtype=object)
    with pytest.raises(MienError, match="gender 'Robot' is none of Male, Female"):
        table(3, gender=said).codes("gender", ("Male", "Female"))
    np.testing.assert_array_equal(table(3, gender=said).codes("gender", ("Male", "Robot")), [0, -1, 1])


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(MienError, match="no such file; `mien evaluate` makes it"):
        Predictions.open(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(MienError, match="not a Parquet file"):
        Predictions.open(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(MienError, match="no column 'path'"):
        Predictions.open(tmp_path / "other.parquet")


def test_votes_come_back_as_they_were_cast() -> None:
    votes = [np.arange(10, dtype=np.float32), None, np.eye(10, dtype=np.float32)[9]]
    faces = [Face(f"{i}.png", expression_votes=cast) for i, cast in enumerate(votes)]
    manifest = Manifest.from_faces(faces, ".", Crop("chip"))
    table = predictions_table(manifest, np.array([2, 1, 0]), {}, {})
    assert table.has("true_expression_votes")
    found = table.votes()
    np.testing.assert_array_equal(found[0], votes[2])
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(table.take(np.array([2])).votes()[0], votes[0])
    assert np.isnan(predictions_table(faces_of([1.0], ["val"]), np.array([0]), {}, {}).votes()).all()


def test_the_features_kept_are_what_the_heads_saw(drawn: Path) -> None:
    manifest = Manifest.open(drawn).split("select")
    model = ModelSettings(backbone="test_resnet", input_size=32)
    estimator = build_estimator(model, TasksSettings(), manifest.crop).eval()
    raw = predict_split(estimator, manifest, batch=16, show=False, features=True)
    assert raw.features is not None
    assert raw.features.shape == (len(manifest), estimator.backbone.features)
    with torch.inference_mode():
        again = estimator.heads(torch.from_numpy(raw.features))
    torch.testing.assert_close(again["gender"]["logits"], raw.outputs["gender"]["logits"])
    assert predict_split(estimator, manifest, batch=16, show=False).features is None
    assert not estimator.dropout._forward_pre_hooks


def test_pictures_that_are_not_known_are_not_the_same() -> None:
    crop = Crop("chip")
    one, other = (
        Manifest.from_faces([Face(f"{name}{age}.jpg", age=(age, age), split="val") for age in (20.0, 30.0)], ".", crop)
        for name in "ab"
    )
    estimator: Any = SimpleNamespace(calibrated_on=calibration_mark(one, "val"))
    assert calibrated_on(estimator, one, "val").all()
    assert not calibrated_on(estimator, other, "val").any()
