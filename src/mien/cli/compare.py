"""`mien compare`: two models on the same faces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mien.evaluation.predictions import Predictions

#: Figures shown as shares.
SHARES = ("cs5", "accuracy", "macro_f1", "coverage90", "ece", "sagr")


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a folder that `mien evaluate` made.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="The other; differences are this minus the first.")],
    split: Annotated[str, typer.Option(help="The split that both were judged on.")] = "val",
    bootstraps: Annotated[int, typer.Option(min=100, help="Resamples behind each interval.")] = 1000,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, all differences.")] = False,
) -> None:
    """Compare two models on the faces both were judged on: paired differences with intervals, also by group.

    Both need predictions.SPLIT.parquet, which `mien evaluate` (and the end of `mien train`) writes.

    Example: mien compare runs/coral runs/regression
    """
    from mien.cli.console import print_json, say
    from mien.evaluation.compare import compare as compare_tables

    tables = _open(first, split), _open(second, split)
    result = compare_tables(*tables, resamples=bootstraps)
    about = {
        side: {"path": str(path), **{key: table.facts.get(key) for key in ("model", "split", "calibration", "caution")}}
        for side, path, table in zip(("first", "second"), (first, second), tables, strict=True)
    }
    if json:
        print_json({**about, **result})
        return
    _print_tables(first, second, result)
    for side in about.values():
        if side["caution"]:
            say(f"caution: {side['path']}: {side['caution']}")


def _open(run: Path, split: str) -> Predictions:
    from mien.errors import MienError
    from mien.evaluation.predictions import Predictions

    path = run if run.suffix == ".parquet" else run / f"predictions.{split}.parquet"
    if not path.is_file():
        others = sorted(one.name.split(".")[1] for one in run.glob("predictions.*.parquet"))
        if others:
            raise MienError(
                f"{path}: no such file; {run} has those of {', '.join(others)}: name one with --split, or judge these "
                f"faces too, such as by `mien evaluate --model {run} --split {split}` where it is a run"
            )
        if (run / "checkpoints").is_dir():
            raise MienError(f"{path}: no such file; `mien evaluate --model {run} --split {split}` makes it")
        raise MienError(
            f"{run}: {'no predictions in it' if run.is_dir() else 'no such folder'}; compare takes folders with a "
            f"predictions.{split}.parquet, such as a run, or FACES/evaluation after `mien evaluate FACES --model NAME`"
        )
    return Predictions.open(path)


def _print_tables(first: Path, second: Path, result: dict[str, Any]) -> None:
    from mien.cli.console import say, table
    from mien.faces import CROSS

    faces = result["faces"]
    say(
        f"{faces['common']:,} faces in common ({faces['only_first']:,} only in the first, "
        f"{faces['only_second']:,} only in the second, {faces['labels_differ']:,} with other labels left out)"
    )
    headers = ("figure", "first", "second", "second - first [95 % interval]", "better", "n")
    rows = []
    for task, part in result.items():
        if task != "faces":
            differences = {name: found for name, found in part.items() if name not in ("n", "groups")}
            rows += [_row(f"{task}: {name}", name, found) for name, found in differences.items()]
    table(headers, rows, title=f"{second} against {first}")
    leading = {"age": "mae", "gender": "accuracy", "race": "accuracy", "expression": "accuracy"}
    for task, figure in {**leading, "valence": "ccc", "arousal": "ccc"}.items():
        groups = result.get(task, {}).get("groups", {})
        rows = [
            _row(f"{by}: {name}", figure, group[figure])
            for by, table_of in groups.items()
            for name, group in table_of.items()
            if figure in group and CROSS not in by
        ]
        if rows:
            table(headers, rows, title=f"{task}: {figure} by group")


def _row(label: str, figure: str, found: dict[str, Any]) -> tuple[str, ...]:
    from mien.report.numbers import count, share, years

    def write(value: Any, sign: bool = False) -> str:
        return share(value, sign=sign) if figure in SHARES else years(value, sign=sign)

    # A difference whose interval holds zero names no better side.
    better = (found["better"] or "") if found["excludes_zero"] else "cannot be told"
    n = count(found["difference"]["n"])
    return label, write(found["first"]), write(found["second"]), write(found["difference"], True), better, n
