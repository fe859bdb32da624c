"""The pictures of the docs, from faces that mien draws.

python benchmarks/pictures.py --demo DEMO             # DEMO: the folder that `mien demo` made
python benchmarks/pictures.py --latents LATENTS       # LATENTS: the folder that `mien latents` wrote, on drawn faces

Faces that need neither are drawn each time.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mien.data.drawing.face import draw
from mien.data.sources.drawn import sample
from mien.faces import EXPRESSIONS, GENDERS, RACES
from mien.report.figures import contact_sheet, save

DOCS = Path(__file__).resolve().parents[1] / "docs" / "pictures"
AGES = (2, 8, 15, 25, 35, 45, 55, 65, 75, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--latents", type=Path)
    given = parser.parse_args()
    DOCS.mkdir(parents=True, exist_ok=True)
    rows = []
    for person, race in enumerate(RACES):
        base = replace(
            sample(11, person, each=1), race=race, gender=GENDERS[person % 2], expression="Neutral", yaw=0.0, roll=0.0
        )
        rows.append(np.concatenate([draw(replace(base, age=float(age)), 96)[0] for age in AGES], axis=2))
    _save(np.concatenate(rows, axis=1), DOCS / "drawn_ages.png")
    save(expressions(), DOCS / "drawn_expressions.jpg")
    if given.demo is not None:
        shutil.copyfile(given.demo / "run" / "figures" / "error_analysis.png", DOCS / "error_analysis.png")
        analysis = given.demo / "faces" / "inspect" / "figures" / "dataset_analysis.png"
        shutil.copyfile(analysis, DOCS / "dataset_analysis.png")
    if given.latents is not None:
        for name in ("ages", "interpolations", "traversals"):
            with Image.open(given.latents / f"{name}.png") as picture:
                picture.convert("RGB").save(DOCS / f"represent_{name}.jpg", quality=88, optimize=True)


def expressions() -> Figure:
    """Two persons, a row each, with the eight expressions, and the valence and arousal that they are drawn with."""
    faces, captions = [], []
    for person in (3, 8):
        for name in EXPRESSIONS:
            calm = replace(sample(11, person, each=1), age=30.0, yaw=0.0, roll=0.0)
            factors = replace(calm, expression=name, intensity=0.0 if name == "Neutral" else 1.0)
            faces.append(draw(factors, 112)[0])
            captions.append(f"{name}\nvalence {factors.valence:+.2f}\narousal {factors.arousal:+.2f}")
    return contact_sheet(faces, captions, columns=len(EXPRESSIONS), side=1.1)


def _save(image: np.ndarray, path: Path) -> None:
    # 128 colours are enough for a page, and a quarter of the bytes.
    Image.fromarray(image.transpose(1, 2, 0)).quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(
        path, optimize=True
    )


if __name__ == "__main__":
    main()
