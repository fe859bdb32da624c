"""`mien caption`: what faces look like, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: Failures that are listed one by one.
LISTED = 10


def caption(
    faces: Annotated[Path, typer.Argument(help="A manifest, or the folder that `mien prepare` made.")],
    captioner: Annotated[
        str,
        typer.Option(
            "--captioner", "-c", metavar="FOLDER", help="An image-text model's folder, or labels: from the manifest's."
        ),
    ] = "labels",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="A broken job in it goes on; captions/ beside FACES."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What the model is asked; how the person looks.")] = None,
    longest: Annotated[
        int | None, typer.Option(min=1, metavar="TOKENS", help="Length of a model's caption at most, 48 by default.")
    ] = None,
    strip_age: Annotated[bool, typer.Option("--strip-age", help="Take out the words that tell an age.")] = False,
    known: Annotated[
        Path | None, typer.Option(metavar="CACHE", help="Earlier captions.jsonl: its pictures are not asked again.")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Embed the captions too: by CLIP, a text encoder, or hashed."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Faces the model sees at once.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Processes beside this one.")] = 0,
    patience: Annotated[
        float | None, typer.Option(min=0.1, metavar="S", help="End a worker that is silent for so many seconds.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Describe each face, by its labels or by an image-text model, into a cache that a renderer's recipe reads.

    Writes captions.jsonl, a line a picture with its sha256, and with --language captions.safetensors, the same as
    vectors. A broken-off job goes on when the same command is given again.

    Examples: mien caption utk; mien caption utk --captioner models/janus --strip-age --language models/clip -o words
    """
    from mien.cli.console import print_json, say
    from mien.data.slices import Slices
    from mien.errors import MienError
    from mien.jobs.caption import FILE, LABELS, Captioning
    from mien.jobs.caption import caption as run
    from mien.jobs.engine import first_rank
    from mien.jobs.predict import usable
    from mien.jobs.workers import Engine
    from mien.models.captioners import LONGEST, PROMPT
    from mien.models.embeddings import save_embeddings
    from mien.models.learnt_language import build_language

    if captioner == LABELS and (asked := [n for n, v in (("prompt", prompt), ("longest", longest)) if v is not None]):
        raise MienError(f"--{asked[0]}: captions of labels have their own words; name a model with --captioner")
    slices, device = Slices(faces), usable(device)
    folder = output or slices.path.parent / "captions"
    if known is not None and known.resolve().parent == folder.resolve():
        raise MienError(f"--known {known} lies in the folder that is to be written; name another folder with -o")
    words = None if language is None else build_language(language, device=device)  # refused now, not after hours
    work = Captioning(
        slices,
        captioner,
        prompt=prompt or PROMPT,
        longest=longest or LONGEST,
        strip_age=strip_age,
        known=known,
        batch=batch,
        device=device,
    )
    job = run(work, folder, engine=Engine(workers=workers, patience=patience))
    if not first_rank():
        return
    embeddings = None if words is None else save_embeddings(folder / FILE, words)
    failures = [(row["row"], row["error"]) for row in job.rows() if row["error"] is not None]
    if json:
        told = {"faces": len(slices), "captioned": len(slices) - len(failures), "captions": folder / FILE}
        print_json(told | {"embeddings": embeddings, "failed": [{"row": row, "reason": why} for row, why in failures]})
    else:
        print(folder / FILE)
    for row, reason in failures[:LISTED]:
        say(f"no caption of face {row}: {reason}")
    if len(failures) > LISTED:
        say(f"no caption of {len(failures) - LISTED:,} more faces; the shards in {folder} list them all")
    say(f"written: {folder} ({len(slices) - len(failures):,} captions)")
