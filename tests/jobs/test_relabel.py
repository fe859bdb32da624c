"""Experts that throw, hang or fall silent, and labels that are added and never overwritten."""

import csv
import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mien.data.manifest import Manifest
from mien.data.slices import Slices
from mien.errors import MienError
from mien.evaluation.relabelled import guard_labels
from mien.experts.columns import experts_of, reliability, with_fused_ages
from mien.experts.fusion import LEAST
from mien.experts.methods import Method
from mien.experts.table import OnnxSettings
from mien.faces import Crop, Face
from mien.jobs.relabel import Answered, ask_experts, fit_on, write_labels
from mien.jobs.workers import Engine

# Worker processes take the path over, and import the experts by name.
sys.path.insert(0, str(Path(__file__).parent))
RulerSettings = importlib.import_module("rulers").RulerSettings


@dataclass
class Listed:
    """A list of experts, as the YAML file's."""

    experts: list[Any]

    def names(self) -> list[str]:
        return [expert.name for expert in self.experts]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Sixty grey crops of rising brightness, 10 to 90 %, labelled with it; the last picture is damaged."""
    made = []
    for number, grey in enumerate(np.linspace(10, 90, 60)):
        Image.new("RGB", (32, 32), (round(grey * 2.55),) * 3).save(tmp_path / f"{number:02d}.png")
        age = float(round(grey))
        made.append(Face(f"{number:02d}.png", age=(age, age), gender=("Male", "Female")[number % 2]))
    (tmp_path / "59.png").write_bytes(b"no picture")
    Manifest.from_faces(made, tmp_path, Crop("chip", size=32)).save(tmp_path / "faces")
    return tmp_path / "faces"


def ask(faces: Path, folder: Path, *rulers: Any, engine: Engine | None = None) -> Answered:
    return ask_experts(Slices(faces), Listed(list(rulers)), folder, batch=8, engine=engine, show=False)  # type: ignore[arg-type]


def answers_of(answered: Answered) -> tuple[np.ndarray, dict[str, list[tuple[int, str]]]]:
    ((_, _, answers, failures),) = answered.parts()
    return answers, failures


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("raises", "ValueError: too dark"), ("nan", "no answer"), ("short", "answers of shape")],
)
def test_only_the_answer_of_the_expert_that_fails_is_missing(
    faces: Path, tmp_path: Path, fault: str, reason: str
) -> None:
    answers, failures = answers_of(ask(faces, tmp_path / "a", RulerSettings("good"), RulerSettings("bad", 2.0, fault)))
    grey = Manifest.open(faces).numbers("age_low")
    dark = np.arange(60)[grey < 20]
    assert 3 <= len(dark) < 20
    assert [row for row, _ in failures["bad"]] == [*dark.tolist(), 59]
    assert all(reason in why for row, why in failures["bad"][:-1])
    assert failures["good"] == [(59, failures["good"][0][1])]
    assert np.isfinite(answers[:59, 0, 0]).all()
    np.testing.assert_allclose(answers[:59, 0, 0], grey[:59], atol=0.7)
    lit = grey[:59] >= 20
    np.testing.assert_allclose(answers[:59, 1, 0][lit] - answers[:59, 0, 0][lit], 2.0, atol=1e-4)


def test_an_expert_that_hangs_is_ended(faces: Path, tmp_path: Path) -> None:
    grey = np.linspace(10, 90, 60)[20]
    engine = Engine(patience=3.0)
    answers, failures = answers_of(ask(faces, tmp_path / "a", RulerSettings("slow", 0.0, "hangs", grey), engine=engine))
    assert [row for row, _ in failures["slow"]] == [20, 59]
    assert "no answer within 3 s" in failures["slow"][0][1]
    assert np.isfinite(answers[:59, 0, 0]).sum() == 58


def test_an_expert_that_fails_on_everything_ends_the_job_by_name(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(MienError, match="expert broken: 20 inputs in a row failed"):
        ask(faces, tmp_path / "a", RulerSettings("broken", 0.0, "raises", 200.0))


def test_another_expert_joins_and_a_changed_one_is_refused(faces: Path, tmp_path: Path) -> None:
    ask(faces, tmp_path / "a", RulerSettings("one"))
    before = (tmp_path / "a/one/part-000000.parquet").stat().st_mtime_ns
    ask(faces, tmp_path / "a", RulerSettings("one"), RulerSettings("two", 3.0))
    assert (tmp_path / "a/one/part-000000.parquet").stat().st_mtime_ns == before
    with pytest.raises(MienError, match=r"expert.off was 0.0, is 1.0"):
        ask(faces, tmp_path / "a", RulerSettings("one", 1.0))


def test_an_onnx_expert_goes_on(faces: Path, tmp_path: Path) -> None:
    """Its pixels are tuples here and lists in the record of the job."""
    mean = helper.make_node("ReduceMean", ["x", "axes"], ["age"], keepdims=0)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [mean],
        "brightness",
        [value("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [value("age", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "grey.onnx")
    settings = OnnxSettings(kind="onnx", name="grey", weights=str(tmp_path / "grey.onnx"), years=100)
    answers, failures = answers_of(ask(faces, tmp_path / "answers", settings))
    grey = Manifest.open(faces).numbers("age_low")
    np.testing.assert_allclose(answers[:59, 0, 0], grey[:59], atol=0.7)
    assert list(failures["grey"][0][:1]) == [59]
    stamp = (tmp_path / "answers/grey/part-000000.parquet").stat().st_mtime_ns
    again, _ = answers_of(ask(faces, tmp_path / "answers", settings))
    np.testing.assert_array_equal(again, answers)
    assert (tmp_path / "answers/grey/part-000000.parquet").stat().st_mtime_ns == stamp


def test_labels_are_added_and_the_given_ones_stay(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "moe"
    answered = ask(faces, out / "answers", RulerSettings("a", -3.0), RulerSettings("b", 3.0, "nan"))
    found = write_labels(answered, Method("mean", ["a", "b"]), out, "set", max_std=4.0, replace=True)
    given, made = Manifest.open(faces), Manifest.open(out)
    for name in given.table.column_names:
        assert made.table[name].to_pylist() == given.table[name].to_pylist()
    grey = given.numbers("age_low")
    both = (grey >= 20) & (np.arange(60) < 59)
    np.testing.assert_allclose(made.numbers("moe_age")[both], grey[both], atol=0.7)
    # Two ages six years apart: 9 between, 9 of their own.
    np.testing.assert_allclose(made.numbers("moe_variance_between")[both], 9.0, rtol=1e-4)
    np.testing.assert_allclose(made.numbers("moe_std")[both], np.sqrt(18), rtol=1e-4)
    alone = (grey < 20) & (np.arange(60) < 59)
    np.testing.assert_allclose(made.numbers("moe_std")[alone], 3.0, rtol=1e-4)
    assert made.strings("moe_kept").tolist() == alone.tolist()  # sqrt(18) > 4
    assert (made.numbers("moe_weight") > 0).tolist() == alone.tolist()
    flags = made.strings("moe_flags")
    assert flags[59] == "no_answer"
    assert set(flags[alone]) == {"missing_expert"}
    assert set(flags[both]) == {"filtered"}
    assert experts_of(made) == {"a": "-3.0", "b": "3.0nan"}
    assert found["kept"] == alone.sum()
    assert found["answered"] == 59

    labels = json.loads((out / "set_moe_labels.json").read_text())
    assert [one["path"] for one in labels] == given.strings("path").tolist()
    assert labels[59]["age"] is None
    assert labels[30]["given"] == [grey[30]] * 2
    with open(out / "set_moe_labels.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["moe_b_age"] == "" for row in rows] == (alone | (np.arange(60) == 59)).tolist()
    with open(out / "set_moe_report.csv") as file:
        report = {(row["by"], row["group"]): row for row in csv.DictReader(file)}
    assert report["all", "all"]["kept"] == str(alone.sum())
    assert report["age", "10-19"]["before"] == str((grey // 10 == 1).sum())
    low, share, high = (float(report["gender", "Male"][key]) for key in ("low", "retention", "high"))
    assert 0 <= low < share < high <= 1

    replaced = Manifest.open(out / "relabelled.parquet")
    assert len(replaced) == alone.sum()
    np.testing.assert_array_equal(replaced.numbers("given_age_low"), grey[alone])
    np.testing.assert_array_equal(replaced.numbers("age_low"), made.numbers("moe_age")[alone])
    # What the AgeTransformer reads of how uncertain a label is.
    np.testing.assert_array_equal(replaced.numbers("age_std"), made.numbers("moe_std")[alone])
    with pytest.raises(MienError, match="are those of a, b, not given ones"):
        guard_labels(replaced)
    guard_labels(made)  # its ages are the given ones

    # Only to look at another threshold: what was made for training stays.
    before = (out / "relabelled.parquet").read_bytes()
    write_labels(answered, Method("mean", ["a", "b"]), out, "set", max_std=9.0)
    assert (out / "relabelled.parquet").read_bytes() == before


def test_a_repeated_relabelling_replaces_its_own_columns_alone(faces: Path, tmp_path: Path) -> None:
    answered = ask(faces, tmp_path / "one/answers", RulerSettings("a"))
    write_labels(answered, Method("mean", ["a"]), tmp_path / "one", "set")
    again = ask(tmp_path / "one", tmp_path / "two/answers", RulerSettings("b", 5.0))
    write_labels(again, Method("mean", ["b"]), tmp_path / "two", "set")
    made = Manifest.open(tmp_path / "two")
    assert not made.has("moe_a_age")
    assert made.has("moe_b_age")
    assert not (tmp_path / "two/relabelled.parquet").exists()


def test_a_fit_takes_each_experts_bias_off(faces: Path, tmp_path: Path) -> None:
    answered = ask(faces, tmp_path / "answers", RulerSettings("a", -6.0), RulerSettings("b", 9.0))
    fusion = fit_on(answered)
    write_labels(answered, fusion, tmp_path / "moe", "set")
    made = Manifest.open(tmp_path / "moe")
    error = made.numbers("moe_age")[:59] - made.numbers("age_low")[:59]
    assert np.abs(error).mean() < 1.5
    label = made.numbers("age_low")
    inside = (made.numbers("moe_low") <= label) & (label <= made.numbers("moe_high"))
    assert inside[:59].mean() >= 0.9


def test_ages_of_experts_are_not_trusted(faces: Path, tmp_path: Path) -> None:
    answered = ask(faces, tmp_path / "answers", RulerSettings("a", -6.0), RulerSettings("b", 9.0))
    write_labels(answered, Method("mean", ["a", "b"]), tmp_path / "moe", "set", replace=True)
    given = fit_on(answered)
    relabelled = ask(tmp_path / "moe/relabelled.parquet", tmp_path / "again", RulerSettings("a", -6.0))
    kept = (Manifest.open(tmp_path / "moe/relabelled.parquet").strings("age_from") != "moe").sum()
    assert given.trusted > kept
    if kept < LEAST:
        with pytest.raises(MienError, match=f"{kept} trusted faces"):
            fit_on(relabelled)
    else:
        assert fit_on(relabelled).trusted == kept


def test_reliability_falls_with_the_spread() -> None:
    np.testing.assert_allclose(reliability(np.array([0.0, 5.0, 10.0, np.nan])), [1, 0.5, 0.2, 0])


def test_fused_ages_need_a_relabelled_manifest(faces: Path) -> None:
    with pytest.raises(MienError, match="has no fused ages"):
        with_fused_ages(Manifest.open(faces))
