"""Which pictures a network learnt from, in a few kilobytes: enough to tell when it is judged by them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

#: Pictures that are kept of a set, and bytes of the sha256 of each: 33 kB in base64.
KEPT, MARK = 4096, 6


@dataclass(frozen=True)
class Met:
    """A set of pictures, of which those with the lowest sha256 are kept, `KEPT` at most.

    Hashes know nothing of what they stand for, so the lowest ones are a fair sample of any set: of other pictures with
    hashes as low, the share that is kept here estimates how many of them are in the set (a k-minimum-values sketch;
    Beyer et al. 2007, "On synopses for distinct-value estimation under multiset operations"). A set of fewer is known
    exactly.
    """

    marks: tuple[bytes, ...]

    @classmethod
    def of(cls, hashes: Iterable[bytes | None]) -> Met:
        """The set of the pictures with these sha256; None where a picture's is not known."""
        return cls(tuple(sorted({value[:MARK] for value in hashes if value is not None})[:KEPT]))

    @classmethod
    def read(cls, text: str) -> Met:
        """From what `text` made.

        Raises:
            ValueError: it is no base64 of whole marks.
        """
        try:
            whole = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"no base64: {error}") from None
        if len(whole) % MARK:
            raise ValueError(f"{len(whole)} bytes, expected a multiple of {MARK}")
        return cls(tuple(whole[start : start + MARK] for start in range(0, len(whole), MARK)))

    def text(self) -> str:
        return base64.b64encode(b"".join(self.marks)).decode()

    def __or__(self, other: Met) -> Met:
        return Met.of((*self.marks, *other.marks))

    @property
    def exact(self) -> bool:
        """Whether all pictures of the set are kept."""
        return len(self.marks) < KEPT

    def among(self, hashes: Iterable[bytes | None]) -> np.ndarray:
        """Which of the pictures (N,) are in the set: 1 yes, 0 no, NaN where it does not tell."""
        kept = set(self.marks)
        last = b"\xff" * MARK if self.exact else self.marks[-1]
        return np.array(
            [np.nan if value is None or value[:MARK] > last else float(value[:MARK] in kept) for value in hashes],
            dtype=np.float64,
        )


def union(several: Iterable[Met | None]) -> Met | None:
    """All of them as one set; None where none is known."""
    known = [one for one in several if one is not None]
    return reduce(or_, known) if known else None


def share_met(met: Met | None, hashes: Iterable[bytes | None]) -> str | None:
    """How many of these pictures a network has met, in words: "3", "about 67 %"; None where none is known to be."""
    told = np.empty(0) if met is None else met.among(hashes)
    known = told[np.isfinite(told)]
    if not known.any():
        return None
    return f"{int(known.sum()):,}" if len(known) == len(told) else f"about {100 * max(known.mean(), 0.01):.0f} %"
