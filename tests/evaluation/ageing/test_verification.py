"""Thresholds from pairs, and realism, against loops and references of their own."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.ageing import verification
from mien.evaluation.ageing.realism import realism
from mien.evaluation.ageing.verification import GAPS, fit_thresholds, gap_of, pairs_of
from mien.faces import Crop, Face
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.image import fid, kid


@pytest.fixture
def people() -> tuple[Manifest, np.ndarray]:
    """40 people, 3 pictures each; embeddings are the person and some noise."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 3)
    ages = rng.uniform(0, 60, len(who))
    faces = [Face(f"{i}.jpg", age=(age, age), person=f"p{p}") for i, (p, age) in enumerate(zip(who, ages, strict=True))]
    faces.append(Face("alone.jpg", person="p0"))  # of no known age
    embeddings = rng.normal(size=(40, 16))[who] + rng.normal(0, 0.7, (len(who), 16))
    return Manifest.from_faces(faces, ".", Crop("chip")), embeddings


def test_one_person_alone_gives_no_threshold() -> None:
    faces = [Face(f"{i}.jpg", age=(20.0, 20.0), person="p") for i in range(3)]
    with pytest.raises(MienError, match="names only p: thresholds need pairs of different persons"):
        pairs_of(Manifest.from_faces(faces, ".", Crop("chip")))


def test_a_person_with_many_pictures_is_not_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "FACES", 3)
    for counts in ((5, 1), (4, 3), (1, 6, 1)):
        faces = [
            Face(f"{person}-{number}.jpg", age=(20.0, 20.0), person=f"p{person}")
            for person, count in enumerate(counts)
            for number in range(count)
        ]
        found = pairs_of(Manifest.from_faces(faces, ".", Crop("chip"))).strings("person").tolist()
        assert len(set(found)) >= 2
        assert len(set(found)) < len(found)


def test_gaps_are_found_by_their_ends() -> None:
    assert gap_of(np.array([0, -4.9, 5, 14.9, -15, 44.9, 45, 120])).tolist() == [0, 0, 1, 1, 2, 4, 5, 5]


def test_thresholds_are_those_of_a_loop_over_all_pairs(people: tuple[Manifest, np.ndarray]) -> None:
    manifest, embeddings = people
    known = pairs_of(manifest)
    assert len(known) == 120
    found = fit_thresholds(embeddings, known, far=0.01, resamples=100)
    ages, persons = known.numbers("age_low"), known.strings("person")
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for place, (low, high) in enumerate(GAPS):
        pairs = [(i, j) for i, j in combinations(range(120), 2) if low <= abs(ages[i] - ages[j]) < high]
        others = [float(unit[i] @ unit[j]) for i, j in pairs if persons[i] != persons[j]]
        own = [float(unit[i] @ unit[j]) for i, j in pairs if persons[i] == persons[j]]
        told, threshold = found.about["gaps"][place], found.thresholds[place]
        assert (told["different"], told["same"]) == (len(others), len(own))
        if not told["borrowed"]:
            # The threshold is one of them, which a product of matrices may round otherwise than a loop.
            above = sum(value > threshold + 1e-9 for value in others)
            assert above == int(0.01 * len(others))
        assert told["cosine"]["value"] == pytest.approx(np.mean(own))
        assert told["passed"]["value"] == pytest.approx(np.mean(np.array(own) > threshold))
    # Few of 7,000 pairs are 45 years apart: that gap takes the threshold of the one before.
    assert found.about["gaps"][-1]["borrowed"]
    assert found.thresholds[-1] == found.thresholds[-2]
    cosines = np.array([[found.thresholds[0] + 0.01, found.thresholds[2] - 0.01]])
    assert found.same(cosines, np.array([[-3.0, 20.0]])).tolist() == [[1, 0]]


def test_a_first_gap_of_few_pairs_takes_all_strangers() -> None:
    rng = np.random.default_rng(0)
    ages = np.arange(0.0, 12 * 8, 8)  # nobody is under five years from anybody but himself
    faces = [Face(f"{i}.jpg", age=(age, age), person=f"p{i}") for i, age in enumerate(ages)]
    faces += [Face("again.jpg", age=(1.0, 1.0), person="p0"), Face("other.jpg", age=(2.0, 2.0), person="q")]
    embeddings = rng.normal(size=(len(faces), 8))
    manifest = Manifest.from_faces(faces, ".", Crop("chip"))
    found = fit_thresholds(embeddings, manifest, far=0.05, resamples=100)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    persons = manifest.strings("person")
    strangers = [float(unit[i] @ unit[j]) for i, j in combinations(range(len(faces)), 2) if persons[i] != persons[j]]
    assert found.about["gaps"][0]["different"] == 2
    assert all(gap["borrowed"] for gap in found.about["gaps"])
    assert len(set(found.thresholds.tolist())) == 1
    assert sum(value > found.thresholds[0] + 1e-9 for value in strangers) == int(0.05 * len(strangers))


def test_fids_interval_knows_that_the_real_faces_are_a_sample_too() -> None:
    rng = np.random.default_rng(2)
    told, values = [], []
    for _ in range(12):
        real, made = rng.normal(size=(100, 6)), rng.normal(size=(400, 6))
        found = realism(real, made, Bootstrap(np.arange(400), 100))["fid"]
        told.append((found["high"] - found["value"]) / 1.96)
        values.append(found["value"])
    # With the renders alone resampled it is about half of what it should be: most of the noise is the real faces'.
    assert np.mean(told) > 0.8 * np.std(values)


def test_realism_is_kid_and_fid_with_intervals_that_hold_them() -> None:
    rng = np.random.default_rng(1)
    real, like, unlike = rng.normal(size=(150, 8)), rng.normal(size=(120, 8)), rng.normal(0.5, 1, (120, 8))
    boot = Bootstrap(np.arange(120), 200)
    same, other = realism(real, like, boot), realism(real, unlike, boot)
    for found, made in ((same, like), (other, unlike)):
        assert found["kid"]["value"] == pytest.approx(kid(real, made))
        assert found["fid"]["value"] == pytest.approx(fid(real, made))
        assert found["kid"]["low"] < found["kid"]["value"] < found["kid"]["high"]
        assert found["fid"]["low"] < found["fid"]["value"] < found["fid"]["high"]
    assert same["kid"]["low"] < 0 < same["kid"]["high"]
    assert other["kid"]["low"] > same["kid"]["high"]
    few = realism(real[:99], like, boot)
    assert few["reason"] == "99 real faces and 120 renders; 100 of each are needed"
    assert "kid" not in few
