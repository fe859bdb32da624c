"""Image-text models as experts: the age is what their distribution over numbers expects, not a number in a sentence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.experts.base import Answers
from mien.faces import MAX_AGE
from mien.models import hub
from mien.models.image_text import ImageText

QUESTION = (
    "How old is the person in this picture, in years? Answer with a number only, or with the word unknown if it cannot "
    "be told."
)
#: Ages whose numbers are scored, and the words that stand for no age.
AGES, UNKNOWN = range(101), ("unknown", "Unknown")
#: Beginnings of a number that are less likely are not looked into: each costs a pass.
FAINT = 1e-3
#: Pictures in one pass.
AT_ONCE = 8
#: Tokens of a drawn answer.
LONGEST = 24
#: A number, or two with a dash between, in a drawn answer.
SAID = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?)(?:\s*(?:-|–|to)\s*(\d{1,3}))?(?![\d.]*\d)")

Ask = Callable[[Sequence[int], Sequence[tuple[int, ...]]], torch.Tensor]


@dataclass(frozen=True)
class Numbers:
    """How a tokenizer spells the ages and the words for no age.

    `spelt` maps each spelling, a tuple of tokens, to its place: the age itself, or `len(AGES)` for no age. One age may
    have several (with a blank before it, without). `digits` are the tokens that would make a number longer.
    """

    spelt: dict[tuple[int, ...], int]
    digits: list[int]

    @classmethod
    def of(cls, tokenizer: Any) -> Numbers:
        """The spellings of `tokenizer`, of transformers'."""

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

        line = ids("\n")
        spelt: dict[tuple[int, ...], int] = {}
        for text, place in [(str(age), age) for age in AGES] + [(word, len(AGES)) for word in UNKNOWN]:
            after = ids(f"\n{text}")  # some tokenizers put a blank before a text that begins
            ways = [ids(text), ids(f" {text}"), *([after[len(line) :]] if after[: len(line)] == line else [])]
            spelt |= {way: place for way in ways if way}
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        return cls(spelt, [number for number, token in enumerate(tokens) if token and token[0] in "0123456789"])


def masses(numbers: Numbers, ask: Ask, count: int) -> np.ndarray:
    """The probability of each age, and of no age, as the whole answer about each of `count` pictures, (N, 102).

    Spellings are followed token by token. One that begins others (4, of 42) counts as the answer when no further digit
    comes.

    Args:
        ask: for pictures by number, and a beginning of the answer for each, the probability of each token next, (R, V).
    """
    begun = {way[:length] for way in numbers.spelt for length in range(len(way))}
    following: dict[tuple[int, ...], set[int]] = {}
    for way in numbers.spelt:
        for length in range(len(way)):
            following.setdefault(way[:length], set()).add(way[length])
    found = np.zeros((count, len(AGES) + 1))
    open_: list[tuple[int, tuple[int, ...], float]] = [(row, (), 1.0) for row in range(count)]
    while open_:
        further: list[tuple[int, tuple[int, ...], float]] = []
        for first in range(0, len(open_), AT_ONCE):
            part = open_[first : first + AT_ONCE]
            shares = ask([row for row, _, _ in part], [way for _, way, _ in part]).numpy()
            for (row, way, mass), share in zip(part, shares, strict=True):
                if way in numbers.spelt:
                    found[row, numbers.spelt[way]] += mass * max(1 - share[numbers.digits].sum(), 0.0)
                for token in following[way]:
                    longer, likely = (*way, token), mass * share[token]
                    if longer in begun and likely >= FAINT:
                        further.append((row, longer, likely))
                    elif longer in numbers.spelt:
                        found[row, numbers.spelt[longer]] += likely
        open_ = further
    return found


class Vlm:
    """An image-text model that is asked for an age.

    By default its answer is the distribution over the numbers 0 to 100 as its next words: the age is the expectation,
    the confidence minus the standard deviation, the variance that of the distribution. It says nothing (NaN) of a
    picture where `unknown` is likelier than all numbers together, or where numbers have less than `least` of the
    probability. With `samples`, so many answers are drawn and read instead: mean and deviation of their numbers, NaN
    where fewer than half of them, or than two, hold one.

    Args:
        folder: see `models.image_text.ImageText`.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str | None = None,
        question: str = QUESTION,
        samples: int = 0,
        least: float = 0.1,
        terms: str = "",
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.model = ImageText(folder, device, precision)
        self.name = name or Path(folder).name
        self.terms = hub.terms(Path(folder), terms)
        self.question, self.samples, self.least = question, samples, least
        self.numbers = Numbers.of(self.model.tokenizer)

    def ask(self, images: Sequence[np.ndarray]) -> Answers:
        """See `Expert.ask`."""
        return self._drawn(images) if self.samples else expected(self.masses(images), self.least)

    def masses(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The probability of each age 0-100, and of no age, as the answer about each picture, (N, 102)."""

        def ask(rows: Sequence[int], tails: Sequence[tuple[int, ...]]) -> torch.Tensor:
            return self.model.shares([images[row] for row in rows], self.question, tails)

        return masses(self.numbers, ask, len(images))

    def _drawn(self, images: Sequence[np.ndarray]) -> Answers:
        ages, stds = np.full(len(images), np.nan), np.full(len(images), np.nan)
        for row, image in enumerate(images):
            # Seeded by the picture: the answer is the same in whatever company it is asked.
            seed = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:7], "little")
            read = np.array(
                [age_in(text) for text in self.model.say(image, self.question, self.samples, LONGEST, seed)]
            )
            known = read[np.isfinite(read)]
            if len(known) >= max(self.samples / 2, 2):
                ages[row], stds[row] = known.mean(), known.std(ddof=1)
        return Answers(ages, -stds, stds**2)


def expected(masses: np.ndarray, least: float) -> Answers:
    """What a distribution over the ages 0-100 and no age, (N, 102), comes to; see `Vlm`."""
    told, unknown = masses[:, :-1].sum(1), masses[:, -1]
    known = (told >= least) & (told > unknown)
    shares = masses[:, :-1] / np.where(told > 0, told, 1.0)[:, None]
    ages = shares @ np.asarray(AGES, dtype=np.float64)
    variance = np.maximum(shares @ np.asarray(AGES, dtype=np.float64) ** 2 - ages**2, 0.0)
    ages, variance = np.where(known, ages, np.nan), np.where(known, variance, np.nan)
    return Answers(ages, -np.sqrt(variance), variance)


def age_in(text: str) -> float:
    """The first number of years in a sentence, the middle where it is a range; NaN where there is none up to 120."""
    for found in SAID.finditer(text):
        low = float(found.group(1))
        age = low if found.group(2) is None else (low + float(found.group(2))) / 2
        if age <= MAX_AGE:
            return age
    return float("nan")
