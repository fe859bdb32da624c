"""`mien export`: a network as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mien.models.exported import Exported

#: What the lines of Python that are shown give each input.
GIVEN = {
    "images": "numpy.array(crop).transpose(2, 0, 1)[None]",
    "landmarks": "numpy.full((1, 68, 2), numpy.nan, numpy.float32)",
    "ages": "numpy.float32([[20, 40, 60]])",
}


def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="The file to write.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A run, a checkpoint or a shipped model's name; the shipped one."),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these, with commas: age,gender; all by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a model as one ONNX file that answers as `mien predict --crops` does, without mien or torch.

    The file is tried against the network before it appears. An AgeTransformer, such as face-ages, is written too.

    Examples: mien export -o face-mobile.onnx; mien export -m runs/mine --tasks age,gender -o mine.onnx
    """
    from mien.cli.console import print_json, say
    from mien.models.exported import export as write

    wanted = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    made = write(model, output, wanted)
    if json:
        print_json(made.to_dict())
    else:
        _print(made)
    say(f"written: {output}")


def calling(made: Exported) -> str:
    """Three lines of Python that ask the file."""
    side = made.facts["crop"]["size"]
    given = ", ".join(f'"{port.name}": {GIVEN[port.name]}' for port in made.inputs)
    names = ", ".join(port.name for port in made.outputs)
    return "\n".join(
        [
            "import numpy, onnxruntime, PIL.Image",
            f'crop = PIL.Image.open("crop.png").convert("RGB").resize(({side}, {side}), PIL.Image.Resampling.BILINEAR)',
            f"{names}{',' * (len(made.outputs) == 1)} = "
            f"onnxruntime.InferenceSession({str(made.path)!r}).run(None, {{{given}}})",
        ]
    )


def _print(made: Exported) -> None:
    from mien.cli.console import table
    from mien.models.exported import BATCHES

    furthest = max(made.outputs, key=lambda port: made.differences[port.name] / port.tolerance)
    table(
        ["", "name", "type", "shape", "what", "off by", "allowed"],
        [
            [side, port.name, port.type, ", ".join(map(str, port.shape)), port.about, *off]
            for side, port, off in [
                *(("in", port, (None, None)) for port in made.inputs),
                *(("out", port, (made.differences[port.name], port.tolerance)) for port in made.outputs),
            ]
        ],
        title=f"{made.facts['model']}: {made.bytes / 1e6:.2f} MB; on {sum(BATCHES)} random faces off the network's own "
        f"answers by at most {made.differences[furthest.name]:.1e} ({furthest.name})",
    )
    print(f"\n{calling(made)}")
