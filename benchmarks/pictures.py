"""The pictures of the docs, from faces that mien draws.

python benchmarks/pictures.py DEMO      # DEMO: the folder that `mien demo` made
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample
from mien.faces import GENDERS, RACES

DOCS = Path(__file__).resolve().parents[1] / "docs" / "pictures"
AGES = (2, 8, 15, 25, 35, 45, 55, 65, 75, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    given = parser.parse_args()
    DOCS.mkdir(parents=True, exist_ok=True)
    rows = []
    for person, race in enumerate(RACES):
        base = replace(
            sample(11, person, each=1), race=race, gender=GENDERS[person % 2], expression="Neutral", yaw=0.0, roll=0.0
        )
        rows.append(np.concatenate([draw(replace(base, age=float(age)), 96)[0] for age in AGES], axis=2))
    _save(np.concatenate(rows, axis=1), DOCS / "drawn_ages.png")
    for source, name in (
        (given.demo / "run" / "figures" / "error_analysis.png", "error_analysis.png"),
        (given.demo / "faces" / "inspect" / "figures" / "dataset_analysis.png", "dataset_analysis.png"),
    ):
        shutil.copyfile(source, DOCS / name)


def _save(image: np.ndarray, path: Path) -> None:
    # 128 colours are enough for a page, and a quarter of the bytes.
    Image.fromarray(image.transpose(1, 2, 0)).quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(
        path, optimize=True
    )


if __name__ == "__main__":
    main()
