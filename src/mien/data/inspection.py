"""What a manifest holds and what is wrong with it: counts, imbalance, bad and doubled pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mien.data.duplicates import Duplicates, DuplicateSettings, Thumbnails, find_duplicates, read_thumbnails
from mien.data.manifest import Manifest
from mien.faces import AGE_BIN_NAMES, AGE_BINS, CONTINUOUS, EXPRESSIONS, SPLITS, VOCABULARIES, middle
from mien.tasks.imbalance import age_histogram

#: Years between the ages of one picture beyond which a label is plainly wrong.
FAR = 5.0
Findings = dict[str, Any]


@dataclass(slots=True)
class Inspection:
    """`findings`: plain values, ready for JSON; `conflicts`: the rows of conflicting groups, worst first."""

    findings: Findings
    conflicts: list[np.ndarray]


def inspect_manifest(
    manifest: Manifest, settings: DuplicateSettings | None = None, duplicates: bool = True, show: bool = True
) -> Inspection:
    """Look through a manifest and its pictures, each of which is read once.

    Without `duplicates` they are not compared, and `findings["duplicates"]` is None.
    """
    settings = settings or DuplicateSettings()
    labels = Labels(manifest)
    thumbnails = read_thumbnails(manifest, show)
    paths, archives = manifest.strings("path"), manifest.strings("archive")
    findings: Findings = {
        "faces": len(manifest),
        "crop": manifest.crop.to_dict(),
        "counts": labels.counts(),
        "age": labels.ages(),
        "imbalance": labels.imbalance(),
        "feelings": {name: spread(manifest.numbers(name)) for name in CONTINUOUS if manifest.has(name)},
        "votes": votes(manifest),
        "landmarks": landmarks(manifest),
        "changed": [paths[row] for row in _changed(manifest, thumbnails)],
        "unreadable": [
            {"path": paths[row], "archive": archives[row], "reason": reason}
            for row, reason in thumbnails.failed.items()
        ],
        "duplicates": None,
    }
    conflicts: list[np.ndarray] = []
    if duplicates:
        found = find_duplicates(thumbnails, settings, show)
        findings["duplicates"], conflicts = _about_duplicates(found, labels, paths)
        findings["duplicates"]["settings"] = settings.model_dump()
    return Inspection(findings, conflicts)


def _changed(manifest: Manifest, thumbnails: Thumbnails) -> list[int]:
    """The rows whose picture is not the one that was prepared, by the sha256 of its bytes."""
    if not manifest.has("sha256"):
        return []
    known = enumerate(zip(manifest.strings("sha256"), thumbnails.hashes, strict=True))
    return [
        row for row, (was, now) in known if was is not None and row not in thumbnails.failed and was != now.tobytes()
    ]


def spread(values: np.ndarray) -> Findings:
    """Of numbers (N,), NaN where missing: how many, mean, standard deviation, quartiles, range, how many are 0."""
    known = values[~np.isnan(values)].astype(np.float64)
    low, first, median, third, high = np.quantile(known, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return {
        "count": len(known),
        "missing": len(values) - len(known),
        "mean": float(known.mean()),
        "deviation": float(known.std()),
        "lowest": low,
        "quartiles": [first, median, third],
        "highest": high,
        "zero": int((known == 0).sum()),
    }


def votes(manifest: Manifest) -> Findings | None:
    """Of faces with votes: how many have a tie, or most raters unsure, and the mean share of the winner."""
    if not manifest.has("expression_votes"):
        return None
    of = manifest.votes()
    of = of[~np.isnan(of).any(axis=1)]
    best = of.max(axis=1)
    tied = (of == best[:, None]).sum(axis=1) > 1
    return {
        "faces": len(of),
        "tied": int(tied.sum()),
        "unsure": int((~tied & (of.argmax(axis=1) >= len(EXPRESSIONS))).sum()),
        "agreement": float((best / of.sum(axis=1)).mean()),
    }


def landmarks(manifest: Manifest) -> Findings | None:
    """How many faces have landmarks, and of how many a landmark lies outside the picture, at all and by a tenth of it.

    Such points are kept: a chin below the edge is where it is. Where the pictures' sizes are unknown, so are these.
    """
    if not manifest.has("landmarks"):
        return None
    points = manifest.landmarks()
    size = np.stack([manifest.numbers("width"), manifest.numbers("height")], axis=1)
    size = np.where(np.isnan(size) & bool(manifest.crop.size), np.float32(manifest.crop.size), size)
    beyond = np.maximum(-0.5 - points, points - (size[:, None] - 0.5)).max(axis=(1, 2)) / size.max(axis=1)
    has, sized = ~np.isnan(points).any(axis=(1, 2)), ~np.isnan(size).any()
    return {
        "faces": int(has.sum()),
        "outside": int((beyond > 0).sum()) if sized else None,
        "far_outside": int((beyond > 0.1).sum()) if sized else None,
    }


class Labels:
    """The labels of a manifest's faces, side by side."""

    def __init__(self, manifest: Manifest) -> None:
        self.low, self.high = manifest.numbers("age_low"), manifest.numbers("age_high")
        self.words = {name: manifest.codes(name) for name in VOCABULARIES if manifest.has(name)}
        self.splits = manifest.codes("split")
        self.sources = manifest.strings("source") if manifest.has("source") else None
        self.histogram = age_histogram(self.low, self.high)

    def counts(self) -> dict[str, dict[str, int]]:
        """Faces by label: by word of each vocabulary, by kind of age, by split, by source."""
        known = ~np.isnan(self.low)
        exact = known & (self.low == self.high)
        counts = {
            "age": {
                "exact": int(exact.sum()),
                "interval": int((known & ~exact).sum()),
                "missing": int((~known).sum()),
            }
        }
        for name, codes in self.words.items():
            counts[name] = _count(codes, VOCABULARIES[name])
        counts["split"] = _count(self.splits, SPLITS)
        if self.sources is not None:
            names = sorted({name for name in self.sources if name is not None})
            place = {name: code for code, name in enumerate(names)}
            counts["source"] = _count(np.array([place.get(name, -1) for name in self.sources]), names)
        return counts

    def ages(self) -> Findings | None:
        """Histogram by whole year (an interval is shared among its years), bins, mean, median, range."""
        years = middle(self.low, self.high)
        years = years[~np.isnan(years)]
        if not len(years):
            return None
        return {
            "histogram": self.histogram.round(4).tolist(),
            "bins": dict(zip(AGE_BIN_NAMES, self._bins().round(4).tolist(), strict=True)),
            "mean": float(years.mean()),
            "median": float(np.median(years)),
            "lowest": float(np.nanmin(self.low)),
            "highest": float(np.nanmax(self.high)),
        }

    def imbalance(self) -> dict[str, Findings]:
        """For each task, how uneven its classes are and the loss weights that would even them out.

        A class's weight is faces / (classes x faces of the class), over classes that occur: what
        `class_weights: balanced` takes, 1 on average over faces.
        """
        tables = {}
        if self.histogram.any():
            tables["age"] = _imbalance(self._bins(), AGE_BIN_NAMES)
        for name, codes in self.words.items():
            words = VOCABULARIES[name]
            tables[name] = _imbalance(np.bincount(codes[codes >= 0], minlength=len(words)), words)
        return tables

    def of(self, row: int) -> Findings:
        """The labels of one face, those it has: age in years, or [first, last] of an interval."""
        labels: Findings = {}
        if not np.isnan(self.low[row]):
            low, high = float(self.low[row]), float(self.high[row])
            labels["age"] = low if low == high else [low, high]
        for name, codes in self.words.items():
            if codes[row] >= 0:
                labels[name] = VOCABULARIES[name][codes[row]]
        if self.splits[row] >= 0:
            labels["split"] = SPLITS[self.splits[row]]
        return labels

    def differ(self, rows: np.ndarray) -> Findings:
        """On what the labels of one picture's copies disagree: years between ages, the words, sorted.

        Intervals of age disagree where they do not meet.
        """
        differ: Findings = {}
        known = rows[~np.isnan(self.low[rows])]
        if len(known) and (apart := float(self.low[known].max() - self.high[known].min())) > 0:
            differ["age"] = apart
        for name, codes in self.words.items():
            there = np.unique(codes[rows][codes[rows] >= 0])
            if len(there) > 1:
                differ[name] = sorted(VOCABULARIES[name][code] for code in there)
        return differ

    def _bins(self) -> np.ndarray:
        return np.array([self.histogram[low : high + 1].sum() for low, high in AGE_BINS])


def _about_duplicates(found: Duplicates, labels: Labels, paths: np.ndarray) -> tuple[Findings, list[np.ndarray]]:
    groups = found.members()
    inside = found.groups[found.pairs[:, 0]]
    inside = np.where(inside == found.groups[found.pairs[:, 1]], inside, -1)
    least = np.ones(len(groups), dtype=np.float64)
    np.minimum.at(least, inside[inside >= 0], found.similarity[inside >= 0])
    with_copies, with_others = np.unique(inside[found.identical]), set(inside[~found.identical].tolist())
    conflicting, across = [], []
    for number, rows in enumerate(groups):
        differ = labels.differ(rows)
        if differ:
            conflicting.append((number, differ))
        there = np.unique(labels.splits[rows][labels.splits[rows] >= 0])
        if len(there) > 1:
            across.append({"paths": paths[rows].tolist(), "splits": [SPLITS[code] for code in there]})
    conflicting.sort(key=lambda item: (-item[1].get("age", 0.0), -len(item[1]), item[0]))
    findings = {
        "groups": [paths[rows].tolist() for rows in groups],
        "faces": int((found.groups >= 0).sum()),
        "largest": max((len(rows) for rows in groups), default=0),
        "identical": len(with_copies),
        "mirrored": int(found.mirrored.sum()),
        "conflicting": [
            {
                "paths": paths[groups[number]].tolist(),
                "labels": [labels.of(row) for row in groups[number]],
                "differ": differ,
                "similarity": round(float(least[number]), 3),
                "identical": number not in with_others,
            }
            for number, differ in conflicting
        ],
        "disagreements": _tally([differ for _, differ in conflicting]),
        "across_splits": across,
    }
    return findings, [groups[number] for number, _ in conflicting]


def _tally(differ: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Groups that disagree, by label; `age_over_5`: those whose ages are more than `FAR` years apart."""
    tally: dict[str, int] = {}
    for name in ("age", *VOCABULARIES):
        count = sum(name in one for one in differ)
        if count:
            tally[name] = count
        if name == "age" and count:
            tally[f"age_over_{FAR:.0f}"] = sum(one.get("age", 0.0) > FAR for one in differ)
    return tally


def _count(codes: np.ndarray, words: Sequence[str]) -> dict[str, int]:
    numbers = np.bincount(codes + 1, minlength=len(words) + 1).tolist()
    return {**dict(zip(words, numbers[1:], strict=True)), "missing": numbers[0]}


def _imbalance(counts: np.ndarray, words: Sequence[str]) -> Findings:
    some = counts[counts > 0]
    total = counts.sum()
    return {
        "ratio": float(some.max() / some.min()) if len(some) else None,
        "classes": {
            word: {
                "count": round(float(count), 4),
                "share": float(count / total) if total else None,
                "weight": float(total / (len(some) * count)) if count else None,
            }
            for word, count in zip(words, counts, strict=True)
        },
    }
