"""Experts for the tests of relabelling, in a module that worker processes can import."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mien.experts.base import Answers, Expert


@dataclass
class Ruler:
    """Age is the mean brightness in percent plus `off`; a picture may make it raise, hang, say NaN or too little."""

    name: str
    off: float = 0.0
    fault: str = ""
    dark: float = 20.0
    terms: str = "anything"

    def ask(self, images: Sequence[np.ndarray]) -> Answers:
        ages = np.array([image.mean() / 2.55 + self.off for image in images])
        bad = np.array([image.mean() / 2.55 < self.dark for image in images])
        if bad.any() and self.fault == "raises":
            raise ValueError("too dark")
        if self.fault == "hangs" and (np.abs(ages - self.dark) < 0.6).any():
            time.sleep(600)
        if self.fault == "nan":
            ages = np.where(bad, np.nan, ages)
        if self.fault == "short":
            ages = ages[~bad]
        return Answers(ages, -np.abs(ages - 50), np.full(len(ages), 9.0))


@dataclass
class RulerSettings:
    """What stands for a ruler in a list of experts."""

    name: str
    off: float = 0.0
    fault: str = ""
    dark: float = 20.0

    def build(self, device: str) -> Expert:
        return Ruler(self.name, self.off, self.fault, self.dark)

    def hash(self) -> str:
        return f"{self.off}{self.fault}"

    def model_dump(self, exclude: set[str]) -> dict:
        return {"off": self.off, "fault": self.fault}
