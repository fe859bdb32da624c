"""Robustness audits of networks whose answers can be computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from mien.data.corruptions import TABLE, corrupt
from mien.data.detect import Detection
from mien.data.manifest import Manifest
from mien.data.pictures import resize
from mien.data.transforms import AugmentSettings
from mien.errors import MienError
from mien.evaluation.evaluate import calibrate
from mien.evaluation.predictions import Predictions
from mien.evaluation.robustness.audit import METRICS, PAGE, Audited, audit_robustness, stratified
from mien.evaluation.robustness.cells import Answers, Passes, run_passes
from mien.evaluation.robustness.degradation import judge_passes
from mien.evaluation.robustness.subjects import MIRRORED, Subjects
from mien.faces import EXPRESSIONS, GENDERS, Crop, Face
from mien.models.checkpoint import load_estimator, save_estimator
from mien.models.estimator import ModelSettings, build_estimator
from mien.models.met import Met
from mien.tasks.face import TasksSettings

CELLS = [("gamma_dark", 2), ("gamma_dark", 5), ("jpeg", 3)]


class Says(nn.Module):
    """A task that says one number of the picture, or one of two words."""

    def __init__(self, of: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.of = of

    def decode(self, outputs: dict[str, Tensor], state: Any) -> dict[str, np.ndarray]:
        name, values = next(iter(outputs.items()))
        return {name: self.of(values.numpy())}


class Brightness(nn.Module):
    """Age is brightness in percent; who is brighter than `limit` percent is female. Counts the faces it sees."""

    def __init__(self, half: bool = False, limit: float = 30.0) -> None:
        super().__init__()
        words = np.array(["Male", "Female"], dtype=object)
        tasks = {"age": Says(lambda v: v.astype(np.float32)), "gender": Says(lambda v: words[(v > limit).astype(int)])}
        self.tasks = nn.ModuleDict(tasks)
        self.crop, self.input_size, self.name, self.half = Crop("chip"), 32, "brightness", half
        self.states: dict[str, Any] = {}
        self.calibrated_on: dict[str, str] = {}
        self.learnt: Met | None = None
        self.settings: dict[str, Any] = {"augment": AugmentSettings.model_validate("light").model_dump(mode="json")}
        self.seen = 0

    def task(self, name: str) -> Any:
        return self.tasks[name]

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, dict[str, Tensor]]:
        self.seen += len(images)
        pixels = images[..., : images.shape[-1] // 2] if self.half else images
        level = pixels.float().mean(dim=(1, 2, 3)) / 2.55
        return {"age": {"age": level}, "gender": {"gender": level}}


@pytest.fixture(scope="module")
def faces(drawn: Path) -> Manifest:
    return Manifest.open(drawn)


def passes_of(network: Any, faces: Manifest, folder: Path, cells: list[tuple[str, int]] = CELLS, **more: Any) -> Passes:
    rows = more.pop("rows", np.arange(len(faces.split("val"))))
    arguments = {"identity": "this one", "show": False, "batch": 7} | more
    return run_passes(network, faces, "val", rows, folder, cells, **arguments)


def level(image: np.ndarray) -> float:
    return float(resize(image, 32).mean()) / 2.55


def test_every_pass_says_what_the_network_says_of_each_picture(faces: Manifest, tmp_path: Path) -> None:
    network = Brightness()
    passes = passes_of(network, faces, tmp_path)
    part = faces.split("val")
    assert network.seen == len(part) * (len(CELLS) + 2)  # clean and mirrored once, then each cell
    subjects = Subjects(part, network.crop, 32)
    for index in (0, len(part) - 1):
        one = subjects.read(index)
        assert passes.clean.numbers("age")[index] == pytest.approx(level(one.image), abs=1e-3)
        for name, severity in CELLS:
            expected = level(corrupt(one.image, name, severity, one.key, one.place))
            assert passes.cells[name, severity].values["age"][index] == pytest.approx(expected, abs=1e-3)


def test_batches_threads_and_order_change_nothing(faces: Manifest, tmp_path: Path) -> None:
    one = passes_of(Brightness(), faces, tmp_path / "a")
    other = passes_of(Brightness(), faces, tmp_path / "b", list(reversed(CELLS)), batch=64, threads=2)
    for cell in CELLS:
        np.testing.assert_array_equal(one.cells[cell].values["age"], other.cells[cell].values["age"])


def test_a_broken_off_audit_goes_on(faces: Manifest, tmp_path: Path) -> None:
    network = Brightness()
    first = passes_of(network, faces, tmp_path)
    (tmp_path / "cells" / "jpeg-3.parquet").unlink()
    damaged = tmp_path / "cells" / "gamma_dark-5.parquet"
    damaged.write_bytes(damaged.read_bytes()[:200])
    network.seen = 0
    again = passes_of(network, faces, tmp_path)
    assert network.seen == 2 * len(first.clean)
    more = passes_of(network, faces, tmp_path, [*CELLS, ("contrast", 1)])  # and can be added to
    assert network.seen == 3 * len(first.clean)
    for found in (again, more):
        assert judge_passes(_only(found, CELLS), None, resamples=100) == judge_passes(first, None, resamples=100)
    (tmp_path / "clean.json").write_text("{")
    network.seen = 0
    passes_of(network, faces, tmp_path)
    assert network.seen == len(first.clean)


def _only(passes: Passes, cells: list[tuple[str, int]]) -> Passes:
    return Passes(passes.clean, passes.mirrored, {cell: passes.cells[cell] for cell in cells})


def test_another_model_or_other_faces_are_refused(faces: Manifest, tmp_path: Path) -> None:
    passes_of(Brightness(), faces, tmp_path, [])
    with pytest.raises(MienError, match=r"holds another audit: different are the model; name another folder with -o"):
        passes_of(Brightness(), faces, tmp_path, [], identity="another")
    with pytest.raises(MienError, match="different are the faces"):
        passes_of(Brightness(), faces, tmp_path, [], rows=np.arange(5))
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(MienError, match="is damaged; remove"):
        passes_of(Brightness(), faces, tmp_path, [])


def test_unreadable_pictures_are_listed_and_left_out(faces: Manifest, tmp_path: Path) -> None:
    part = faces.split("val")
    table = part.table.set_column(
        part.table.column_names.index("path"), "path", pa.array(["gone.png", *part.strings("path")[1:]])
    )
    broken = Manifest(table, part.root, part.crop)
    passes = passes_of(Brightness(), broken, tmp_path)
    assert list(passes.rejected) == ["gone.png"]
    assert len(passes.clean) == len(part) - 1
    assert passes_of(Brightness(), broken, tmp_path).rejected == passes.rejected
    with pytest.raises(MienError, match="none of the 1 faces can be judged"):
        passes_of(Brightness(), broken, tmp_path / "none", rows=np.array([0]))


@pytest.mark.parametrize("half", [False, True])
def test_a_symmetric_network_says_the_same_of_a_mirror_image(half: bool, faces: Manifest, tmp_path: Path) -> None:
    tasks = judge_passes(passes_of(Brightness(half), faces, tmp_path), None, resamples=100)["tasks"]
    assert (tasks["age"]["flip"]["value"] < 1e-4) == (not half)
    assert (tasks["gender"]["flip"]["figure"], tasks["age"]["flip"]["figure"]) == ("agreement", "difference")
    if not half:
        assert tasks["gender"]["flip"]["value"] == 1.0


def test_calibration_on_these_faces_is_cross_fitted_and_survives_resumption(faces: Manifest, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = ModelSettings(backbone="test_resnet", input_size=32)
    network = build_estimator(settings, TasksSettings.model_validate({"age": {}}), Crop("chip"))
    calibrate(network, faces, "val", workers=0, show=False)
    first = passes_of(network, faces, tmp_path)
    fitted = json.loads((tmp_path / "clean.json").read_text())
    assert sorted(set(fitted["half"])) == [0, 1]
    assert fitted["states"][0]["age"] != fitted["states"][1]["age"]
    (tmp_path / "cells" / "jpeg-3.parquet").unlink()
    again = passes_of(network, faces, tmp_path)
    np.testing.assert_allclose(again.cells["jpeg", 3].values["age"], first.cells["jpeg", 3].values["age"], rtol=1e-6)


# Figures, from passes written by hand.


def by_hand(errors: dict[Any, float], n: int = 60, **columns: Any) -> Passes:
    """Everybody is 40; the model says 40 + the cell's error (None: clean) of everyone."""
    table = {
        "path": [f"{i}.png" for i in range(n)],
        "sha256": [f"{i:064x}" for i in range(n)],
        "group": np.arange(n),
        "true_age_low": np.full(n, 40.0),
        "true_age_high": np.full(n, 40.0),
        "age": np.full(n, 40.0 + errors[None]),
        **columns,
    }
    answers = {
        cell: Answers({"age": np.full(n, 40.0 + error)}, np.ones(n, dtype=bool))
        for cell, error in errors.items()
        if cell is not None
    }
    return Passes(Predictions(pa.table(table)), Answers({"age": np.full(n, 41.0)}, np.ones(n, dtype=bool)), answers)


def test_corruption_errors_by_hand() -> None:
    """Hendrycks & Dietterich 2019, section 4: CE, mCE, relative CE and relative mCE."""
    mine = by_hand({None: 2.0, ("jpeg", 1): 4.0, ("jpeg", 5): 6.0, ("contrast", 1): 3.0})
    other = by_hand({None: 1.0, ("jpeg", 1): 8.0, ("jpeg", 5): 12.0, ("contrast", 1): 2.0})
    part = judge_passes(mine, {"compression"}, other, resamples=100)["tasks"]["age"]
    jpeg, contrast = part["corruptions"]["jpeg"], part["corruptions"]["contrast"]
    assert jpeg["ce"]["value"] == pytest.approx((4 + 6) / (8 + 12))
    assert jpeg["relative_ce"]["value"] == pytest.approx((2 + 4) / (7 + 11))
    assert (jpeg["mean"]["value"], jpeg["drop"]["value"]) == (pytest.approx(5), pytest.approx(3))
    assert jpeg["levels"]["5"]["drop"]["value"] == pytest.approx(4)
    assert contrast["ce"]["value"] == pytest.approx(1.5)
    every, seen, unseen = (part["summary"][name] for name in ("all", "seen", "unseen"))
    assert every["mce"]["value"] == pytest.approx((0.5 + 1.5) / 2)
    assert every["relative_mce"]["value"] == pytest.approx((6 / 18 + 1) / 2)
    assert every["mean"]["value"] == pytest.approx((4 + 6 + 3) / 3)
    assert every["baseline"]["ratio"]["value"] == pytest.approx(13 / 22)
    assert every["baseline"]["clean_difference"]["value"] == pytest.approx(1)
    assert (seen["cells"], unseen["cells"]) == (2, 1)
    assert (seen["mean"]["value"], unseen["mean"]["value"]) == (pytest.approx(5), pytest.approx(3))
    assert part["flip"]["value"] == pytest.approx(1.0)
    nobody = judge_passes(mine, None, resamples=100)["tasks"]["age"]
    assert "mce" not in nobody["summary"]["all"]
    assert set(nobody["summary"]) == {"all", "unknown"}


def test_classes_and_concordance_have_errors_too() -> None:
    n = 40
    words = np.array(EXPRESSIONS, dtype=object)[np.arange(n) % 4]
    wrong = np.where(np.arange(n) < 10, "Contempt", words)
    worse = np.where(np.arange(n) < 30, "Contempt", words)
    true = np.linspace(-1, 1, n)
    columns = {"true_expression": words, "expression": wrong, "true_valence": true, "valence": true}
    passes = by_hand({None: 0.0}, n, **columns)
    found = np.ones(n, dtype=bool)
    passes.cells["jpeg", 3] = Answers({"age": np.full(n, 45.0), "expression": worse, "valence": true * 0.5}, found)
    passes.mirrored = Answers({"age": np.full(n, 40.0), "expression": worse, "valence": true}, found)
    tasks = judge_passes(passes, None, passes, resamples=100)["tasks"]
    assert tasks["expression"]["clean"]["value"] == pytest.approx(0.75)
    assert tasks["expression"]["corruptions"]["jpeg"]["drop"]["value"] == pytest.approx(0.5)
    assert tasks["expression"]["corruptions"]["jpeg"]["ce"]["value"] == pytest.approx(1.0)
    assert tasks["expression"]["flip"]["value"] == pytest.approx(0.5)
    assert tasks["expression"]["constant"]["value"] == pytest.approx(0.25)
    # Lin's formula: 2 * 0.5 v / (v + v / 4).
    assert tasks["valence"]["corruptions"]["jpeg"]["mean"]["value"] == pytest.approx(0.8)
    assert tasks["valence"]["constant"]["value"] == pytest.approx(0.0)
    # The baseline (the model itself) loses nothing clean: its clean error is 0, its extra error is not.
    assert tasks["age"]["corruptions"]["jpeg"]["relative_ce"]["value"] == pytest.approx(1.0)


def test_faces_that_are_not_found_in_their_mirror_image_have_no_say_on_it() -> None:
    n, words = 60, np.full(60, "Anger", dtype=object)
    passes = by_hand({None: 0.0, ("jpeg", 3): 1.0}, n, true_expression=words, expression=words)
    passes.cells["jpeg", 3].values["expression"] = words
    found = np.arange(n) >= 6
    mirrored = {"age": np.where(found, 41.0, np.nan), "expression": np.where(found, words, None)}
    passes.mirrored = Answers(mirrored, found)
    tasks = judge_passes(passes, None, resamples=20)["tasks"]
    assert (tasks["age"]["flip"]["value"], tasks["age"]["flip"]["n"]) == (1.0, n - 6)
    assert tasks["expression"]["flip"]["value"] == 1.0
    passes.mirrored = Answers({"age": np.full(n, np.nan), "expression": np.full(n, None)}, np.zeros(n, dtype=bool))
    assert np.isnan(judge_passes(passes, None, resamples=20)["tasks"]["age"]["flip"]["value"])


def test_the_group_that_loses_most_is_named_and_small_ones_are_not_judged() -> None:
    n = 90
    gender = np.where(np.arange(n) < 40, "Male", "Female").astype(object)
    race = np.where(np.arange(n) < 29, "Black", "White").astype(object)
    passes = by_hand({None: 0.0, ("jpeg", 5): 0.0}, n, true_gender=gender, true_race=race)
    passes.cells["jpeg", 5].values["age"][:] = 40.0 + np.where(gender == "Male", 1.0, 6.0)
    part = judge_passes(passes, None, resamples=100)["tasks"]["age"]
    assert part["worst_group"]["gender"]["group"] == "Female"
    assert part["worst_group"]["gender"]["drop"]["value"] == pytest.approx(6)
    assert part["groups"]["race"]["Black"] == {"n": 29, "suppressed": True}
    assert part["groups"]["gender"]["Male"]["drop"]["value"] == pytest.approx(1)
    assert part["corruptions"]["jpeg"]["worst_group"]["group"] == "Female"
    assert "race" not in part["worst_group"]  # one group alone is not the worst of anything


def test_drops_are_paired() -> None:
    """Hard faces are hard in both: a drop of exactly 3 years for everybody has no spread."""
    n = 60
    errors = np.linspace(0, 20, n)
    passes = by_hand({None: 0.0, ("jpeg", 5): 0.0}, n, age=40 + errors)
    passes.cells["jpeg", 5].values["age"][:] = 43 + errors
    found = judge_passes(passes, None, resamples=200)["tasks"]["age"]["corruptions"]["jpeg"]["levels"]["5"]
    assert found["mae"]["high"] - found["mae"]["low"] > 1
    assert found["drop"]["high"] - found["drop"]["low"] == pytest.approx(0, abs=1e-9)
    # A face that is no longer found is left out of both sides.
    passes.cells["jpeg", 5].values["age"][errors > 10] = np.nan
    passes.cells["jpeg", 5].found[errors > 10] = False
    told = judge_passes(passes, None, resamples=200)
    level = told["tasks"]["age"]["corruptions"]["jpeg"]["levels"]["5"]
    assert level["drop"]["value"] == pytest.approx(3)
    assert level["drop"]["n"] == int((errors <= 10).sum())
    assert told["found"]["lost"]["jpeg"]["5"]["value"] == pytest.approx(0.5)


def test_a_severity_in_which_nobody_is_found_is_in_no_mean() -> None:
    n = 60
    errors = {None: 0.0, ("jpeg", 1): 2.0, ("jpeg", 5): 4.0, ("gamma_dark", 5): 9.0}
    passes, baseline = by_hand(errors, n), by_hand({cell: 2 * error for cell, error in errors.items()}, n)
    for cell in (("jpeg", 5), ("gamma_dark", 5)):
        passes.cells[cell].values["age"][:] = np.nan
        passes.cells[cell].found[:] = False
    for other in (None, baseline):
        part = judge_passes(passes, None, other, resamples=50)["tasks"]["age"]
        assert np.isnan(part["corruptions"]["jpeg"]["levels"]["5"]["mae"]["value"])
        assert part["corruptions"]["jpeg"]["mean"]["value"] == pytest.approx(2)
        assert np.isnan(part["corruptions"]["gamma_dark"]["mean"]["value"])
        summary = part["summary"]["all"]
        assert (summary["corruptions"], summary["cells"]) == (1, 1)
        assert summary["mean"]["value"] == summary["drop"]["value"] == pytest.approx(2)
    # Neither is taken for the baseline, whose faces were all found.
    assert summary["baseline"]["mean"]["value"] == pytest.approx(4)
    assert summary["mce"]["value"] == part["corruptions"]["jpeg"]["ce"]["value"] == pytest.approx(0.5)
    assert "ce" not in part["corruptions"]["gamma_dark"]
    for cell in passes.cells:
        passes.cells[cell].values["age"][:] = np.nan
    assert np.isnan(judge_passes(passes, None, resamples=50)["tasks"]["age"]["summary"]["all"]["mean"]["value"])


def test_a_limit_keeps_the_shares_of_groups(faces: Manifest) -> None:
    rows = stratified(faces, 80, 3)
    np.testing.assert_array_equal(rows, stratified(faces, 80, 3))
    assert len(np.unique(rows)) == 80
    ages = faces.numbers("age_low")
    for low, high in ((0, 20), (20, 40), (40, 60), (60, 121)):
        share, drawn_share = (((part >= low) & (part < high)).mean() for part in (ages, ages[rows]))
        assert drawn_share == pytest.approx(share, abs=2 / 80)
    assert len(stratified(faces, 10_000, 0)) == len(faces)


class DarkBlind:
    """Finds a face as the whole picture, unless it is dark."""

    name = "dark-blind"

    def detect(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[1:]
        return [Detection(np.array([0.0, 0.0, width, height]))] if image.mean() > 60 else []


def test_photos_tell_how_many_faces_are_no_longer_found(faces: Manifest, tmp_path: Path) -> None:
    network = Brightness()
    passes = passes_of(network, faces, tmp_path, [("gamma_dark", 5), ("jpeg", 1)], detector=DarkBlind())
    part = faces.split("val")
    subjects = Subjects(part, network.crop, 32)
    bright = [one for one in map(subjects.read, range(len(part))) if one.image.mean() > 60]
    assert len(passes.unfound) == len(part) - len(bright)
    dark = [corrupt(one.image, "gamma_dark", 5, one.key, one.place).mean() <= 60 for one in bright]
    found = judge_passes(passes, None, resamples=100)["found"]
    assert found["n"] == len(bright)
    assert found["lost"]["gamma_dark"]["5"]["value"] == pytest.approx(np.mean(dark))
    assert found["lost"]["jpeg"]["1"]["value"] < 0.5


def test_landmarks_go_with_the_picture(faces: Manifest) -> None:
    part = faces.split("val")
    assert part.has("landmarks")
    subjects = Subjects(part, Crop("chip"), 64)
    one = subjects.read(0)
    shown = subjects.clean(one)
    mirrored = subjects.mirrored(one)
    assert shown is not None and mirrored is not None and one.landmarks is not None  # noqa: PT018
    np.testing.assert_allclose(shown[1], (one.landmarks + 0.5) * 64 / one.image.shape[2] - 0.5)
    np.testing.assert_array_equal(mirrored[0], shown[0][:, :, ::-1])
    # The right eye of the mirror image is where the left one was, on the other side.
    np.testing.assert_allclose(mirrored[1][36:42].mean(0), [63, 0] + shown[1][42:48].mean(0) * [-1, 1], atol=1e-6)


def test_an_audit_writes_its_page_and_figures(faces: Manifest, tmp_path: Path) -> None:
    mine = Audited(Brightness(), "mine", tmp_path / "mine")  # type: ignore[arg-type]
    other = Audited(Brightness(half=True), "other", tmp_path / "other")  # type: ignore[arg-type]
    metrics = audit_robustness(
        mine, faces, "val", baseline=other, corruptions=["contrast", "jpeg", "rotation"], severities=(5, 1),
        limit=30, resamples=100, show=False,
    )  # fmt: skip
    assert json.loads((mine.folder / METRICS).read_text())["about"] == json.loads(json.dumps(metrics["about"]))
    about = metrics["about"]
    assert (about["faces"], about["severities"], about["training"]) == (30, [1, 5], ["brightness", "contrast", "crop"])
    age = metrics["tasks"]["age"]
    assert [age["corruptions"][name]["seen"] for name in ("contrast", "jpeg", "rotation")] == [True, False, False]
    page = (mine.folder / PAGE).read_text()
    for text in ("Corruptions seen in training", "Corruptions unseen", "What the severities look like", "relative mCE"):
        assert text in page
    assert 'src="http' not in page
    assert page.count("<figure>") == 1 + 2 * len(metrics["tasks"])


def test_wrong_wishes_are_named(faces: Manifest, tmp_path: Path) -> None:
    mine = Audited(Brightness(), "mine", tmp_path)  # type: ignore[arg-type]
    for wishes, message in (
        ({"corruptions": ["jepg"]}, r"did you mean 'jpeg'\?"),
        ({"corruptions": []}, "no corruption is named"),
        ({"severities": [0, 1]}, "severity 0: expected some of 1, 2, 3, 4, 5"),
        ({"limit": 0}, "a limit of 0 faces"),
        ({"corruptions": ["crop_scale"], "detector": DarkBlind()}, "crop_scale is about crops"),
    ):
        with pytest.raises(MienError, match=message):
            audit_robustness(mine, faces, "val", show=False, **wishes)  # type: ignore[arg-type]
    assert not (tmp_path / "audit.json").exists()


def test_a_model_tells_how_its_training_faces_were_changed(tmp_path: Path) -> None:
    network = build_estimator(ModelSettings(backbone="test_resnet", input_size=32), TasksSettings(), Crop("chip"))
    network.settings["augment"] = AugmentSettings.model_validate("faces").model_dump(mode="json")
    save_estimator(tmp_path, network)
    assert load_estimator(tmp_path).settings["augment"]["noise"]["probability"] == 0.1
    assert MIRRORED[0] not in TABLE


def test_a_limit_keeps_the_shares_of_genders_and_races() -> None:
    made = [
        Face(f"{row}.png", age=(30.0, 30.0), gender=GENDERS[row % 4 == 0], race=("White", "Black")[row // 4 % 2])
        for row in range(400)
    ]
    manifest = Manifest.from_faces(made, Path(), Crop("chip"))
    for seed in range(5):
        part = manifest.take(stratified(manifest, 40, seed))
        assert (part.strings("gender") == GENDERS[1]).sum() == pytest.approx(10, abs=1)
        assert (part.strings("race") == "Black").sum() == pytest.approx(20, abs=1)
