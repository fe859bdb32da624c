"""`mien demo`: the whole way, small, on faces that mien draws itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: Faces drawn, and their side in pixels.
FACES, SIZE = 2400, 64


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for all that the demo makes.")] = Path("demo"),
    faces: Annotated[int, typer.Option("-n", "--faces", min=200, help="How many faces to draw.")] = FACES,
    seed: Annotated[int, typer.Option(min=0, help="Other faces, other starting weights.")] = 0,
) -> None:
    """Draw faces, prepare, train, evaluate, and ask the shipped model about a photo. Needs no data.

    A demo that was interrupted goes on where it was.
    """
    import numpy as np

    from mien.cli.console import say
    from mien.data.manifest import FILE, Manifest
    from mien.data.prepare import prepare
    from mien.data.sources.drawn import DrawnSource, sample
    from mien.errors import MienError
    from mien.training.recipe import load_recipe
    from mien.training.record import CONFIG
    from mien.training.run import train_run

    drawn, run = out / "faces", out / "run"
    if (drawn / FILE).is_file():
        there = Manifest.open(drawn)
        if len(there) != faces or there.numbers("age_low")[0] != np.float32(sample(seed, 0).age):
            raise MienError(
                f"{drawn} holds {len(there):,} faces of an earlier demo, with another number or seed; ask for the "
                "same, or name another folder with -o"
            )
    else:
        say(f"1/4  drawing {faces:,} faces with known age, gender and race")
        prepare(DrawnSource(count=faces, seed=seed, size=SIZE), Path(), drawn, seed=seed, size=SIZE)
    say("2/4  training a small estimator on them")
    recipe = load_recipe("demo", [f"data.faces={drawn}", f"seed={seed}"])
    result = train_run(recipe, run, resume=(run / CONFIG).is_file())
    assert result is not None
    age = result["metrics"]["test"]["age"]
    mae, constant = age["mae"], age["constant"]
    say(
        f"3/4  on {mae['n']} people it never saw: age MAE {mae['value']:.1f} years "
        f"[{mae['low']:.1f}, {mae['high']:.1f}]; "
        f"always saying {constant['years']:.0f} gives {constant['mae']['value']:.1f}"
    )
    say("4/4  asking the shipped model about a photo")
    _ask()
    print(f"Look at {result['reports']['test']}")
    print("Next, on your own data:")
    print("  mien predict photo.jpg")
    print("  mien prepare folder pictures/ --labels labels.csv --landmarks -o faces")
    print("  mien train utkface-mobile data.faces=faces model.init=face-mobile")


def _ask() -> None:
    """The face in a photo that comes with scikit-image. She is a real person: only box and interval are printed."""
    from skimage.data import astronaut

    from mien.jobs.predict import load

    for found in load().predict(astronaut()):
        if found.box is None:
            print("photo: no face found")
        else:
            left, top, right, bottom = (round(edge) for edge in found.box)
            ages = f"aged {found.age_low:.0f}-{found.age_high:.0f} (90 %)"
            print(f"photo: a face at {left},{top} to {right},{bottom}, {ages}")
