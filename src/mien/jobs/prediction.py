"""What a model says of one face, and as a row of a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from mien.faces import CONTINUOUS
from mien.jobs.workers import Row

#: `Prediction.error` of a photo that was read and shows no face.
NO_FACE = "no face found"
#: Tasks with classes whose answers `Prediction` carries.
NAMED = ("gender", "race", "expression")
#: Tasks whose columns are in every table; those of others only where the model has them.
ALWAYS = ("age", "gender", "race")
#: All whose answers have fields of their own; what others tell is in `Prediction.own`.
KNOWN = ("age", *NAMED, *CONTINUOUS)


@dataclass(slots=True)
class Prediction:
    """What a model says of one face; or, with `error` set, why it says nothing of an input.

    `row` counts the inputs from 0, `face` the faces of one input from 0, left to right. `box` is left, top,
    right, bottom in pixels of the photo, None for a crop. `aligned` is False where the detector gave only a
    box and no landmarks could be found in it; `landmarks` are 68 x, y in pixels of the input, where they were
    asked for. Crops are taken to be aligned. Ages are in years, `age_low` and `age_high` the 90 % interval, None
    where the model has none; `age` is None where the interval was wider than asked for (`abstained`).
    `valence` and `arousal` are in [-1, 1]. `probabilities` is `{task: {class: probability}}`. What the model was not
    trained for, or not asked for, is None. `own` holds what tasks tell that a program has added, by decoded column.
    """

    input: str
    row: int
    face: int | None = None
    box: tuple[float, float, float, float] | None = None
    score: float | None = None
    aligned: bool | None = None
    landmarks: list[tuple[float, float]] | None = None
    age: float | None = None
    age_low: float | None = None
    age_high: float | None = None
    abstained: bool = False
    gender: str | None = None
    gender_p: float | None = None
    race: str | None = None
    race_p: float | None = None
    expression: str | None = None
    expression_p: float | None = None
    valence: float | None = None
    arousal: float | None = None
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    own: dict[str, float | str] = field(default_factory=dict)
    error: str | None = None

    @property
    def unreadable(self) -> bool:
        """Whether the picture could not be read (no face in it is no such failure)."""
        return self.error is not None and self.error != NO_FACE

    def to_row(self) -> Row:
        """One flat row of a table: the box as four columns, each probability as `task_Class`."""
        left, top, right, bottom = self.box or (None,) * 4
        row = {
            "input": self.input,
            "row": self.row,
            "face": self.face,
            "left": left,
            "top": top,
            "right": right,
            "bottom": bottom,
            **{name: getattr(self, name) for name in ("score", "aligned", "age", "age_low", "age_high", "abstained")},
        }
        for task in NAMED:
            if task in ALWAYS or getattr(self, task) is not None:
                row |= {task: getattr(self, task), f"{task}_p": getattr(self, f"{task}_p")}
            row |= {f"{task}_{name}": value for name, value in self.probabilities.get(task, {}).items()}
        row |= {task: value for task in CONTINUOUS if (value := getattr(self, task)) is not None}
        row |= self.own
        if self.landmarks is not None:
            row["landmarks"] = [value for point in self.landmarks for value in point]
        return row | {"error": self.error}
