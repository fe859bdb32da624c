"""How near to the truth of drawn faces a renderer comes that is shown it: the same persons at other ages.

    mien prepare drawn -n 40000 --size 32 -o drawn
    python benchmarks/paired.py drawn -o paired [--truths 3] [--steps 10000] [--width 32] [--warp 0.15] [--teacher RUN]
    mien audit drawn --ageing paired --limit 128 --told

No renderer of ours may learn so; this one is the ceiling of those that must not. An AgeTransformer sees each training
face of the manifest and, by mean absolute error, how the same person in the same scene looks at `--truths` other ages,
drawn for it; it is told its age. What it leaves is what a picture does not tell, or what so many faces do not teach.

With `--teacher` the pictures at other ages are not drawn but rendered, by one that was not shown any, such as an age
flow, which is told all that its settings name of a face: what it shows is learnt by one that does so in one pass.
"""

from __future__ import annotations

import argparse
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from mien.data.drawing.face import draw
from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.data.sources.drawn import factors_at
from mien.evaluation.ageing.sample import middle_age
from mien.models.age_flow import AgeFlow
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.checkpoint import load_renderer, save_renderer

#: Ages that are shown, in years; those of an audit lie within.
BETWEEN = (3.0, 78.0)
BATCH, RATE, DECAY, CLIP = 64, 2e-3, 0.01, 1.0
#: Steps over which weights are averaged: few at first.
AVERAGE = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--truths", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--warp", type=float, default=0.0, help="as age_transformer.warp")
    parser.add_argument("--teacher", type=Path, help="a renderer whose pictures stand in for the truth")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faces = Manifest.open(given.faces).split("train")
    side = int(faces.numbers("width")[0])
    rng = np.random.default_rng(given.seed)
    asked = rng.uniform(*BETWEEN, (len(faces), given.truths)).astype(np.float32)
    shown = torch.cat([batch.images for batch in FaceLoader(faces, {}, side, 4 * BATCH).epoch()])
    own = torch.from_numpy(middle_age(faces)).float()
    if given.teacher is None:
        truth = np.stack([[drawn(faces, row, age, side) for age in asked[row]] for row in range(len(faces))])
    else:
        truth = taught(faces, shown, own, torch.from_numpy(asked), given.teacher)
    print(f"{truth.shape[0] * truth.shape[1]:,} pairs")

    torch.manual_seed(given.seed)
    settings = AgeTransformerSettings(size=side, width=given.width, warp=given.warp)  # type: ignore[arg-type]
    network = AgeTransformer(settings, faces.crop)
    average = deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=given.steps, pct_start=0.05)
    started, so_far = time.monotonic(), 0.0
    for step in range(given.steps):
        rows = rng.integers(len(faces), size=BATCH)
        which = rng.integers(given.truths, size=BATCH)
        images, wanted = shown[rows], torch.from_numpy(truth[rows, which]).float() / 255
        if rng.random() < 0.5:
            images, wanted = images.flip(-1), wanted.flip(-1)
        with torch.autocast("cpu", torch.bfloat16):
            made = network(images, torch.from_numpy(asked[rows, which])[:, None], own[rows]).pictures[:, 0]
        loss = (made.float() - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        keep = min(step / (step + 10), 1 - 1 / AVERAGE)
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        so_far += (float(loss.detach()) - so_far) * max(1 / (step + 1), 0.01)
        if (step + 1) % 500 == 0:
            rate = (step + 1) / (time.monotonic() - started)
            print(f"{step + 1:,}/{given.steps:,}: {so_far:.4f} of 1 from the truth ({rate:.1f} steps/s)", flush=True)
    save_renderer(given.out, average)


def taught(faces: Manifest, images: torch.Tensor, own: torch.Tensor, ages: torch.Tensor, teacher: Path) -> np.ndarray:
    """The pictures (N, 3, S, S) at `ages` (N, A) as `teacher` shows them, (N, A, 3, S, S) uint8."""
    renderer = load_renderer(teacher)
    told = renderer.labels_of(faces.columns(renderer.settings.told)) if isinstance(renderer, AgeFlow) else None
    made = []
    started = time.monotonic()
    for rows in torch.arange(len(faces)).split(BATCH):
        more = () if told is None else (told[rows],)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = renderer.render(images[rows], ages[rows], own[rows], *more)
        made.append((255 * found.float()).round().byte().numpy())
        done = int(rows[-1]) + 1
        if len(made) % 10 == 0:
            print(f"{done:,} of {len(faces):,} faces shown ({done / (time.monotonic() - started):.1f}/s)", flush=True)
    return np.concatenate(made)


def drawn(faces: Manifest, row: int, age: float, side: int) -> np.ndarray:
    """The person and the scene of a row at another age, (3, side, side) uint8."""
    return draw(factors_at(faces.face(row), age), side, faces.crop.margin)[0]


if __name__ == "__main__":
    main()
