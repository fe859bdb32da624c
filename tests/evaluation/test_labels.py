"""Wrong labels that are put in on purpose, and whether they are found."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien.data.duplicates import Duplicates
from mien.data.labelling import Tables, correct
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.labels import Views, audit_labels, corrections, doubt, folds
from mien.faces import Crop, Face


def manifest_of(ages: np.ndarray, genders: list[str] | None = None) -> Manifest:
    faces = [
        Face(f"{row}.png", age=(float(age), float(age)), gender=genders[row] if genders else None)
        for row, age in enumerate(ages)
    ]
    return Manifest.from_faces(faces, Path(), Crop("chip"))


def no_copies(count: int, groups: dict[int, int], identical: list[tuple[int, int]]) -> Duplicates:
    numbers = np.full(count, -1, dtype=np.int64)
    for row, group in groups.items():
        numbers[row] = group
    pairs = np.array(identical or np.zeros((0, 2)), dtype=np.int64).reshape(-1, 2)
    yes = np.ones(len(pairs), dtype=bool)
    return Duplicates(pairs, yes.astype(np.float32), yes, ~yes, numbers)


def drawn_ages(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a model says of 4,000 faces and how old they are, (4000,) years each."""
    said = np.clip(np.round(generator.gamma(4, 9, 4000)), 0, 100)
    return said, np.clip(np.round(said + generator.laplace(0, 5, 4000)), 0, 100)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_replaced_at_random_are_found(seed: int) -> None:
    """30 % of the labels are another face's; true ages lie around what the model says (Laplace, 5 years)."""
    generator = np.random.default_rng(seed)
    said, true = drawn_ages(generator)
    label = true.copy()
    replaced = generator.random(4000) < 0.3
    label[replaced] = generator.permutation(true[replaced])
    far = np.abs(label - true) > 15
    found = doubt(label, label, Views(["m"], said[None], np.full((1, 4000), 5.0)))
    flagged = found.wrong >= 0.5
    assert flagged[far].mean() >= 0.8
    assert replaced[flagged].mean() >= 0.7
    assert 0.2 < found.share < 0.4
    # Of labels given a probability, about that share is wrong.
    sure = (found.wrong > 0.3) & (found.wrong < 0.9)
    assert abs(replaced[sure].mean() - found.wrong[sure].mean()) < 0.12


def test_right_labels_are_left_alone() -> None:
    generator = np.random.default_rng(0)
    said, true = drawn_ages(generator)
    views = Views(["m"], said[None], np.full((1, 4000), np.nan))
    found = doubt(true, true, views)
    assert (found.wrong >= 0.5).mean() < 0.01
    assert found.share < 0.05


def test_faces_without_a_label_or_an_answer_change_nothing() -> None:
    generator = np.random.default_rng(0)
    said = generator.normal(30, 2, 100)
    low = np.round(said + generator.laplace(0, 4, 100))
    low[:20], said[20:40] = np.nan, np.nan
    rest = slice(40, None)
    found = doubt(low, low, Views(["m"], said[None], np.full((1, 100), 3.0)))
    alone = doubt(low[rest], low[rest], Views(["m"], said[None, rest], np.full((1, 60), 3.0)))
    np.testing.assert_array_equal(found.wrong[rest], alone.wrong)
    assert found.share == alone.share
    assert np.isnan(found.wrong[:40]).all()


def test_models_without_a_say_are_not_heard() -> None:
    ages = np.array([[20.0, np.nan], [40.0, np.nan], [np.nan, np.nan]])
    age, std = Views(["a", "b", "c"], ages, np.full((3, 2), 4.0)).together()
    np.testing.assert_allclose(age, [30, np.nan])
    np.testing.assert_allclose(std, [np.sqrt(16 + 100), np.nan])
    few = doubt(np.full(3, 30.0), np.full(3, 30.0), Views(["a"], np.full((1, 3), 90.0), np.full((1, 3), 4.0)))
    assert np.isnan(few.wrong).all()  # too few to tell how far off the model usually is


def test_an_interval_is_held_against_its_nearer_end() -> None:
    generator = np.random.default_rng(0)
    said = generator.normal(30, 2, 200)
    low, high = np.full(200, 20.0), np.full(200, 40.0)
    low[0] = high[0] = 80.0
    found = doubt(low, high, Views(["m"], said[None], np.full((1, 200), 3.0)))
    assert found.wrong[0] > 0.9
    assert (found.wrong[1:] < 0.1).all()


@pytest.mark.parametrize("wrong", [0.0, 0.03])
@pytest.mark.parametrize("bins", [1.0, 0.7, 0.0], ids=["bins", "mixed", "years"])
def test_age_bins_are_doubted_as_single_years_are(bins: float, wrong: float) -> None:
    """Nine bins, as FairFace has them: most hold the model's age, which must not make it look surer than it is."""
    generator = np.random.default_rng(0)
    said = np.clip(generator.gamma(5, 7, 4000), 1, 90)
    label = np.floor(np.clip(said + generator.laplace(0, 4, 4000), 0, 100))
    replaced = generator.random(4000) < wrong
    label[replaced] = generator.permutation(label)[replaced]
    edges = np.array([0, 3, 10, 20, 30, 40, 50, 60, 70, 121])
    binned = np.where(generator.random(4000) < bins, np.searchsorted(edges, label, side="right"), 0)
    low, high = np.where(binned > 0, edges[binned - 1], label), np.where(binned > 0, edges[binned] - 1, label)
    found = doubt(low, high, Views(["m"], said[None], np.full((1, 4000), 6.0)))
    assert found.scale[0] == pytest.approx(4, rel=0.15)
    assert abs(found.share - wrong) < 0.015
    assert ((found.wrong >= 0.5) & ~replaced).mean() < 0.005


def test_experts_have_no_say_on_labels_that_are_theirs() -> None:
    ages = np.array([30.0, 40.0])
    manifest = manifest_of(ages).with_columns(
        {"moe_age": [30.0, 44.0], "moe_std": [3.0, 3.0], "age_from": ["moe", "name"]}
    )
    np.testing.assert_array_equal(Views.of(manifest).ages, [[np.nan, 44.0]])


def test_copies_are_held_against_each_other_and_models_decide() -> None:
    ages = np.array([30.0, 60.0, 30.0, 30.0, 55.0, 20.0, 20.0])
    manifest = manifest_of(ages, ["Male", "Male", "Male", "Female", "Male", "Male", "Female"])
    copies = no_copies(7, {0: 0, 1: 0, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2}, [(0, 1), (2, 3), (2, 4), (5, 6)])
    nothing = Views([], np.zeros((0, 7)), np.zeros((0, 7)))
    unknown = doubt(ages, ages, nothing)
    found = {one.row: one for one in audit_labels(manifest, nothing, unknown, copies)}
    assert found[0].score == found[1].score == 0.5
    assert found[0].corrections == {"age": ""}  # one of the two is wrong, nothing says which
    assert found[4].score == pytest.approx(2 / 3)
    assert found[4].corrections["age"] == 30
    assert found[3].corrections["gender"] == "Male"
    assert found[2].score == pytest.approx(1 / 3)
    assert found[5].corrections == {"gender": ""}
    assert found[5].evidence == ["labelled Male, byte-identical pictures Female"]
    views = Views(["m"], np.array([[31.0, 31, 30, 30, 30, 20, 20]]), np.full((1, 7), 4.0))
    told = unknown.__class__(unknown.wrong, views.ages[0], np.full(7, 4.0), 0.0)
    found = {one.row: one for one in audit_labels(manifest, views, told, copies)}
    assert found[1].score > 0.95
    assert found[1].corrections["age"] == 30
    assert found[0].score < 0.05
    # The other way round, by a model that has no say on one of the two.
    told = unknown.__class__(unknown.wrong, np.array([np.nan, 61.0, *[np.nan] * 5]), np.full(7, 4.0), 0.0)
    suspects = audit_labels(manifest, views, told, copies)
    found = {one.row: one for one in suspects}
    assert found[0].score > 0.95
    assert found[0].corrections["age"] == 60
    assert found[1].score < 0.05
    scores = [one.score for one in suspects]
    assert scores == sorted(scores, reverse=True)


def test_labels_of_seventy_or_more_do_not_make_95_a_common_age() -> None:
    generator = np.random.default_rng(0)
    said, low = drawn_ages(generator)
    low[:400] = generator.permutation(low[:400])
    binned = (low >= 70) & (generator.random(4000) < 0.8)
    low[binned] = 70
    low, said, binned = np.append(low, 95), np.append(said, 80), np.append(binned, False)
    views = Views(["m"], said[None], np.full((1, 4001), 5.0))
    open_ended, closed = (doubt(low, np.where(binned, last, low), views).wrong[-1] for last in (120, 80))
    assert open_ended == pytest.approx(closed, rel=0.5)


@pytest.mark.parametrize(
    ("ages", "identical", "scores", "corrected"),
    [
        ([(20, 20), (22, 22), (60, 60)], False, [0.467, 0.467, 0.667], [("2.png", "age", "")]),
        ([(20, 29), (22, 22), (60, 60)], True, [1 / 3, 1 / 3, 2 / 3], [("2.png", "age", "22")]),
        ([(20, 20), (22, 22)], False, [0.2, 0.2], []),
    ],
)
def test_copies_whose_ages_meet_stand_by_each_other(
    ages: list[tuple[float, float]], identical: bool, scores: list[float], corrected: list[tuple[str, str, str]]
) -> None:
    count = len(ages)
    manifest = Manifest.from_faces([Face(f"{row}.png", age=age) for row, age in enumerate(ages)], Path(), Crop("chip"))
    pairs = [(0, row) for row in range(1, count)]
    copies = no_copies(count, dict.fromkeys(range(count), 0), pairs)
    copies = copies if identical else replace(copies, identical=~copies.identical)
    nothing = Views([], np.zeros((0, count)), np.zeros((0, count)))
    suspects = audit_labels(manifest, nothing, doubt(np.zeros(count), np.zeros(count), nothing), copies)
    assert [one.score for one in sorted(suspects, key=lambda one: one.row)] == pytest.approx(scores, abs=1e-3)
    assert corrections(suspects, manifest.strings("path"), 0.5) == corrected


def test_copies_of_seventy_or_more_do_not_make_a_face_95() -> None:
    ages = [(60.0, 69.0), (70.0, 120.0), (70.0, 120.0)]
    manifest = Manifest.from_faces([Face(f"{row}.png", age=age) for row, age in enumerate(ages)], Path(), Crop("chip"))
    copies = no_copies(3, {0: 0, 1: 0, 2: 0}, [(0, 1), (0, 2)])
    nothing = Views([], np.zeros((0, 3)), np.zeros((0, 3)))
    suspects = audit_labels(manifest, nothing, doubt(np.zeros(3), np.zeros(3), nothing), copies)
    assert corrections(suspects, manifest.strings("path"), 0.5) == [("0.png", "age", "75")]


def test_a_picture_that_stands_for_thousands_takes_no_memory_for_each_two_of_them() -> None:
    """Scraped sets hold the same "no picture" ten thousand times: a table of all against all would be gigabytes."""
    count = 2000
    manifest = manifest_of(np.where(np.arange(count) % 3 == 0, 40.0, 20.0), ["Male", *["Female"] * (count - 1)])
    copies = no_copies(count, dict.fromkeys(range(count), 0), [(0, row) for row in range(1, count)])
    nothing = Views([], np.zeros((0, count)), np.zeros((0, count)))
    doubts = doubt(np.zeros(count), np.zeros(count), nothing)
    tracemalloc.start()
    try:
        suspects = audit_labels(manifest, nothing, doubts, copies)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * count * count  # bytes; one such table of numbers has eight for each two
    assert len(suspects) == count
    assert suspects[0].row == 0
    assert suspects[0].evidence[0] == "labelled 40, byte-identical pictures 20, 40 years"
    assert suspects[0].corrections == {"age": 20.0, "gender": "Female"}
    assert suspects[-1].corrections == {}


def test_labels_that_were_found_right_are_not_dropped() -> None:
    manifest = manifest_of(np.array([20.0, 20.0, 60.0]))
    copies = no_copies(3, {0: 0, 1: 0, 2: 0}, [(0, 1), (0, 2)])
    nothing = Views([], np.zeros((0, 3)), np.zeros((0, 3)))
    suspects = audit_labels(manifest, nothing, doubt(np.zeros(3), np.zeros(3), nothing), copies)
    assert corrections(suspects, manifest.strings("path"), 0.3) == [("2.png", "age", "20")]


def test_ages_that_hardly_anyone_reaches() -> None:
    manifest = manifest_of(np.array([30.0, 116.0]))
    nothing = Views([], np.zeros((0, 2)), np.zeros((0, 2)))
    (one,) = audit_labels(manifest, nothing, doubt(np.zeros(2), np.zeros(2), nothing))
    assert (one.row, one.score, one.corrections) == (1, 0.5, {"age": ""})


def test_corrections_are_what_prepare_takes(tmp_path: Path) -> None:
    ages = np.array([30.0, 60.0, 116.0])
    manifest = manifest_of(ages)
    copies = no_copies(3, {0: 0, 1: 0}, [(0, 1)])
    nothing = Views([], np.zeros((0, 3)), np.zeros((0, 3)))
    told = doubt(ages, ages, nothing).__class__(np.full(3, np.nan), np.array([31.0, 31, np.nan]), np.full(3, 4.0), 0.0)
    suspects = audit_labels(manifest, nothing, told, copies)
    rows = corrections(suspects, manifest.strings("path"), 0.5)
    assert sorted(rows) == [("1.png", "age", "30"), ("2.png", "age", "")]
    (tmp_path / "c.csv").write_text("path,column,value\n" + "".join(",".join(row) + "\n" for row in rows))
    faces = [manifest.face(row) for row in range(3)]
    rows_read = Tables.read(corrections=tmp_path / "c.csv").corrections
    assert rows_read is not None
    assert correct(faces, rows_read) == []
    assert [face.age for face in faces] == [(30, 30), (30, 30), None]


def test_experts_of_a_relabelled_manifest_have_a_say() -> None:
    manifest = manifest_of(np.array([30.0, 60.0]))
    assert Views.of(manifest).names == []
    manifest = manifest.with_columns({"moe_age": np.array([31.0, 20.0]), "moe_std": np.array([5.0, 5.0])})
    assert Views.of(manifest, [("m", np.zeros(2), np.ones(2))]).names == ["m", "experts"]


def test_folds_hold_every_face_out_once_and_keep_groups_together() -> None:
    manifest = manifest_of(np.arange(100, dtype=np.float64)).with_columns({"group": np.arange(100) // 2})
    made = folds(manifest, 5)
    held = np.stack([part.strings("split") == "val" for part in made])
    assert (held.sum(0) == 1).all()
    assert all(10 <= count <= 30 for count in held.sum(1))
    for part in made:
        split = part.strings("split")
        assert (split[::2] == split[1::2]).all()
        assert (split == "select").sum() == 8  # 4 of 40 groups
    with pytest.raises(MienError, match="folds of 50 groups"):
        folds(manifest, 51)


@pytest.mark.parametrize(("groups", "count"), [(15, 10), (15, 15), (4, 2), (3, 3)])
def test_folds_of_few_groups_have_faces_to_learn_from(groups: int, count: int) -> None:
    manifest = manifest_of(np.arange(groups * 4, dtype=np.float64))
    manifest = manifest.with_columns({"group": np.arange(groups * 4) // 4})
    for part in folds(manifest, count):
        there = {name: int((part.strings("split") == name).sum()) for name in ("train", "select", "val")}
        assert sum(there.values()) == groups * 4
        assert there["select"] == 4 * max(1, round(0.1 * (groups - there["val"] // 4)))
        assert min(there.values()) >= 4
    with pytest.raises(MienError, match=r"2 folds of 2 groups of faces; .* at least two groups outside of each"):
        folds(manifest_of(np.arange(2.0)).with_columns({"group": np.arange(2)}), 2)
