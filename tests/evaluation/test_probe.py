from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from mien.data.manifest import Manifest
from mien.evaluation.probe import FOLDS, RIDGE, source_probe, sources_of
from mien.faces import Crop, Face


def test_it_finds_what_is_there_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    sources = np.array(["a"] * 300 + ["b"] * 100 + ["c"] * 100, dtype=object)
    noise = generator.normal(size=(500, 16))
    blind = source_probe(noise, sources, np.arange(500), resamples=200)
    assert blind["majority"]["value"] == 0.6
    assert blind["accuracy"]["high"] < 0.65
    telling = noise.copy()
    telling[sources == "b", 3] += 6
    telling[sources == "c", 4] += 6
    found = source_probe(telling, sources, np.arange(500), resamples=200)
    assert found["accuracy"]["value"] > 0.97
    assert found["above_majority"]["low"] > 0.3
    assert found["above_majority"]["value"] == pytest.approx(found["accuracy"]["value"] - 0.6)
    assert set(found["recall"]) == {"a", "b", "c"}
    assert found == source_probe(telling, sources, np.arange(500), resamples=200)


def test_a_group_is_never_learnt_from_and_judged() -> None:
    # Every group has features of its own and a source at random: a probe that saw the group would know its source.
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(100), 10)
    sources = np.array(["a", "b"], dtype=object)[generator.permutation(np.arange(100) % 2)][groups]
    features = generator.normal(size=(100, 80))[groups] + 0.01 * generator.normal(size=(1000, 80))
    apart = source_probe(features, sources, groups, resamples=100)
    assert apart["accuracy"]["value"] < 0.65
    leaking = source_probe(features, sources, np.arange(1000), resamples=100)
    assert leaking["accuracy"]["value"] > 0.8


def test_it_is_sklearns_ridge() -> None:
    generator = np.random.default_rng(2)
    sources = np.array(["a", "b", "c"], dtype=object)[generator.integers(0, 3, 400)]
    features = generator.normal(size=(400, 8))
    features[:, 0] += (sources == "b") * 1.5
    found = source_probe(features, sources, np.arange(400), resamples=10)["accuracy"]["value"]
    fold = np.random.default_rng(0).permutation(400) % FOLDS
    right = []
    for held in range(FOLDS):
        x, y = features[fold != held], sources[fold != held].astype(str)
        model = RidgeClassifier(alpha=RIDGE * len(x)).fit((x - x.mean(0)) / x.std(0), y)
        right.append(model.predict((features[fold == held] - x.mean(0)) / x.std(0)) == sources[fold == held])
    assert found == pytest.approx(np.concatenate(right).mean())


def test_which_data_sets_are_told_apart() -> None:
    def manifest(*counts: int) -> Manifest:
        faces = [Face(f"{n}/{i}.png", source=f"set{n}") for n, count in enumerate(counts) for i in range(count)]
        return Manifest.from_faces(faces, Path(), Crop("chip"))

    assert sources_of(manifest(100)) is None
    assert sources_of(manifest(100, 29)) is None
    found = sources_of(manifest(100, 30, 5))
    assert found is not None
    assert [sum(found == name) for name in ("set0", "set1", "set2")] == [100, 30, 0]
