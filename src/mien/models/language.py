"""Words about faces as numbers: captions read from a cache, ages as sentences, and what turns them into vectors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import MienError
from mien.models.renderer import as_float

#: Words of a caption that tell an age; a renderer that read them would not have to look.
AGE_WORDS = re.compile(
    r"\b(?:\d+(?:[- ]?years?)?(?:[- ]?old)?|years?[- ]old|young(?:er)?|old(?:er)?|elderly|aged?|middle-aged|"
    r"teen(?:age|ager)?s?|adults?|bab(?:y|ies)|toddlers?|infants?|child(?:ren|ish)?|kids?|boys?|girls?|seniors?|twenties|thirties|"
    r"forties|fifties|sixties|seventies|eighties|nineties|grand(?:mother|father|ma|pa))\b[ ,-]*",
    re.IGNORECASE,
)
#: Who a word that tells an age speaks of, whatever their age.
PERSONS = {
    **dict.fromkeys(("boy", "grandfather", "grandpa"), "man"),
    **dict.fromkeys(("girl", "grandmother", "grandma"), "woman"),
    **dict.fromkeys(("child", "kid", "baby", "toddler", "infant", "teen", "teenager", "adult", "senior"), "person"),
    "boys": "men",
    "girls": "women",
    **dict.fromkeys(("children", "kids", "babies", "toddlers", "infants", "teens", "teenagers", "adults"), "people"),
    "seniors": "people",
}
#: Such words, but those that only describe the person after them, as in "an adult woman": these are taken out.
PERSON_WORDS = re.compile(
    rf"\b(?:{'|'.join(PERSONS)})\b(?!\s+(?:(?:boy|girl|male|female)s?|m[ae]n|wom[ae]n|person|people)\b)", re.IGNORECASE
)
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


def read_captions(path: str | Path, keep_age: bool = False) -> dict[str, str]:
    """The captions of a cache by the sha256 of their pictures; words that tell an age are taken out, if not kept.

    A cache has one JSON object a line, with `sha256` and `caption`; other keys (the captioner's name) are not looked
    at. The last line of a picture counts.

    Raises:
        MienError: no such file, or a line that is none of these.
    """
    found: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                    caption = str(entry["caption"])
                    found[str(entry["sha256"])] = caption if keep_age else without_age(caption)
                except (json.JSONDecodeError, KeyError, TypeError):
                    raise MienError(
                        f"{path}: line {number} is not an object with sha256 and caption: {line.strip()[:60]!r}"
                    ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise MienError(f"{path}: cannot be read as a cache of captions: {error}") from None
    return found


def without_age(caption: str) -> str:
    """A caption without the words that tell an age: identity, hair, glasses and skin stay.

    A boy becomes a man and a child a person: that somebody is missing would tell their age too.
    """
    caption = PERSON_WORDS.sub(lambda found: PERSONS[found[0].lower()], caption)
    bare = AGE_WORDS.sub("", caption)
    if bare != caption:
        bare = re.sub(r"\b([Aa])n (?=[^aeiou\W])", r"\1 ", bare)
    return " ".join(bare.split())


def age_texts(ages: Iterable[float], genders: Iterable[str | None]) -> list[str]:
    """The sentence of each age in years: "photo of a 40 year old woman"; "person" where the gender is not known."""
    texts = []
    for age, gender in zip(ages, genders, strict=True):
        words = ("boy", "girl") if age <= CHILD else ("man", "woman")
        person = {"Male": words[0], "Female": words[1]}.get(gender or "", "child" if age <= CHILD else "person")
        texts.append(f"photo of a {age:.0f} year old {person}")
    return texts
