"""The command line: a table of plain functions."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import typer

from mien.cli.audit import audit
from mien.cli.caption import caption
from mien.cli.compare import compare
from mien.cli.console import one_line_errors, terminate
from mien.cli.demo import demo
from mien.cli.enhance import enhance
from mien.cli.evaluate import evaluate
from mien.cli.export import export
from mien.cli.inspect import inspect
from mien.cli.join import join
from mien.cli.labels import labels
from mien.cli.latents import latents
from mien.cli.models import models
from mien.cli.predict import predict
from mien.cli.prepare import prepare
from mien.cli.relabel import relabel
from mien.cli.render import render
from mien.cli.serve import serve
from mien.cli.sweep import sweep
from mien.cli.train import train
from mien.memory import keep_freed

COMMANDS = (
    prepare,
    inspect,
    train,
    sweep,
    join,
    evaluate,
    audit,
    compare,
    predict,
    relabel,
    labels,
    enhance,
    caption,
    render,
    latents,
    serve,
    models,
    export,
    demo,
)

app = typer.Typer(
    name="mien",
    help="Learn from faces: age, gender, race; judge what was learnt; use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(one_line_errors(command))


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        print(f"mien {version('mien')}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Learn from faces: age, gender, race; judge what was learnt; use it."""


def main() -> None:
    """The entry point of the `mien` command."""
    keep_freed()
    signal.signal(signal.SIGTERM, terminate)
    for stream in ("stdout", "stderr"):  # closed by `>&-`: what is said is lost, and what is done is not
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with suppress(AttributeError):  # whatever a program has put in its place
        # A letter that the terminal's encoding lacks is told by its number: it must not cost what all work led to.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()
