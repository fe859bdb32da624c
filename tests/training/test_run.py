"""Runs on drawn faces: the folder they leave, resuming after kill -9, two processes, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.faces import Crop, Face
from mien.files import alone
from mien.models.checkpoint import load_estimator, read_pointer
from mien.models.met import Met
from mien.training.recipe import Recipe, load_recipe
from mien.training.run import LOCK, _accelerator, _groups, assemble, train_run

pytestmark = pytest.mark.usefixtures("unpainted")

#: A network without batch statistics, so that cutting a batch changes nothing but rounding.
SMALL = [
    "model.backbone=test_convnext",
    "model.input_size=32",
    "training.epochs=2",
    "training.batch=16",
    "training.precision=fp32",
    "data.workers=0",
]


def recipe(faces: Path, *overrides: str) -> Recipe:
    return load_recipe("demo", [f"data.faces={faces}", *SMALL, *overrides])


@pytest.fixture(scope="session")
def unjudged(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn faces with all but `select` in `train`: a run on them ends without an evaluation."""
    manifest = Manifest.open(drawn)
    codes = manifest.codes("split")
    words = np.where(codes == 1, "select", "train").astype(object)
    folder = tmp_path_factory.mktemp("unjudged")
    changed = Manifest(manifest.with_columns({"split": words}).table, drawn, manifest.crop)
    changed.save(folder)
    return folder


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(read_pointer(run / "checkpoints", "last") / "training.safetensors")


def command(faces: Path, run: Path, *overrides: str) -> list[str]:
    return ["train", "demo", "-o", str(run), f"data.faces={faces}", *SMALL, *overrides]


def test_a_run_leaves_what_the_next_one_needs(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    result = train_run(recipe(drawn), run, show=False)
    assert result is not None
    assert {"val", "test"} == set(result["metrics"])
    for name in (
        "config_used.json",
        "history.json",
        "metrics.val.json",
        "metrics.test.json",
        "predictions.val.parquet",
        "report.html",
        "figures/error_analysis.png",
        "figures/training_history.png",
        "checkpoints/best",
        "checkpoints/last",
    ):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").iterdir())
    assert len(json.loads((run / "history.json").read_text())) == 2

    config = json.loads((run / "config_used.json").read_text())
    assert config["record"]["manifest"] == Manifest.open(drawn).hash
    assert load_recipe(run / "config_used.json").training.epochs == 2

    estimator = load_estimator(run)
    assert "conformal" in estimator.states["age"]
    assert estimator.calibrated_on["split"] == "val"
    assert estimator.learnt == Met.of(Manifest.open(drawn).split("train").strings("sha256"))

    # The same seed gives the same weights; the second run need not be judged for that.
    monkeypatch.setattr("mien.training.run.finish", lambda *_: None)
    train_run(load_recipe(run / "config_used.json"), tmp_path / "again", show=False)
    first, second = tensors(run), tensors(tmp_path / "again")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_killed_it_resumes_to_the_weights_of_an_unbroken_run(unjudged: Path, tmp_path: Path, one_thread) -> None:
    settings = ["training.epochs=4", "training.save_every=3", "model.dropout=0.3", "augment.noise.probability=0.5"]
    train_run(recipe(unjudged, *settings), tmp_path / "whole", show=False)

    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [sys.executable, "-m", "mien", *command(unjudged, broken, *settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    last = broken / "checkpoints" / "last"
    deadline = time.monotonic() + 150
    while process.poll() is None and time.monotonic() < deadline:
        if last.is_file() and last.read_text().strip() not in ("", "step-3"):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.is_file(), process.stderr.read() if process.stderr else ""

    train_run(recipe(unjudged, *settings), broken, resume=True, show=False)
    whole, resumed = tensors(tmp_path / "whole"), tensors(broken)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_two_processes_match_one(unjudged: Path, tmp_path: Path, one_thread) -> None:
    settings = ["training.epochs=2", "training.batch=20", "model.dropout=0", "augment=none", "sampling.by=age"]
    train_run(recipe(unjudged, *settings), tmp_path / "one", show=False)
    two = tmp_path / "two"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"),
            *("--standalone", "-m", "mien", *command(unjudged, two, *settings)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Each does half of every batch; two that know nothing of each other would end with the same weights.
    assert done.stderr.count("steps an epoch") == 1
    assert "of 2 processes" in done.stderr
    one, other = tensors(tmp_path / "one"), tensors(two)
    assert json.loads((two / "history.json").read_text())[-1]["step"] >= 20
    for key in one:
        if "/weights/" in key:
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-5, msg=key)


def test_starting_from_a_run_keeps_its_heads(unjudged: Path, tmp_path: Path) -> None:
    train_run(recipe(unjudged, "training.epochs=1"), tmp_path / "first", show=False)
    train_run(
        recipe(unjudged, "training.epochs=1", f"model.init={tmp_path / 'first'}", "model.freeze_backbone=true"),
        tmp_path / "second",
        show=False,
    )
    first, second = tensors(tmp_path / "first"), tensors(tmp_path / "second")
    start = load_estimator(tmp_path / "first").state_dict()
    for name, value in start.items():
        if name.startswith("backbone."):
            assert torch.equal(second[f"estimator/weights/{name}"], value), name  # frozen where it started
    assert any(not torch.equal(first[key], second[key]) for key in first if "weights/tasks.age" in key)


def test_what_cannot_be_trained_is_one_clear_line(drawn: Path, unjudged: Path, tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"data\.faces is not set"):
        train_run(load_recipe("demo"), tmp_path / "a")
    with pytest.raises(MienError, match="cannot be cut into 1 processes x 3"):
        train_run(recipe(unjudged, "training.accumulate=3"), tmp_path / "b", show=False)
    manifest = Manifest.open(drawn)
    unlabelled = Manifest(manifest.table.drop_columns(["race"]), drawn, manifest.crop)
    unlabelled.save(tmp_path / "unlabelled")
    with pytest.raises(MienError, match=r"no face of the split 'train' has this label.*tasks\.race=null"):
        train_run(recipe(tmp_path / "unlabelled"), tmp_path / "c", show=False)


def test_splits_of_three_parts_are_told_what_chooses(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    three = manifest.where(manifest.codes("split") != 1)
    Manifest(three.table, drawn, manifest.crop).save(tmp_path / "three")
    with pytest.raises(MienError, match=r"no face is in split 'select'.*some faces of train.*data\.select=val"):
        train_run(recipe(tmp_path / "three"), tmp_path / "run", show=False)


def test_choosing_on_judged_faces_is_said(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train_run(recipe(drawn, "training.epochs=1", "data.select=val"), tmp_path / "run", show=False)
    assert "data.select=val: the figures on val will flatter" in capsys.readouterr().err
    assert result is not None
    assert "chosen on these faces" in result["metrics"]["val"]["about"]["caution"]
    assert "caution" not in result["metrics"]["test"]["about"]


def test_pictures_of_two_splits_are_said_before_the_training(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.training.run._train", lambda *_: None)
    manifest = Manifest.open(drawn)
    training = manifest.where(manifest.codes("split") == 0)
    words = np.full(len(training), "val", object)
    Manifest(training.with_columns({"split": words}).table, drawn, manifest.crop).save(tmp_path / "again")
    told = f"data.faces: of {len(training)} of the {len(training) + 48} faces of val the same pictures stand in train"
    for name, faces, said in (("a", f"[{drawn},{tmp_path / 'again'}]", True), ("b", str(drawn), False)):
        train_run(load_recipe("demo", [f"data.faces={faces}", *SMALL]), tmp_path / name)
        assert (told in " ".join(capsys.readouterr().err.split())) is said


def test_landmarks_that_are_nowhere_are_said(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Manifest.open(drawn)
    Manifest(manifest.table.drop_columns(["landmarks"]), drawn, manifest.crop).save(tmp_path)
    for faces, said in ((tmp_path, True), (drawn, False)):
        assemble(recipe(faces, "model.landmarks=true"), Manifest.open(faces), Accelerator())
        told = "model.landmarks: no face of the split 'train' has landmarks" in capsys.readouterr().err
        assert told is said


def test_classes_that_nobody_shows_are_said(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Manifest.open(drawn)
    manifest.where((manifest.codes("gender") == 0) | (manifest.codes("split") != 0)).save(tmp_path)
    for faces, said in ((tmp_path, True), (drawn, False)):
        assemble(recipe(faces), Manifest.open(faces), Accelerator())
        told = "tasks.gender: no face of the split 'train' is Female" in capsys.readouterr().err
        assert told is said


def test_a_folder_with_another_run_is_left_alone(unjudged: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(recipe(unjudged, "training.epochs=1"), run, show=False)
    before = (run / "config_used.json").read_bytes()
    with pytest.raises(MienError, match="holds a run already; go on with --resume"):
        train_run(recipe(unjudged, "training.epochs=1"), run, show=False)
    with pytest.raises(MienError, match=r"cannot be resumed, since these differ.*optim\.lr"):
        train_run(recipe(unjudged, "training.epochs=1", "optim.lr=0.1"), run, resume=True, show=False)
    assert (run / "config_used.json").read_bytes() == before


def test_a_run_that_was_refused_at_its_first_step_may_be_mended(
    unjudged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MienError("the loss is no number; lower optim.lr")

    with monkeypatch.context() as once:
        once.setattr("mien.training.run.train", broken)
        with pytest.raises(MienError, match="no number"):
            train_run(recipe(unjudged, "training.epochs=1", "optim.lr=9"), tmp_path / "run", show=False)
    assert load_recipe(tmp_path / "run" / "config_used.json").optim.lr == 9
    train_run(recipe(unjudged, "training.epochs=1"), tmp_path / "run", show=False)
    assert load_recipe(tmp_path / "run" / "config_used.json").optim.lr != 9
    with pytest.raises(MienError, match="holds a run already"):
        train_run(recipe(unjudged, "training.epochs=1"), tmp_path / "run", show=False)


def test_a_run_older_than_a_setting_is_resumed_at_its_default(unjudged: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(recipe(unjudged, "training.epochs=1"), run, show=False)
    config = json.loads((run / "config_used.json").read_text())
    del config["model"]["beside"]
    (run / "config_used.json").write_text(json.dumps(config))
    train_run(recipe(unjudged, "training.epochs=1"), run, resume=True, show=False)
    with pytest.raises(MienError, match=r"these differ from the run's config_used\.json: model\.beside"):
        train_run(recipe(unjudged, "training.epochs=1", "model.beside=[{backbone: test_resnet}]"), run, resume=True)


def test_a_run_that_another_process_trains_is_left_alone(unjudged: Path, tmp_path: Path) -> None:
    train_run(recipe(unjudged, "training.epochs=1"), tmp_path, show=False)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")}
    with alone(tmp_path / LOCK), pytest.raises(MienError, match="another process trains this run"):
        train_run(recipe(unjudged, "training.epochs=1"), tmp_path, resume=True, show=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").rglob("*")} == files


def test_pictures_that_cannot_be_read_are_told(
    unjudged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, manifest = tmp_path / "faces", Manifest.open(unjudged)
    pictures = manifest.pictures()
    for name, archive in zip(manifest.strings("path"), manifest.strings("archive"), strict=True):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).write_bytes(pictures.read(name, archive))
    names = manifest.split("train").strings("path")[:3].tolist() + manifest.split("select").strings("path")[:1].tolist()
    for name in names:
        (faces / name).write_bytes(b"no picture")
    loose = manifest.table.drop_columns(["archive"])
    Manifest(loose, faces, manifest.crop).save(faces)
    train_run(recipe(faces, "training.epochs=2"), tmp_path / "run", show=True)
    told = capsys.readouterr().err
    assert told.count("cannot be read:") == 1
    assert "3 pictures of train, in whose place others were shown, and 1 of select cannot be read" in told
    reasons = json.loads((tmp_path / "run/unreadable.json").read_text())
    assert [reason.split(":")[0] for part in ("train", "select") for reason in reasons[part]] == sorted(
        names[:3]
    ) + names[3:]
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [entry["unreadable"] for entry in history] == [{"train": 3, "select": 1}] * 2
    # Nothing to judge an epoch by.
    for name in manifest.split("select").strings("path"):
        (faces / name).write_bytes(b"no picture")
    with pytest.raises(MienError, match=r"no picture of data\.select can be read, so that no epoch can be judged; "):
        train_run(recipe(faces, "training.epochs=1"), tmp_path / "other", show=False)


def test_faces_in_another_crop_are_refused_with_the_way_to_convert(unjudged: Path, tmp_path: Path) -> None:
    train_run(recipe(unjudged, "training.epochs=1"), tmp_path / "first", show=False)
    manifest = Manifest.open(unjudged)
    Manifest(manifest.table, manifest.root, Crop("photo", 0.0, 0)).save(tmp_path / "photos")
    with pytest.raises(MienError, match=r"mien prepare SOURCE PATH --align"):
        train_run(recipe(tmp_path / "photos", f"model.init={tmp_path / 'first'}"), tmp_path / "second", show=False)


def test_groups_that_group_dro_weighs() -> None:
    labels = [("White", "Male")] * 6 + [("White", "Female")] * 3 + [("Black", "Female"), (None, "Male")]
    made = [Face(f"{row}.png", race=race, gender=gender) for row, (race, gender) in enumerate(labels)]
    groups, shares = _groups(Manifest.from_faces(made, Path(), Crop("chip")), ["race", "gender"])
    assert sorted(shares.tolist()) == pytest.approx([0.1, 0.3, 0.6])
    assert [len(set(groups[part].tolist())) for part in (slice(6), slice(6, 9))] == [1, 1]
    assert shares[groups[0]] == pytest.approx(0.6)
    assert groups[-1] == -1
    # Where sampling shows rare faces more often, a group's share is that of what is shown.
    chances = np.array([0.5] * 6 + [1.0] * 3 + [4.0, 1.0])
    _, shares = _groups(Manifest.from_faces(made, Path(), Crop("chip")), ["race", "gender"], chances)
    assert shares[groups[[0, 6, 9]]] == pytest.approx([0.3, 0.3, 0.4])
    with pytest.raises(MienError, match="none of"):
        _groups(Manifest.from_faces(made, Path(), Crop("chip")), ["hair"])


def test_more_processes_than_graphics_cards_are_refused(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(device=torch.device("cuda:0"))
    monkeypatch.setattr("accelerate.Accelerator", lambda **how: made)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert _accelerator(recipe(drawn)) is made  # type: ignore[comparison-overlap]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(MienError, match=r"2 processes for 1 graphics card of .* --nproc-per-node 1"):
        _accelerator(recipe(drawn))
    made.device = torch.device("cpu")  # without cards any number do
    assert _accelerator(recipe(drawn)) is made  # type: ignore[comparison-overlap]
