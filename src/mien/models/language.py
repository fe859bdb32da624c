"""Words about faces as numbers: captions read from a cache, ages as sentences, and what turns them into vectors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import MienError
from mien.models.renderer import as_float

#: Who a word that tells an age speaks of, whatever their age.
PERSONS = {
    **dict.fromkeys(("boy", "schoolboy", "grandfather", "grandpa"), "man"),
    **dict.fromkeys(("girl", "schoolgirl", "grandmother", "grandma"), "woman"),
    **dict.fromkeys(("boys", "schoolboys"), "men"),
    **dict.fromkeys(("girls", "schoolgirls"), "women"),
    **dict.fromkeys(("child", "kid", "baby", "toddler", "infant", "newborn", "preteen", "pre-teen"), "person"),
    **dict.fromkeys(("teen", "teenager", "adolescent", "juvenile", "youth", "adult", "senior", "pensioner"), "person"),
    **dict.fromkeys(("children", "kids", "babies", "toddlers", "infants", "newborns", "preteens", "teens"), "people"),
    **dict.fromkeys(("pre-teens", "teenagers", "adolescents", "juveniles", "youths", "adults", "seniors"), "people"),
    "pensioners": "people",
}
_PERSONS = "|".join(PERSONS)
#: Such words, but those that only describe the person after them, as in "an adult woman": these are taken out.
PERSON_WORDS = re.compile(
    rf"\b(?:{_PERSONS})\b(?!-faced\b|\s+(?:{_PERSONS}|(?:fe)?males?|m[ae]n|wom[ae]n|person|people)\b)", re.IGNORECASE
)
#: Words of a caption that tell an age; a renderer that read them would not have to look.
AGE_WORDS = re.compile(
    r"\b(?:years?[- ]old|young(?:er|est)?|old(?:er|est)?|elderly|(?:(?:early|late)[- ])?middle[- ]aged?|age[ds]?|"
    rf"teenaged?|youthful|baby-faced|child(?:ish|like)|{_PERSONS})\b(?:-looking\b)?[ ,-]*",
    re.IGNORECASE,
)

_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
#: Up to 119, and no part of 1940, 1.80, 12:30, 5'10 or #7.
_DIGITS = r"(?<![\w#$£€])(?<!\d[.,:/'’])(?:1[01]\d|\d\d?)(?![.,:/'’]?\d)"
_NUMBER = rf"(?:{_DIGITS}|\b(?:(?:{_TENS})(?:[- ](?:{_ONES}))?|{_TEENS}|{_ONES}))"
_TO = r"(?: ?[-–/] ?| (?:to|and|or) )"
_ABOUT = r"(?:\b(?:about|around|approximately|roughly|nearly|almost|over|under|between) )?"
_UNIT = (
    r"(?:[- ]?(?:years?|yrs?)(?:[- ]old| of age)?|[- ]?y[./]?o\b\.?+|[- ](?:months?|weeks?|days?)[- ]old"
    r"|-?ish|[- ]something)"
)
_YEARS = rf"{_ABOUT}(?:{_NUMBER}{_TO})?{_NUMBER}{_UNIT}"
_PART = r"(?:\b(?:early|mid|middle|late)\b[ -]*(?:(?:to|or)[ -]+)?)"
_DECADE = rf"(?:{_PART}*(?:(?<![\w'’])\d\d['’]?s|\b(?:{_TENS.replace('ty', 'ties')}))|{_PART}+teens)"
_HERS = r"\b(?:in (?:(?:his|her|their|the) )?|(?:(?:into|of|from) )?(?:his|her|their|the) )"
_WHOSE = "|".join(rf"(?<=\b{who} )" for who in ("man", "woman", "lady", "person", "child", "boy", "girl"))
#: A bare number is an age unless it counts, measures or names what stands beside it.
_UNCOUNTED = r"(?<!\bby )(?<!\bx )(?<!× )(?<!\bnumber )(?<!\bsize )"
_UNCOUNTING = (
    r"(?!-\w| ?[%°]| (?:by|x|×|cm|mm|px)\b| (?:\w+ )?(?:people|children|men|women)\b"
    r"| (?!(?:is|was|has|wears|looks|smiles)\b)\w+s\b)"
)
#: Ages that numbers tell: "about forty years", "25yo", "in her early thirties", "mid-30s", "aged 34", "a man of forty".
AGES = re.compile(
    rf"\b(?=\w)(?:(?:(?:{_WHOSE})of )?{_YEARS}"
    rf"|(?:{_HERS})?{_ABOUT}(?:{_DECADE}{_TO})?{_DECADE}"
    rf"|(?:in|into|of|from) (?:his|her|their) {_PART}*(?:teens(?:{_TO}{_DECADE})?|teenage years|youth|childhood)"
    rf"|(?:in|of) (?:(?:his|her|their) )?{_PART}*(?:adulthood|(?:middle|old) age)"
    rf"|(?:\bage[ds]?\b\W{{1,2}}(?:of )?|(?:{_WHOSE})of ){_ABOUT}(?:{_NUMBER}{_TO})?{_NUMBER}"
    rf"|{_UNCOUNTED}{_ABOUT}(?:{_DIGITS}{_TO})?{_DIGITS}{_UNCOUNTING})(?!\w)[ ,-]*",
    re.IGNORECASE,
)
#: "A 25-year-old with a hat" is somebody, unlike "a 25-year-old man"; so are "25-year-olds".
SOMEBODY = re.compile(
    rf"\b(an?) {_YEARS}"
    r"(?= (?:with|in|on|at|who|and|is|has|wearing|smiling|looking|holding)\b|['’]s\b| *(?:[.;:!?)]|$))",
    re.IGNORECASE,
)
SEVERAL = re.compile(rf"\b(?=\w){_YEARS}(?<=old)s\b", re.IGNORECASE)
#: Up to this age a person is a boy or a girl.
CHILD = 15


class Language(Protocol):
    """What knows both words and pictures: two pictures differ as their descriptions do."""

    name: str
    #: Length of a token of text.
    width: int

    def hash(self) -> str:
        """It changes when the vectors would."""
        ...

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """(N, L, width) float32, a row a text; NaN for an empty text."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, E) float32, of length 1."""
        ...

    def images(self, images: Tensor) -> Tensor:
        """Uint8 or float [0, 1] pictures (B, 3, H, W) to (B, E) float32, of length 1; gradients reach the pictures."""
        ...


class HashedLanguage:
    """A language that nobody learnt: a word's vector is drawn by its hash, a picture's is a fixed projection.

    The same text gives the same numbers everywhere, with no weights and no network; its directions mean nothing. It
    serves tests, and as captions' tokens, which a renderer learns to read.
    """

    name = "hashed"

    def __init__(self, width: int = 64, length: int = 8) -> None:
        self.width, self.length = width, length
        generator = torch.Generator().manual_seed(0)
        self._projection = torch.randn(3 * 16 * 16, width, generator=generator) / 16

    def hash(self) -> str:
        return f"{self.name} {self.width} {self.length}"

    def tokens(self, texts: Sequence[str]) -> Tensor:
        found = torch.full((len(texts), self.length, self.width), torch.nan)
        for row, text in enumerate(texts):
            for place, word in enumerate(re.findall(r"\w+", text.lower())[: self.length]):
                found[row, place] = torch.from_numpy(self._word(word))
        return found

    def texts(self, texts: Sequence[str]) -> Tensor:
        found = torch.stack([self._sentence(text) for text in texts])
        return F.normalize(found, dim=1)

    def images(self, images: Tensor) -> Tensor:
        small = F.interpolate(as_float(images), (16, 16), mode="bilinear", antialias=True)
        return F.normalize(small.flatten(1) @ self._projection.to(small.device), dim=1)

    def _sentence(self, text: str) -> Tensor:
        words = re.findall(r"\w+", text.lower()) or [""]
        return torch.from_numpy(np.mean([self._word(word) for word in words], axis=0))

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
        drawn = np.random.default_rng(seed).standard_normal(self.width) / np.sqrt(self.width)
        return drawn.astype(np.float32)


class Told(NamedTuple):
    """A line of a cache of captions; `captioner` is None where the line does not name it."""

    caption: str
    captioner: str | None


def read_captions(path: str | Path) -> dict[str, str]:
    """The captions of a cache by the sha256 of their pictures, without the words that tell an age.

    Raises:
        MienError: as `read_cache`.
    """
    return {key: without_age(told.caption) for key, told in read_cache(path).items()}


def read_cache(path: str | Path) -> dict[str, Told]:
    """The lines of a cache of captions, as they are, by the sha256 of their pictures.

    A cache has one JSON object a line, with `sha256`, `caption` and, if it is known, `captioner`; other keys are not
    looked at. The last line of a picture counts.

    Raises:
        MienError: no such file, or a line that is none of these.
    """
    found: dict[str, Told] = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                    found[str(entry["sha256"])] = Told(str(entry["caption"]), entry.get("captioner"))
                except (json.JSONDecodeError, KeyError, TypeError):
                    raise MienError(
                        f"{path}: line {number} is not an object with sha256 and caption: {line.strip()[:60]!r}"
                    ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise MienError(f"{path}: cannot be read as a cache of captions: {error}") from None
    return found


def stripping() -> str:
    """It changes when `without_age` takes out other words."""
    words = [pattern.pattern for pattern in (SOMEBODY, SEVERAL, AGES, PERSON_WORDS, AGE_WORDS)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def without_age(caption: str) -> str:
    """A caption without the words that tell an age: identity, hair, glasses and skin stay.

    A boy becomes a man and a child a person: that somebody is missing would tell their age too. Numbers that plainly
    count or measure stay.
    """
    caption = " ".join(caption.split())
    bare = SOMEBODY.sub(r"\1 person", SEVERAL.sub("people", caption))
    bare = PERSON_WORDS.sub(lambda found: PERSONS[found[0].lower()], AGES.sub("", bare))
    bare = AGE_WORDS.sub("", bare)
    if bare != caption:
        # The article tells what stood after it: "an Asian man" was old and "a Asian man" young.
        bare = re.sub(r"\b([Aa])n (?=[^aeiou\W])", r"\1 ", bare)
        bare = re.sub(r"\b([Aa]) (?=(?:[aioAIO]|[eE](?!u))\w{3})", r"\1n ", bare)
        bare = re.sub(r"[ ,]+(?=[.;:!?)]|$)| +(?=,)|\( *\)", "", bare)
    return " ".join(bare.split())


def age_texts(ages: Iterable[float], genders: Iterable[str | None]) -> list[str]:
    """The sentence of each age in years: "photo of a 40 year old woman"; "person" where the gender is not known."""
    texts = []
    for age, gender in zip(ages, genders, strict=True):
        words = ("boy", "girl") if age <= CHILD else ("man", "woman")
        person = {"Male": words[0], "Female": words[1]}.get(gender or "", "child" if age <= CHILD else "person")
        texts.append(f"photo of a {age:.0f} year old {person}")
    return texts
