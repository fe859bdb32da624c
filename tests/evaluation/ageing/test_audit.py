"""Ageing audits on drawn faces by judges that can be computed by hand: each renderer gets the figures it must have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mien.evaluation.ageing.audit
from mien.data.drawing.face import draw
from mien.data.manifest import Manifest
from mien.data.renders import FILE as RENDERS
from mien.data.renders import open_renders, renders_schema
from mien.data.sources.drawn import sample
from mien.errors import MienError
from mien.evaluation.ageing.audit import METRICS, PAGE, audit_ageing, named
from mien.evaluation.ageing.judges import Judges
from mien.evaluation.ageing.passes import kept
from mien.evaluation.ageing.sample import Faces, Truth, balanced
from mien.evaluation.ageing.shown import Live, Stored, open_shown
from mien.faces import Crop
from mien.jobs.inputs import expand
from mien.jobs.render import rendering
from mien.models.met import Met
from mien.report.ageing import ageing_page
from tests.evaluation.ageing.conftest import RedAge, Redder

AGES = [20.0, 40.0, 60.0]


def audit(manifest: Manifest, judges: Judges, folder: Path, *renderers: nn.Module, **options: Any) -> dict[str, Any]:
    shown = [Live(one, "test") for one in renderers]  # type: ignore[arg-type]
    asked = {"count": 40, "side": 32, "resamples": 100, "show": False, "split": "val", "ages": AGES} | options
    return audit_ageing(shown, judges, manifest, asked.pop("split"), folder, asked.pop("ages"), **asked)


@pytest.fixture(scope="module")
def audited(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    from tests.evaluation.ageing.conftest import Coarse

    folder = tmp_path_factory.mktemp("audit")
    judges = Judges(RedAge(), Coarse())  # type: ignore[arg-type]
    return audit(manifest, judges, folder, Redder(off=3.0), also=[95.0], count=70, split="all"), folder


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """One page, that of `audited`, is enough."""
    monkeypatch.setattr(mien.evaluation.ageing.audit, "write_page", lambda *_: None)


def faces_of(manifest: Manifest, count: int, split: str = "all") -> tuple[Manifest, np.ndarray]:
    """The audited faces and their pictures, read without the audit's means."""
    part = manifest.split(split)
    chosen = part.take(balanced(part, count))
    paths, archives = chosen.strings("path"), chosen.strings("archive")
    pictures = [chosen.pictures().image(path, archive) for path, archive in zip(paths, archives, strict=True)]
    return chosen, np.stack(pictures)


def test_a_copy_keeps_identity_and_has_the_age_error_of_the_input(
    audited: tuple[dict[str, Any], Path], manifest: Manifest
) -> None:
    metrics, _ = audited
    copy = metrics["renderers"]["copy of the input"]
    _, pictures = faces_of(manifest, 70)
    judged = pictures[:, 0].mean(axis=(1, 2)) / 2.55
    for age in AGES:
        told = copy["ages"][f"{age:g}"]
        assert told["mae"]["value"] == pytest.approx(np.abs(judged - age).mean(), abs=1e-4)
        assert told["cosine"]["value"] == pytest.approx(1, abs=1e-6)
        assert told["cosine"]["n"] == len(pictures)
    summary = copy["summary"]
    expected = np.abs(judged[:, None] - AGES).mean()
    assert summary["mae"]["value"] == pytest.approx(expected, abs=1e-4)  # 95 does not count
    assert summary["mae"]["low"] < expected < summary["mae"]["high"]
    assert (summary["verified"]["value"], summary["gender_kept"]["value"]) == (1, 1)
    assert summary["joint"]["value"] == summary["in_band"]["value"]
    assert (summary["rising"]["value"], summary["spearman"]["value"], summary["changed"]["value"]) == (0, 0, 0)
    assert summary["own_psnr"]["value"] == 99
    assert summary["own_mae"]["value"] == pytest.approx(metrics["judge"]["mae"]["value"])


def test_the_mean_face_is_nobody(audited: tuple[dict[str, Any], Path]) -> None:
    found = audited[0]["renderers"]
    mean, copy = found["mean face of the age"]["summary"], found["copy of the input"]["summary"]
    assert mean["verified"]["value"] < 0.1 < copy["verified"]["value"]
    assert mean["cosine"]["value"] < 0.9
    told = found["mean face of the age"]["ages"]["40"]["judged"]
    assert told["low"] == pytest.approx(told["high"])  # one picture for all


def test_a_renderer_by_hand_has_the_figures_of_its_construction(audited: tuple[dict[str, Any], Path]) -> None:
    metrics, folder = audited
    assert metrics["about"]["notes"] == ["too few faces for a mean one of 60, 95 years: the nearest age's stands in"]
    ours = metrics["renderers"]["redder"]
    assert next(iter(metrics["renderers"])) == "redder"
    for age in AGES:
        assert ours["ages"][f"{age:g}"]["bias"]["value"] == pytest.approx(3, abs=0.3)  # some pixels are cut off
    summary = ours["summary"]
    assert (summary["in_band"]["value"], summary["rising"]["value"], summary["spearman"]["value"]) == (1, 1, 1)
    assert summary["slope"]["value"] == pytest.approx(1, abs=0.02)
    assert summary["spearman_pooled"]["value"] > 0.9
    assert summary["joint"]["value"] == summary["verified"]["value"]
    assert "95" in ours["ages"]
    assert metrics["about"]["counted"] == AGES
    less = metrics["renderers"]["copy of the input"]["first_less_this"]
    other = metrics["renderers"]["copy of the input"]["summary"]
    assert less["mae"]["value"] == pytest.approx(summary["mae"]["value"] - other["mae"]["value"])
    assert ours["realism"]["40"]["reason"].endswith("100 of each are needed")
    assert ours["cost"]["ms"] > 0
    assert json.loads((folder / METRICS).read_text())["renderers"]["redder"]["n"] == metrics["about"]["faces"]
    page = (folder / PAGE).read_text()
    dotted = "Dotted: real faces of that age.", "Dash-dotted: real pairs of one person at that gap."
    assert all(line in page for line in dotted)
    less = ageing_page({**metrics, "real": {}, "verification": None}, {}, metrics["about"]["ages"]).html()
    assert not any(line in less for line in dotted)
    assert "In short" in page
    assert page.count("<img") > 20


def test_groups_and_gaps_hold_the_same_faces(audited: tuple[dict[str, Any], Path], manifest: Manifest) -> None:
    ours = audited[0]["renderers"]["redder"]
    chosen, _ = faces_of(manifest, 70)
    for by in ("gender", "race", "age_bin"):
        assert sum(group["n"] for group in ours["groups"][by].values()) == len(chosen)
        assert all(group.get("suppressed", False) == (group["n"] < 30) for group in ours["groups"][by].values())
    gaps = np.abs(np.array([*AGES, 95.0])[None] - chosen.numbers("age_low")[:, None])
    assert ours["gaps"]["0-4"]["cosine"]["n"] == int((gaps < 5).any(axis=1).sum())


class Oracle(nn.Module):
    """Draws the face as it truly is at each age; what it is asked about comes in the order of the sample."""

    name, crop, ages, input_size = "oracle", Crop("chip"), (0.0, 100.0), 32

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self.card: dict[str, Any] = {}
        self.register_buffer("nothing", torch.zeros(1))
        numbers = [int(str(path).removesuffix(".png")) for path in manifest.strings("path")]
        self.factors = [sample(3, number) for number in numbers]
        self.place = 0

    def render(self, images: Tensor, ages: Tensor, source_ages: Tensor | None = None) -> Tensor:
        who = self.factors[self.place : self.place + len(images)]
        if ages.shape[1] == 1:  # at their own ages, asked for after the others
            self.place += len(images)
        made = [[draw(replace(one, age=float(age)), 32)[0] for age in row] for one, row in zip(who, ages, strict=False)]
        return torch.from_numpy(np.array(made)).float() / 255


def test_on_drawn_faces_the_truth_tells_an_oracle_from_a_copy(
    manifest: Manifest, judges: Judges, tmp_path: Path
) -> None:
    chosen, pictures = faces_of(manifest, 12, "val")
    oracle = Oracle(chosen)
    found = audit(manifest, judges, tmp_path, oracle, count=12)["renderers"]
    assert found["oracle"]["summary"]["truth"]["value"] < 1e-4
    true = [[draw(replace(one, age=age), 32)[0] for age in AGES] for one in oracle.factors]
    expected = np.abs(np.array(true, dtype=float) - pictures[:, None]).mean() / 255
    assert found["copy of the input"]["summary"]["truth"]["value"] == pytest.approx(expected, abs=1e-6)
    for name in ("mean face of the age", "shift by pixel means"):
        assert found[name]["summary"]["truth"]["value"] > 0.01


def test_faces_that_were_changed_after_drawing_have_no_truth(manifest: Manifest, judges: Judges) -> None:
    part = manifest.split("val").take(np.arange(6))
    other = part.with_columns({"yaw": -part.numbers("yaw") + 20})
    with pytest.raises(MienError, match="so their truth is not known"):
        Truth(Faces(other, 32, {}, {}))
    with pytest.raises(MienError, match="only drawn faces"):
        Truth(Faces(part.with_columns({"source": ["other"] * 6}), 32, {}, {}))


def test_what_was_computed_is_not_computed_again(manifest: Manifest, judges: Judges, tmp_path: Path) -> None:
    first, second = Redder(), Redder(off=1.0)
    one = audit(manifest, judges, tmp_path, first, count=10)
    seen = judges.age.seen  # type: ignore[attr-defined]
    made = first.rendered
    both = audit(manifest, judges, tmp_path, first, second, count=10)
    assert first.rendered == made
    assert list(both["renderers"])[:2] == ["redder", "redder (2)"]
    assert both["renderers"]["redder"] == one["renderers"]["redder"]
    assert 0 < judges.age.seen - seen <= 10 * 4  # type: ignore[attr-defined]
    audit(manifest, judges, tmp_path, first, count=11)
    assert first.rendered > made


def test_renders_made_before_are_judged_as_the_renderer_is(manifest: Manifest, judges: Judges, tmp_path: Path) -> None:
    val = manifest.split("val")
    some = val.take(np.arange(9)).save(tmp_path / "some")
    question = rendering(Redder(), expand([str(some)]), AGES)  # type: ignore[arg-type]
    question.job(tmp_path / "renders", expand([str(some)]), show=False)
    stored = Stored(tmp_path / "renders")
    with pytest.raises(MienError, match="renders that are there cannot be aimed; name a renderer, or leave --aim out"):
        open_shown(str(tmp_path / "renders"), aim="face-mobile")
    assert stored.available(val, np.array(AGES)).tolist() == [True] * 9 + [False] * (len(val) - 9)
    both = [stored, Live(Redder(), "test")]  # type: ignore[arg-type]
    options: dict[str, Any] = {"count": 8, "side": 32, "resamples": 100, "show": False}
    found = audit_ageing(both, judges, manifest, "val", tmp_path, AGES, **options)["renderers"]
    old, new = found["redder"], found["redder (2)"]
    assert (old["kind"], old["n"], np.isnan(old["cost"]["ms"])) == ("renders", 8, True)
    assert old["ages"]["40"]["mae"]["value"] == pytest.approx(new["ages"]["40"]["mae"]["value"], abs=0.01)
    assert old["summary"]["truth"]["value"] == pytest.approx(new["summary"]["truth"]["value"], abs=1e-4)
    assert "own_psnr" not in old["summary"]
    with pytest.raises(MienError, match=r"not one face of .* is rendered at all of 20, 41"):
        stored.available(manifest, np.array([20.0, 41.0]))


def test_pictures_of_renders_that_were_replaced_are_judged_anew(
    manifest: Manifest, judges: Judges, tmp_path: Path
) -> None:
    some = manifest.split("val").take(np.arange(6)).save(tmp_path / "some")
    options: dict[str, Any] = {"count": 6, "side": 32, "resamples": 100, "show": False}
    judged, hashes = [], set()
    # Folders of one name whose tables tell of no model, as where pictures came from elsewhere.
    for place, off in (("a", 0.0), ("b", 20.0)):
        folder = tmp_path / place / "renders"
        question = rendering(Redder(off=off), expand([str(some)]), AGES)  # type: ignore[arg-type]
        question.job(folder, expand([str(some)]), show=False)
        table, about, _ = open_renders(folder)
        about = {name: value for name, value in about.items() if name not in ("kind", "model")}
        pq.write_table(table.cast(renders_schema(about)), folder / RENDERS)
        for _ in range(2):
            stored = Stored(folder)
            found = audit_ageing([stored], judges, manifest, "val", tmp_path, AGES, **options)
            judged.append(found["renderers"][stored.name]["summary"]["mae"]["value"])
            hashes.add(stored.hash)
    assert len(hashes) == 2  # nothing changed: nothing is judged anew
    assert judged[0] == judged[1] != judged[2] == judged[3]
    assert judged[2] == pytest.approx(20, abs=3)
    # One folder, other pictures under the old names.
    for picture in (tmp_path / "a").rglob("*.png"):
        picture.write_bytes((tmp_path / "b" / picture.relative_to(tmp_path / "a")).read_bytes())
    again = Stored(tmp_path / "a" / "renders")
    found = audit_ageing([again], judges, manifest, "val", tmp_path, AGES, **options)
    assert found["renderers"][again.name]["summary"]["mae"]["value"] == judged[2]


def test_strips_are_of_the_faces_beside_them(
    manifest: Manifest, judges: Judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed shows other faces, though the same ones are judged; a copy's render is the face itself."""
    shown: list[tuple[list[int], np.ndarray]] = []

    def page(_: Any, faces: Faces, passes: Any, strips: np.ndarray, path: Path) -> None:
        pictures = np.concatenate([batch.images.numpy() for batch in faces.loader().epoch()])
        shown.append((strips.tolist(), pictures))
        made = passes["copy of the input"]["strips"]
        np.testing.assert_array_equal(made, np.repeat(pictures[strips][:, None], len(AGES), axis=1))

    monkeypatch.setattr(mien.evaluation.ageing.audit, "write_page", page)
    for seed in (0, 1):
        audit(manifest, judges, tmp_path, Redder(), count=1000, seed=seed)
    assert shown[0][0] != shown[1][0]
    np.testing.assert_array_equal(shown[0][1], shown[1][1])


def test_without_persons_or_identity_what_is_missing_is_said(manifest: Manifest, tmp_path: Path) -> None:
    nameless = Manifest(manifest.table.drop_columns(["person"]), manifest.root, manifest.crop, manifest.path)
    from tests.evaluation.ageing.conftest import Coarse

    judges = Judges(RedAge(), Coarse())  # type: ignore[arg-type]
    found = audit(nameless, judges, tmp_path / "a", Redder(), count=8)
    assert found["verification"] is None
    assert any("shows nobody twice" in note and "--pairs" in note for note in found["about"]["notes"])
    assert "joint" not in found["renderers"]["redder"]["summary"]
    wide = Manifest(manifest.table, manifest.root, Crop("chip", 0.6, 32), manifest.path)
    with pytest.raises(MienError, match=r"for the thresholds of identity: .* margin 0\.6"):
        audit(nameless, judges, tmp_path / "a", Redder(), count=8, pairs=wide)
    paired = audit(nameless, judges, tmp_path / "a", Redder(), count=8, pairs=manifest)
    assert paired["verification"]["faces"] == len(manifest)
    alone = audit(manifest, Judges(RedAge()), tmp_path / "b", Redder(), count=8)
    assert "cosine" not in alone["renderers"]["redder"]["summary"]
    assert any("name a network with --identity" in note for note in alone["about"]["notes"])
    # A renderer that learnt from some of the faces is said to have.
    one, other = Redder(), Redder(off=1.0)
    one.learnt, other.name = Met.of(manifest.split("val").strings("sha256")[:40]), "other"  # type: ignore[assignment]
    told = audit(manifest, judges, tmp_path / "c", one, other, count=40)["about"]["notes"]
    assert next(note for note in told if "learnt from" in note).startswith("redder learnt from ")
    assert not any(note.startswith("other") for note in told)


def test_renders_of_faces_cut_anew_are_no_renders_of_the_stored_ones(manifest: Manifest, tmp_path: Path) -> None:
    some = manifest.split("val").take(np.arange(4)).save(tmp_path / "some")
    question = rendering(Redder(), expand([str(some)]), AGES)  # type: ignore[arg-type]
    question.job(tmp_path / "renders", expand([str(some)]), show=False)
    table, _, folder = open_renders(tmp_path / "renders")
    left = [3.0 if row < 2 * len(AGES) else None for row in range(len(table))]
    place = table.schema.get_field_index("left")
    for found in (left, [3.0] * len(table)):
        column = pa.array(found, table.schema.field(place).type)
        pq.write_table(table.set_column(place, table.schema.field(place), column), folder / RENDERS)
        if None in found:
            there = Stored(tmp_path / "renders").available(Manifest.open(some), np.array(AGES))
            assert there.tolist() == [False, False, True, True]
    with pytest.raises(MienError, match="no face was rendered as it is stored"):
        Stored(tmp_path / "renders")


def test_a_picture_that_is_gone_leaves_no_half_pass(judges: Judges, manifest: Manifest, tmp_path: Path) -> None:
    part = manifest.split("val").take(np.arange(12))
    loose = Manifest(part.table.drop_columns(["archive"]), tmp_path, part.crop)
    for path, archive in zip(part.strings("path"), part.strings("archive"), strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(part.pictures().read(path, archive))
    audit(loose, judges, tmp_path / "out", Redder(), count=8)
    picture = tmp_path / loose.take(balanced(loose, 8, 0)).strings("path")[2]
    kept_bytes = picture.read_bytes()
    picture.unlink()
    with pytest.raises(MienError, match=r"a given face could be read before and cannot now: .*put it back"):
        audit(loose, judges, tmp_path / "out", Redder(), Redder(off=5.0), count=8)
    picture.write_bytes(kept_bytes)
    found = audit(loose, judges, tmp_path / "out", Redder(), Redder(off=5.0), count=8)
    assert found["renderers"]["redder (2)"]["n"] == 8


def test_ages_that_make_no_audit_are_refused(manifest: Manifest, judges: Judges, tmp_path: Path) -> None:
    for age in (130.0, float("nan")):
        with pytest.raises(MienError, match=f"age {age:g} to render is outside 0-120 years"):
            audit(manifest, judges, tmp_path / "none", Redder(), ages=[20.0, age])
    assert not (tmp_path / "none").exists()
    with pytest.raises(MienError, match="two ages or more"):
        audit(manifest, judges, tmp_path, Redder(), ages=[40.0])
    ageless = Manifest(manifest.table.drop_columns(["age_low", "age_high"]), manifest.root, manifest.crop)
    with pytest.raises(MienError, match="no face has an age"):
        audit(ageless, judges, tmp_path, Redder())


def test_names_stay_apart() -> None:
    assert list(named([Live(Redder(), "a"), Live(Redder(), "b"), Live(Redder(), "c")])) == [  # type: ignore[arg-type]
        "redder", "redder (2)", "redder (3)",
    ]  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(where=st.integers(0, 900), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_pass_is_made_anew_or_is_whole(tmp_path: Path, where: int, byte: int, cut: bool) -> None:
    file = tmp_path / "answers.npz"
    file.unlink(missing_ok=True)
    kept(file, {"a": 1}, lambda: {"x": np.arange(40.0)})
    data = bytearray(file.read_bytes())
    where = min(where, len(data) - 1)
    data = data[:where] if cut else data[:where] + bytes([byte]) + data[where + 1 :]
    file.write_bytes(bytes(data))
    found = kept(file, {"a": 1}, lambda: {"x": np.arange(40.0)})
    assert found["x"].tolist() == list(range(40))
    assert kept(file, {"a": 2}, lambda: {"x": np.ones(1)})["x"].tolist() == [1]


def test_real_faces_and_means_are_of_others_than_the_judged(
    manifest: Manifest, judges: Judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = manifest.split("val")
    groups = np.where(np.arange(len(part)) % 3 == 0, np.arange(len(part)) // 6, -1)
    given = Manifest(part.table, part.root, part.crop).with_columns({"group": groups.astype(np.int64)})
    given = given.with_columns({"split": ["val"] * len(given)})
    looked: list[Manifest] = []
    true = mien.evaluation.ageing.audit.look_at
    monkeypatch.setattr(
        mien.evaluation.ageing.audit, "look_at", lambda faces, *rest: looked.append(faces) or true(faces, *rest)
    )
    means: list[Manifest] = []
    mean = mien.evaluation.ageing.audit.mean_faces
    monkeypatch.setattr(
        mien.evaluation.ageing.audit, "mean_faces", lambda faces, *rest: means.append(faces) or mean(faces, *rest)
    )
    audit(given, judges, tmp_path, Redder(off=3.0), count=12)
    judged, real = looked[0], looked[-1]
    chosen = set(judged.strings("path"))
    assert len(looked) >= 2
    assert len(means) == 1
    number = dict(zip(given.strings("path"), given.groups(), strict=True))
    taken = {number[path] for path in chosen}
    for others in (real, means[0]):
        assert len(others) > 0
        assert not taken & {number[path] for path in others.strings("path")}
