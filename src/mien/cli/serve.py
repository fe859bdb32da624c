"""`mien serve`: a page on one's own machine that shows what the models tell of a photo."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A run, a checkpoint or a shipped model's name; may be repeated, as of mien predict. face-mobile and "
            "face-affect unless given.",
        ),
    ] = None,
    renderer: Annotated[
        str | None, typer.Option(help="What shows other ages: a run, a checkpoint; the shipped one unless given.")
    ] = None,
    detector: Annotated[str, typer.Option(help="What finds faces: cascade, yunet:PATH or uniface.")] = "cascade",
    host: Annotated[
        str, typer.Option(help="Where to wait: 127.0.0.1 is this machine alone, 0.0.0.0 whoever reaches it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
) -> None:
    """Serve a page on this machine: drop a photo, see ages, expressions and the faces at other ages.

    It runs until Ctrl-C. Nothing is fetched, no picture leaves the machine, none is kept.

    Examples: mien serve; mien serve -m runs/mine --port 8000
    """
    from mien.cli.console import say
    from mien.cli.models import shipped_rows
    from mien.web.app import listen, nothing_kept, require_web
    from mien.web.app import serve as serve_page

    def ready(address: str) -> None:
        print(f"mien serve: {address} (Ctrl-C ends it)", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            say(f"mien serve: whoever reaches this machine at {host} can use the page; it asks for no password")

    # The port first: whether it is free is known at once, gradio and the models take seconds. Then the folder: gradio
    # asks for it when it is imported.
    with suppress(KeyboardInterrupt), listen(host, port) as waiting, nothing_kept():
        require_web()
        from mien.web.answers import load_service

        serve_page(load_service(model, renderer, detector, device), shipped_rows(), waiting, ready)
    say("mien serve: ended; no picture is kept")
