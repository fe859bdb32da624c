"""How near to the truth a renderer of drawn faces can come at all.

    python benchmarks/hidden.py [--faces 60] [--size 32] [--draws 6]

A picture does not tell every trait: a child's does not tell whether the man will be bald. Traits that change the
picture by less than `--seen` levels of 255, whichever way they are moved, count as hidden in it, all others as known
exactly. The truth at 5 to 75 years is held against the median of faces drawn with other hidden traits, which is what
the best renderer could show; beside it, against a copy of the picture.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from mien.data.drawing import anatomy, skin
from mien.data.drawing.face import draw
from mien.data.drawing.factors import TRAITS, Factors, traits
from mien.data.sources.drawn import sample
from mien.metrics.bootstrap import Bootstrap
from mien.metrics.weighted import mean
from mien.report.numbers import years

AGES = tuple(range(5, 76, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=60)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--seen", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=77)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    best, copy = np.zeros((given.faces, len(AGES))), np.zeros((given.faces, len(AGES)))
    hidden: Counter[str] = Counter()
    for face in range(given.faces):
        factors = sample(given.seed, 4 * face)
        picture = drawn(factors, given.size)
        told = {name: max(moved(factors, given.size, picture, name)) for name in TRAITS}
        unseen = [name for name, change in told.items() if change < given.seen]
        hidden.update(unseen)
        for place, age in enumerate(AGES):
            later = replace(factors, age=float(age))
            truth = drawn(later, given.size)
            draws = rng.standard_normal((given.draws, len(unseen))).clip(-2, 2).tolist()
            others = [drawn(later, given.size, dict(zip(unseen, values, strict=True))) for values in draws]
            best[face, place] = np.abs(truth - np.median(others, axis=0)).mean() / 255
            copy[face, place] = np.abs(truth - picture).mean() / 255
    boot = Bootstrap(np.arange(given.faces), 1000)
    for name, values in (("best", best), ("copy", copy)):
        figure = boot.estimates({"all": lambda weights, values=values: mean(values.mean(axis=1), weights)})["all"]
        by_age = ", ".join(f"{age}: {value:.4f}" for age, value in zip(AGES, values.mean(axis=0), strict=True))
        print(f"{name}: {years(figure, 4)} of 1 ({by_age})")
    most = ", ".join(f"{name} {count / given.faces:.0%}" for name, count in hidden.most_common(12))
    print(f"hidden in pictures: {most}")


def drawn(factors: Factors, size: int, other: Mapping[str, float] | None = None) -> np.ndarray:
    """The picture, (3, size, size) float32, levels of 255, with some traits in the place of the person's own."""
    with in_place(other or {}):
        return draw(factors, size)[0].astype(np.float32)


def moved(factors: Factors, size: int, picture: np.ndarray, name: str) -> Iterator[float]:
    """How far the picture changes, in levels, when a trait is low and when it is high."""
    for value in (-1.0, 1.0):
        yield float(np.abs(drawn(factors, size, {name: value}) - picture).mean())


@contextmanager
def in_place(other: Mapping[str, float]) -> Iterator[None]:
    """Everybody has these traits."""
    modules = (anatomy, skin)
    for module in modules:
        module.traits = lambda person: {**traits(person), **other}  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.traits = traits  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
