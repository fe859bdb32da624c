"""Does a face shifted by some years look so many years older to a judge, and is it the same person otherwise?"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import nn

from mien.errors import MienError
from mien.evaluation.ageing.judges import KEPT
from mien.evaluation.latents.codes import Coded, decoded
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.identity import cosine
from mien.metrics.weighted import mean
from mien.models.beta_vae import BetaVae
from mien.models.estimator import Estimator
from mien.models.shift import METHODS, render_shifted, shift

#: Years by which faces are shifted, and the ages of those that are: both ends stay within a life.
YEARS, BETWEEN = 30.0, (35.0, 65.0)
#: Faces shown to the networks at a time, and pairs of one person that are compared, at most.
BATCH, PAIRS = 64, 2000


def shifted_rows(ages: np.ndarray) -> np.ndarray:
    """The rows of the faces that are shifted, by their ages (N,).

    Raises:
        MienError: there is none.
    """
    rows = np.flatnonzero((ages >= BETWEEN[0]) & (ages <= BETWEEN[1]))
    if not len(rows):
        raise MienError(
            f"no face between {BETWEEN[0]:g} and {BETWEEN[1]:g} years to shift; take another split, or no judge"
        )
    return rows


def judge_shifts(
    vae: BetaVae,
    learnt: Coded,
    judged: Coded,
    judge: Estimator,
    boot: Bootstrap,
    identity: nn.Module | None = None,
    device: str | torch.device = "cpu",
    pairs: Coded | None = None,
) -> dict[str, Any]:
    """The judged age of faces of 35 to 65 shifted by 30 years both ways, over the shift estimators.

    Vectors are learnt from `learnt`. The judge's own error on the faces as they are and on plain reconstructions
    stands beside, and the copy of the face as the route that changes nothing. `identity` maps pictures to embeddings;
    without it no cosine is told. `boot` is over the faces `judged`. `pairs` are faces of named persons: what the same
    judges say of real pictures at such a gap of age is told beside; without, those judged. Where `learnt` names nobody,
    the vector by pairs is learnt from them.

    Raises:
        MienError: no face of an age between is there.
    """
    ages = judged.ages
    rows = shifted_rows(ages)
    asker = _Asker(judge, identity, device)
    given = judged.pictures[rows].astype(np.float32) / 255
    plain, flat = asker.ask(given), asker.ask(decoded(vae, judged, rows, device))
    result: dict[str, Any] = {
        "n": len(rows),
        "years": YEARS,
        "judge": {
            "name": judge.name,
            **boot.estimates(
                {
                    "mae": partial(mean, np.abs(plain["age"] - ages[rows])),
                    "mae_reconstructed": partial(mean, np.abs(flat["age"] - ages[rows])),
                },
                rows,
            ),
        },
        "routes": {"copy": _figures(plain, plain, plain, boot, rows)},
    }
    result["same_person"] = same_person(pairs or judged, asker, boot.resamples)
    line = nn.functional.normalize(vae.direction.detach().float(), dim=0).cpu().numpy()
    for method in METHODS:
        faces, rows_learnt = learnt, np.arange(len(learnt))
        if method == "pairs" and pairs is not None and not learnt.manifest.has("person"):
            faces, rows_learnt = pairs, strangers(pairs, judged)
        where = faces.manifest
        named = _numbered(where.strings("person"))[rows_learnt] if where.has("person") else None
        try:
            change = shift(
                method,
                faces.codes[rows_learnt],
                faces.ages[rows_learnt],
                where.codes("gender")[rows_learnt],
                where.codes("race")[rows_learnt],
                named,
                line=line,
            )
        except MienError as error:
            result["routes"][method] = {"reason": str(error)}
            continue
        older, younger = (asker.ask(_shifted(vae, judged, rows, years, change, device)) for years in (YEARS, -YEARS))
        result["routes"][method] = _figures(plain, older, younger, boot, rows)
    return result


def strangers(faces: Coded, judged: Coded) -> np.ndarray:
    """The rows of `faces` whose person is not among the `judged`."""
    met = set(judged.manifest.strings("person").tolist()) - {None}
    return np.flatnonzero([name not in met for name in faces.manifest.strings("person")])


def _numbered(names: np.ndarray) -> np.ndarray:
    """A number for each name, and for each face without one a number of its own."""
    numbers = np.unique(names.astype(str), return_inverse=True)[1].astype(np.int64)
    unnamed = np.array([name is None for name in names])
    numbers[unnamed] = len(numbers) + np.arange(unnamed.sum())
    return numbers


def same_person(faces: Coded, asker: _Asker, resamples: int) -> dict[str, Any]:
    """What the judges say of two real pictures of one person taken 20 to 40 years apart: judged years a year, right
    direction, labels kept, cosine; with intervals over persons, and how many such pairs there are."""
    names, ages = faces.manifest.strings("person"), faces.ages
    pairs: list[tuple[int, int]] = []
    for name in dict.fromkeys(name for name in names if name is not None):
        rows = np.flatnonzero((names == name) & ~np.isnan(ages))
        rows = rows[np.argsort(ages[rows], kind="stable")]
        pairs += [(int(i), int(j)) for i, j in combinations(rows, 2) if 20 <= ages[j] - ages[i] <= 40]
        if len(pairs) >= PAIRS:
            break
    if not pairs:
        return {"n": 0, "persons": 0}
    met, place = np.unique(np.array(pairs), return_inverse=True)
    told = asker.ask(faces.pictures[met].astype(np.float32) / 255)
    young, old = ({name: of[side] for name, of in told.items()} for side in place.reshape(-1, 2).T)
    apart = np.array([ages[j] - ages[i] for i, j in pairs])
    values = {"slope": (old["age"] - young["age"]) / apart, "direction": (old["age"] > young["age"]).astype(float)}
    values |= {f"{name}_kept": (old[name] == young[name]).astype(float) for name in KEPT if name in old}
    if "embedding" in old:
        values["cosine"] = np.nan_to_num(cosine(young["embedding"], old["embedding"]))
    persons = np.unique(names[[pair[0] for pair in pairs]].astype(str), return_inverse=True)[1]
    figures = Bootstrap(persons, resamples).estimates({name: partial(mean, value) for name, value in values.items()})
    return {"n": len(pairs), "persons": int(persons.max()) + 1, **figures}


class _Asker:
    """Judge and identity network, asked in batches."""

    def __init__(self, judge: Estimator, identity: nn.Module | None, device: str | torch.device) -> None:
        self.judge, self.identity, self.device = judge, identity, device

    def ask(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of the judge for (N, 3, S, S) pictures in [0, 1], and `embedding` where it can be told."""
        parts = []
        for part in np.array_split(pictures, max(1, -(-len(pictures) // BATCH))):
            shown = torch.from_numpy(np.rint(part * 255).astype(np.uint8)).to(self.device)
            parts.append(self.judge.predict(shown))
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return found | ({} if self.identity is None else {"embedding": self.embed(pictures)})

    @torch.inference_mode()
    def embed(self, pictures: np.ndarray) -> np.ndarray:
        """Embeddings (N, E)."""
        assert self.identity is not None
        return np.concatenate(
            [
                self.identity(torch.from_numpy(part).to(self.device)).float().cpu().numpy()
                for part in np.array_split(pictures.astype(np.float32), max(1, -(-len(pictures) // BATCH)))
            ]
        )


@torch.inference_mode()
def _shifted(
    vae: BetaVae, faces: Coded, rows: np.ndarray, years: float, change: np.ndarray, device: str | torch.device
) -> np.ndarray:
    parts = []
    for part in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
        asked = torch.full((len(part), 1), years, device=device)
        pictures, ages = faces.images(part, device), torch.from_numpy(faces.ages[part]).float().to(device)
        made = render_shifted(vae, pictures, asked, change, faces.told(part, device), ages=ages)
        parts.append(made[:, 0].float().cpu().numpy())
    return np.concatenate(parts)


def _figures(
    plain: dict[str, np.ndarray],
    older: dict[str, np.ndarray],
    younger: dict[str, np.ndarray],
    boot: Bootstrap,
    rows: np.ndarray,
) -> dict[str, Any]:
    up, down = older["age"] - plain["age"], younger["age"] - plain["age"]
    values = {
        "slope": (older["age"] - younger["age"]) / (2 * YEARS),
        "moved_older": up / YEARS,
        "moved_younger": -down / YEARS,
        "direction": ((up > 0).astype(float) + (down < 0)) / 2,
    }
    for name in KEPT:
        if name in plain:
            values[f"{name}_kept"] = ((older[name] == plain[name]).astype(float) + (younger[name] == plain[name])) / 2
    if "embedding" in plain:
        cosines = [cosine(plain["embedding"], other["embedding"]) for other in (older, younger)]
        values["cosine"] = np.nan_to_num((cosines[0] + cosines[1]) / 2)
    return dict(boot.estimates({name: partial(mean, figure) for name, figure in values.items()}, rows))
