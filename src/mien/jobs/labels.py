"""What relabelling writes for people and other programs: labels as JSON and CSV, what the filter takes from whom."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.manifest import Manifest
from mien.faces import AGE_BIN_NAMES, GENDERS, RACES, age_bin
from mien.files import to_json, whole

#: Resamples behind the interval of a share.
RESAMPLES = 1000
#: Columns of the lists, beside each expert's own.
PLAIN = (
    *("moe_age", "moe_std", "moe_low", "moe_high", "moe_variance_between", "moe_variance_total"),
    *("moe_reliability", "moe_weight", "moe_answered", "moe_kept", "moe_flags"),
)


class LabelFiles:
    """A list of faces with their fused ages, as JSON and as CSV, written while they go by; a context manager."""

    def __init__(self, json: Path, table: Path, experts: Sequence[str]) -> None:
        self.experts = experts
        self._json = open(json, "w", encoding="utf-8")  # noqa: SIM115
        self._csv = open(table, "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._first = True

    def __enter__(self) -> LabelFiles:
        each = [f"moe_{name}_{what}" for name in self.experts for what in ("age", "confidence")]
        self._columns = ["path", "archive", "age_low", "age_high", *PLAIN, *each]
        self._writer = csv.writer(self._csv, lineterminator="\n")
        self._writer.writerow(self._columns)
        self._json.write("[")
        return self

    def __exit__(self, *_: object) -> None:
        self._json.write("\n]\n")
        self._json.close()
        self._csv.close()

    def write(self, part: Manifest) -> None:
        """Append the faces of `part`."""
        columns = [part.strings(name) for name in self._columns]
        for row in zip(*columns, strict=True):
            self._writer.writerow(["" if value is None else _short(value) for value in row])
            face = dict(zip(self._columns, row, strict=True))
            entry: dict[str, Any] = {name: face[name] for name in ("path", "archive")}
            entry["given"] = None if face["age_low"] is None else [face["age_low"], face["age_high"]]
            entry |= {name.removeprefix("moe_"): _short(face[name]) for name in PLAIN}
            entry["flags"] = (face["moe_flags"] or "").split()
            entry["experts"] = {
                name: {what: _short(face[f"moe_{name}_{what}"]) for what in ("age", "confidence")}
                for name in self.experts
            }
            self._json.write(("" if self._first else ",") + "\n" + to_json(entry, None))
            self._first = False


class Retention:
    """Counts over faces as they go by: ages before and after, and what the variance filter keeps of whom.

    A face counts for the bin of its given age, of its fused one where none was given.
    """

    def __init__(self) -> None:
        bins = len(AGE_BIN_NAMES)
        self.before, self.after = np.zeros(bins, dtype=np.int64), np.zeros(bins, dtype=np.int64)
        self.answered = self.flagged = 0
        self.groups: dict[str, tuple[str, ...]] = {"age": AGE_BIN_NAMES, "gender": GENDERS, "race": RACES}
        self.faces = {by: np.zeros(len(names), dtype=np.int64) for by, names in self.groups.items()}
        self.kept = {by: np.zeros(len(names), dtype=np.int64) for by, names in self.groups.items()}
        self.total = self.total_kept = 0

    def add(self, part: Manifest) -> None:
        """Count the faces of a relabelled `part`."""
        given = age_bin((part.numbers("age_low") + part.numbers("age_high")) / 2)
        fused = age_bin(part.numbers("moe_age"))
        keep = part.strings("moe_kept").astype(bool)
        self.total += len(part)
        self.total_kept += int(keep.sum())
        self.answered += int((fused >= 0).sum())
        self.flagged += int(sum(bool(word) for word in part.strings("moe_flags")))
        self.before += _counts(given, len(AGE_BIN_NAMES))
        self.after += _counts(fused[keep], len(AGE_BIN_NAMES))
        codes = {"age": np.where(given >= 0, given, fused), "gender": part.codes("gender"), "race": part.codes("race")}
        for by, of in codes.items():
            self.faces[by] += _counts(of, len(self.groups[by]))
            self.kept[by] += _counts(of[keep], len(self.groups[by]))

    def rows(self) -> list[dict[str, Any]]:
        """A row a group: faces, faces with that age before and after (bins of age alone), kept, share with interval."""
        found = []
        groups: list[tuple[str, tuple[str, ...]]] = [("all", ("all",)), *self.groups.items()]
        for by, names in groups:
            for place, name in enumerate(names):
                n = self.total if by == "all" else int(self.faces[by][place])
                keep = self.total_kept if by == "all" else int(self.kept[by][place])
                low, high = _interval(keep, n)
                found.append(
                    {
                        "by": by,
                        "group": name,
                        "before": int(self.before[place]) if by == "age" else None,
                        "after": int(self.after[place]) if by == "age" else None,
                        "n": n,
                        "kept": keep,
                        "retention": keep / n if n else None,
                        "low": low,
                        "high": high,
                    }
                )
        return found

    def summary(self) -> dict[str, Any]:
        """Counts over all faces, and the rows."""
        return {
            "answered": self.answered,
            "kept": self.total_kept,
            "flagged": self.flagged,
            "retention": self.rows(),
        }

    def write(self, path: Path) -> None:
        """The rows as CSV; the file appears whole."""
        rows = self.rows()
        with whole(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                [{key: "" if value is None else _short(value) for key, value in row.items()} for row in rows]
            )


def _counts(codes: np.ndarray, length: int) -> np.ndarray:
    return np.bincount(codes[codes >= 0], minlength=length)


def _interval(hits: int, n: int) -> tuple[float | None, float | None]:
    """95 % bootstrap interval of a share: resampling n faces of which `hits` are kept is drawing binomials."""
    if not n:
        return None, None
    low, high = np.percentile(np.random.default_rng(0).binomial(n, hits / n, RESAMPLES) / n, [2.5, 97.5])
    return float(low), float(high)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
