"""Enhancing as a job: what it writes, resumes and refuses; originals and enhanced pictures in one manifest."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mien.data.drawing.face import draw
from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.data.pictures import decode
from mien.data.sources.drawn import sample
from mien.errors import MienError
from mien.evaluation.ageing.judges import IdentityJudge
from mien.faces import Crop, Face
from mien.jobs.enhance import SHARD, Enhancing, enhance, summary
from mien.jobs.inputs import expand

COUNT, BAD, GREY = 5, 3, 1


class Twice:
    """A colourer and an upscaler that can be computed by hand: red paint; every pixel doubled."""

    def __init__(self, step: str) -> None:
        self.step = step

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if self.step == "colour":
            return np.stack([image[0], image[1] // 2, image[2] // 2])
        return image.repeat(2, axis=1).repeat(2, axis=2)

    def facts(self) -> dict[str, Any]:
        return {"step": self.step, "sha256": "0" * 64}


class Judge:
    """Sees ten years in each doubling of a picture's side; of everyone the same person."""

    hash = "judge"

    def ask(self, images: Tensor) -> dict[str, np.ndarray]:
        return {"age": np.full(len(images), 10 * np.log2(images.shape[2]))}

    def embed(self, images: Tensor) -> np.ndarray:
        return np.array([[0.6, 0.8]])

    def check(self, manifest: Manifest) -> None:
        if manifest.crop.template != "chip":
            raise MienError("another crop")


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Five drawn faces, the second grey, the fourth no picture, in folders of their own."""
    (tmp_path / "given" / "below").mkdir(parents=True)
    made = []
    for number in range(COUNT):
        image = draw(sample(5, number), 40)[0]
        if number == GREY:
            image = np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0).astype(np.uint8)
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "given" / "below" / f"{number}.png")
        made.append(Face(f"below/{number}.png", age=(number, number), split="train"))
    (tmp_path / "given" / "below" / f"{BAD}.png").write_bytes(b"no picture")
    Manifest.from_faces(made, tmp_path / "given", Crop("chip")).save(tmp_path / "faces")
    return tmp_path / "faces"


def work(folder: Path, weights: Path, *steps: str, **options: Any) -> Enhancing:
    """The job with networks that are computed by hand."""
    made = Enhancing(folder, *(weights if step in steps else None for step in ("upscale", "colour")), **options)
    made._networks = {step: Twice(step) for step in steps}
    if options.get("judge"):
        made._networks |= {"age": Judge(), "identity": Judge()}
    return made


def test_pictures_sidecars_and_a_manifest_of_pairs(faces: Path, upscaler_weights: Path, tmp_path: Path) -> None:
    items = expand(str(faces))
    before = {path: path.read_bytes() for path in (tmp_path / "given").rglob("*.png")}
    job = enhance(work(tmp_path / "out", upscaler_weights, "colour", "upscale", judge="j"), items, show=False)
    rows = list(job.rows())
    assert [row["row"] for row in rows] == list(range(COUNT))
    assert [row["coloured"] for row in rows] == [False, True, False, None, False]
    assert rows[BAD]["picture"] is None
    assert "no picture" in rows[BAD]["error"]
    assert {path: path.read_bytes() for path in (tmp_path / "given").rglob("*.png")} == before
    for number in (0, GREY):
        given = decode((tmp_path / "given" / "below" / f"{number}.png").read_bytes())
        data = (tmp_path / "out" / rows[number]["picture"]).read_bytes()
        paint = np.stack([given[0], given[1] // 2, given[2] // 2]) if number == GREY else given
        np.testing.assert_array_equal(decode(data), paint.repeat(2, axis=1).repeat(2, axis=2))
        told = json.loads((tmp_path / "out" / rows[number]["sidecar"]).read_text())
        assert told["source"]["sha256"] == hashlib.sha256(before[tmp_path / f"given/below/{number}.png"]).hexdigest()
        assert told["picture"]["sha256"] == hashlib.sha256(data).hexdigest()
        assert [step["step"] for step in told["steps"]] == ["colour", "upscale"][number != GREY :]
        assert {"mien", "torch", "spandrel"} <= set(told["versions"])
        assert told["judged"] == pytest.approx(
            {"age_before": 10 * np.log2(40), "age_after": 10 * np.log2(80), "identity": 1.0}
        )
    found = summary(job)
    assert (found["pictures"], found["enhanced"], found["coloured"], found["grey"]) == (5, 4, 1, 1)
    assert [one["input"] for one in found["failed"]] == ["below/3.png"]
    assert found["age_change"]["value"] == pytest.approx(10, abs=1e-4)
    assert found["identity"] == pytest.approx({"value": 1, "low": 1, "high": 1, "n": 4})
    pairs = Manifest.open(tmp_path / "out")
    assert pairs.strings("enhanced")[BAD] is None
    assert pairs.pictures().image(pairs.strings("path")[0]).shape == (3, 40, 40)
    assert pairs.pictures().image(pairs.strings("enhanced")[0]).shape == (3, 80, 80)
    assert pairs.hash != Manifest.open(faces).hash
    assert pairs.numbers("age_low").tolist() == [0, 1, 2, 3, 4]
    # Joined with faces that lie elsewhere, and moved with them, the pairs are still found.
    both = Manifest.concat([pairs, Manifest.open(faces)])
    assert both.pictures().image(both.strings("enhanced")[0]).shape == (3, 80, 80)


def test_training_reads_the_picture_that_the_recipe_names(faces: Path, upscaler_weights: Path, tmp_path: Path) -> None:
    enhance(work(tmp_path / "out", upscaler_weights, "colour"), expand(str(faces)), show=False)
    pairs = Manifest.open(tmp_path / "out")  # the grey face alone has another picture

    def read(picture: Any, epoch: int = 0) -> Tensor:
        reader = FaceLoader(pairs, {}, 40, 5, picture=picture, seed=3)
        batch = next(iter(reader.epoch(epoch)))
        assert list(reader.rejected) == [BAD]
        return batch.images[1]

    grey, red = read("original"), read("enhanced")
    assert torch.equal(grey[0], red[0])
    assert torch.equal(grey[1] // 2, red[1])
    seen = [torch.equal(read("both", epoch), red) for epoch in range(40)]
    assert 10 < sum(seen) < 30
    assert seen == [torch.equal(read("both", epoch), red) for epoch in range(40)]
    with pytest.raises(MienError, match="has no enhanced pictures; make some with `mien enhance"):
        FaceLoader(Manifest.open(faces), {}, 40, 5, picture="both")
    with pytest.raises(MienError, match="leads outside the manifest's root"):
        pairs.with_columns({"enhanced": ["../a.png", None, None, None, None]})


def test_a_broken_job_goes_on_and_another_is_refused(
    upscaler_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for number in range(SHARD + 3):
        Image.new("RGB", (8, 8), (number, 0, 200)).save(pictures / f"{number:03d}.png")
    items = expand(str(pictures))
    whole = enhance(work(tmp_path / "whole", upscaler_weights, "upscale"), items, show=False)
    broken = work(tmp_path / "broken", upscaler_weights, "upscale")
    calls = []

    def dies(image: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == SHARD + 2:
            raise KeyboardInterrupt
        return Twice("upscale")(image)

    dies.facts = Twice("upscale").facts  # type: ignore[attr-defined]
    broken._networks = {"upscale": dies}
    with pytest.raises(KeyboardInterrupt):
        enhance(broken, items, show=False)
    assert not (tmp_path / "broken" / "enhanced.parquet").exists()
    again = enhance(work(tmp_path / "broken", upscaler_weights, "upscale"), items, show=False)
    assert list(again.rows()) == list(whole.rows())
    for row in whole.rows():
        for name in ("picture", "sidecar"):
            assert (tmp_path / "broken" / row[name]).read_bytes() == (tmp_path / "whole" / row[name]).read_bytes()
    with pytest.raises(MienError, match=r"another job: parameters\.tile was 512, is 64"):
        enhance(work(tmp_path / "whole", upscaler_weights, "upscale", tile=64), items, show=False)


def test_the_real_network_and_what_a_worker_would_be_given(faces: Path, upscaler_weights: Path, tmp_path: Path) -> None:
    made = Enhancing(tmp_path / "out", upscaler_weights, tile=32, format="jpeg")
    made.load()
    travelled = pickle.loads(pickle.dumps(made))
    assert travelled._networks == {}
    rows = list(enhance(travelled, expand(str(faces)), show=False).rows())
    assert [row["width"] for row in rows] == [160, 160, 160, None, 160]
    assert rows[0]["picture"].endswith("000000.jpg")


def test_what_cannot_be_done_is_one_clear_line(faces: Path, upscaler_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(MienError, match="nothing to do: give --upscaler"):
        Enhancing(tmp_path / "out")
    with pytest.raises(MienError, match="unknown format 'jpg'; did you mean 'jpeg'"):
        Enhancing(tmp_path / "out", upscaler_weights, format="jpg")
    with pytest.raises(MienError, match="--identity judges beside --judge"):
        Enhancing(tmp_path / "out", upscaler_weights, identity="i")
    photos = expand(str(tmp_path / "given"))
    with pytest.raises(MienError, match="--judge judges face crops"):
        enhance(work(tmp_path / "out", upscaler_weights, "upscale", judge="j"), photos, show=False)
    judged = work(tmp_path / "out", upscaler_weights, "upscale", judge="j", identity="i")
    who = judged.load()["identity"] = IdentityJudge("face-mobile")
    who.crop = Crop("chip", 0.4)
    with pytest.raises(MienError, match=r"for features of face-mobile: .* cropped as chip, but chip with margin"):
        enhance(judged, expand(str(faces)), show=False)


def test_no_manifest_of_a_data_set_is_replaced(faces: Path, upscaler_weights: Path) -> None:
    before = (faces / "faces.parquet").read_bytes()
    with pytest.raises(MienError, match="holds the manifest of a data set, which would be replaced"):
        enhance(work(faces, upscaler_weights, "upscale"), expand(str(faces)), show=False)
    assert (faces / "faces.parquet").read_bytes() == before
