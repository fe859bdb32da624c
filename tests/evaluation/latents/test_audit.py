"""Judging a representation: what is separate is found so, what probes read, and the whole on drawn faces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

import mien.models.checkpoint
from mien.cli.console import one_line_errors
from mien.cli.latents import latents
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.latents.audit import _parts, _two_pairs, evaluate_latents
from mien.evaluation.latents.coders import coders, rebuilt_figures
from mien.evaluation.latents.codes import code_faces, factors
from mien.evaluation.latents.disentanglement import age_probes, separation
from mien.evaluation.latents.shifts import _numbered, judge_shifts, strangers
from mien.evaluation.latents.smoothness import judge_smoothness
from mien.faces import Crop
from mien.metrics.bootstrap import Bootstrap
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.checkpoint import save_renderer
from mien.models.identity import load_identity
from mien.models.met import Met
from mien.models.mobilefacenet import MobileFaceNet
from mien.models.renderer import as_float


def tiny(seed: int = 0, **settings: Any) -> BetaVae:
    torch.manual_seed(seed)
    vae = BetaVae(BetaVaeSettings(size=32, width=8, id_dims=5, **settings), Crop("chip"))
    for name, parameter in vae.named_parameters():
        if "modulation" in name or "conv2" in name:
            nn.init.normal_(parameter, std=0.2)
    vae.name = "tiny"
    return vae.eval()


class Bright(nn.Module):
    """A judge that can be computed by hand: age is the mean of red in percent, women are blue."""

    name, crop = "bright", Crop("chip")
    learnt: Met | None = None

    def __init__(self) -> None:
        super().__init__()
        self.calibrated_on: dict[str, str] = {}

    def task(self, name: str) -> None:
        assert name == "age"

    def predict(self, images: Tensor) -> dict[str, np.ndarray]:
        red, _, blue = as_float(images).mean(dim=(2, 3)).unbind(1)
        return {"age": 100 * red.numpy(), "gender": np.where(blue > 0.5, "Female", "Male")}


class Redder(BetaVae):
    """A VAE whose pictures get 0.3 % of red a year, and nothing else."""

    def render_codes(
        self, images: Tensor, own_age: Tensor, z_ages: Tensor, own_id: Tensor, z_ids: Tensor, *_: Any, **__: Any
    ) -> Tensor:
        years = 25 * (z_ages - own_age[:, None])[..., 0]
        red = torch.tensor([0.003, 0, 0]).view(3, 1, 1)
        return (as_float(images)[:, None] * 0.4 + 0.3) + years[..., None, None, None] * red


def test_planted_factors_are_told_apart_from_mixed_ones() -> None:
    rng = np.random.default_rng(0)
    known = {"age": rng.uniform(0, 90, 900), "gender": rng.integers(0, 2, 900)}
    apart = np.stack([known["age"] / 25, known["gender"], rng.normal(size=900)], axis=1) + rng.normal(0, 0.02, (900, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    groups = np.arange(900) // 3
    good = separation(apart, known, groups, range(2))
    mixed = separation((apart - apart.mean(0)) / apart.std(0) @ turn, known, groups, range(2))
    for name in known:
        assert good["factors"][name]["mig"]["value"] > 0.6
        assert good["factors"][name]["completeness"]["value"] > 0.9
        low, high = good["factors"][name]["mig"]["null"]
        assert 0 <= low < high < 0.1
    # Two classes are still apart in one direction of a turned code; an age is not.
    assert good["factors"]["age"]["mig"]["value"] > 4 * mixed["factors"]["age"]["mig"]["value"]
    assert mixed["factors"]["age"]["completeness"]["value"] < 0.6
    assert good["disentanglement"]["value"] > mixed["disentanglement"]["value"]
    age = good["factors"]["age"]["mig"]
    assert age["low"] <= age["value"] <= age["high"]


def test_the_strongest_probe_finds_an_age_that_a_line_does_not() -> None:
    rng = np.random.default_rng(1)
    ages, groups = rng.uniform(0, 90, 900), np.arange(900) // 2
    boot = Bootstrap(groups, 200)
    hidden = np.stack([np.cos(ages / 90 * 2 * np.pi), np.sin(ages / 90 * 2 * np.pi)], axis=1)
    found = age_probes(np.hstack([hidden, rng.normal(size=(900, 3))]), ages, groups, boot)
    assert found["strongest"] in ("boosted", "mlp")
    assert found["probes"]["linear"]["value"] > 1.5 * found["probes"][found["strongest"]]["value"]
    assert found["ratio"]["value"] == pytest.approx(
        found["probes"][found["strongest"]]["value"] / found["constant"]["value"]
    )
    assert found["ratio"]["low"] < found["ratio"]["value"] < found["ratio"]["high"] < 0.8
    ages[::3] = np.nan
    nothing = age_probes(rng.normal(size=(900, 4)), ages, groups, boot)
    assert nothing["n"] == 600
    assert nothing["ratio"]["high"] > 0.95
    assert age_probes(hidden[:10], ages[:10], groups[:10], boot) == {}


def test_rivals_rebuild_as_they_must(drawn: Path) -> None:
    manifest = Manifest.open(drawn)
    vae = tiny()
    learnt, judged = code_faces(vae, manifest.split("train")), code_faces(vae, manifest.split("val"))
    ways = {way.name: way for way in coders(vae, learnt, judged)}
    figures = {name: rebuilt_figures(way, judged) for name, way in ways.items()}
    pictures = judged.pictures / 255
    mean = (learnt.pictures / 255).mean(axis=0)
    np.testing.assert_allclose(figures["mean picture"]["mse"], ((pictures - mean) ** 2).mean(axis=(1, 2, 3)), rtol=1e-4)
    # Six principal components, by the singular vectors of the centred pictures.
    flat = (learnt.pictures / 255).reshape(len(learnt), -1)
    vectors = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:6]
    shown = pictures.reshape(len(judged), -1) - flat.mean(0)
    rebuilt = (shown @ vectors.T @ vectors + flat.mean(0)).clip(0, 1)
    expected = ((pictures.reshape(len(judged), -1) - rebuilt) ** 2).mean(axis=1)
    np.testing.assert_allclose(figures["PCA"]["mse"], expected, rtol=0.05)
    assert figures["PCA"]["mse"].mean() < figures["untrained"]["mse"].mean() < figures["beta-VAE"]["mse"].mean()
    assert judged.codes.shape == (len(judged), 6)
    assert set(judged.rates) == {"z_id", "z_age"}
    assert {"age", "gender", "race", "yaw", "light"} <= set(factors(manifest))


def test_a_shift_that_adds_red_is_judged_so(drawn: Path) -> None:
    manifest = Manifest.open(drawn)
    torch.manual_seed(0)
    vae = Redder(BetaVaeSettings(size=32, width=8, id_dims=5), Crop("chip")).eval()
    learnt, judged = code_faces(vae, manifest.split("train")), code_faces(vae, manifest)
    boot = Bootstrap(judged.manifest.groups(), 100)

    found = judge_shifts(vae, learnt, judged, Bright(), boot, nn.Flatten())  # type: ignore[arg-type]
    route = found["routes"]["conditional"]
    assert route["slope"]["value"] == pytest.approx(0.3, abs=0.01)
    assert route["slope"]["n"] == found["n"] == ((judged.ages >= 35) & (judged.ages <= 65)).sum()
    assert route["gender_kept"]["low"] <= route["gender_kept"]["value"] <= 1
    copy = found["routes"]["copy"]
    assert (copy["slope"]["value"], copy["cosine"]["value"]) == (0, pytest.approx(1))
    assert found["same_person"]["n"] > 0
    assert found["judge"]["mae"]["value"] > 0
    assert set(found["routes"]) == {"copy", "conditional", "means", "ridge", "pairs"}
    # Training faces without names: the vector by pairs is learnt from named ones, or is not there.
    table = manifest.split("train").table.drop_columns(["person"])
    unnamed = code_faces(vae, Manifest(table, manifest.root, manifest.crop))
    others = code_faces(vae, manifest.split("val"))
    own = Bootstrap(others.manifest.groups(), 100)
    known = judge_shifts(vae, learnt, others, Bright(), own)["routes"]  # type: ignore[arg-type]
    told = judge_shifts(vae, unnamed, others, Bright(), own, pairs=judged)["routes"]  # type: ignore[arg-type]
    assert "reason" not in told["pairs"]
    # The named ones are all faces, but those of the persons that are judged.
    met = np.isin(manifest.strings("person"), others.manifest.strings("person"))
    assert np.array_equal(strangers(judged, others), np.flatnonzero(~met))
    assert len(strangers(learnt, others)) == len(learnt)
    told = judge_shifts(vae, unnamed, others, Bright(), own, pairs=learnt)["routes"]  # type: ignore[arg-type]
    assert told["pairs"]["slope"] == known["pairs"]["slope"]
    told = judge_shifts(vae, unnamed, judged, Bright(), boot, pairs=learnt)["routes"]  # type: ignore[arg-type]
    assert told["ridge"]["slope"] == found["routes"]["ridge"]["slope"]
    told = judge_shifts(vae, unnamed, judged, Bright(), boot)["routes"]  # type: ignore[arg-type]
    assert "nobody is named" in told["pairs"]["reason"]
    nobody = judged.manifest.where(judged.ages < 30)
    with pytest.raises(MienError, match="no face between 35 and 65 years"):
        judge_shifts(vae, learnt, code_faces(vae, nobody), Bright(), boot)  # type: ignore[arg-type]


def test_smoothness_of_a_face_that_reddens_evenly(drawn: Path) -> None:
    torch.manual_seed(0)
    vae = Redder(BetaVaeSettings(size=32, width=8, id_dims=5), Crop("chip")).eval()
    faces = code_faces(vae, Manifest.open(drawn).split("val"))
    boot = Bootstrap(faces.manifest.groups(), 100)
    found = judge_smoothness(vae, faces, boot, judge=Bright())  # type: ignore[arg-type]
    assert found["largest_step"]["value"] == pytest.approx(1, abs=1e-3)
    assert found["rising"]["value"] == pytest.approx(1)
    assert found["judged"]["value"] == pytest.approx(1)
    assert found["judged_slope"]["value"] == pytest.approx(0.3, abs=0.01)
    assert found["path_length"]["value"] > 0
    assert found["distance"] == "mean squared difference of pixels"


def test_the_whole_from_its_command_line(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny(attributes=["gender"])
    vae.learnt = Met.of(Manifest.open(drawn).strings("sha256"))
    save_renderer(tmp_path / "model", vae)
    torch.save(MobileFaceNet(embedding=8).state_dict(), tmp_path / "mobile.pt")
    monkeypatch.setattr(mien.models.checkpoint, "load_estimator", lambda *_: Bright())
    monkeypatch.setattr(Bright, "learnt", Met.of(Manifest.open(drawn).strings("sha256")))
    monkeypatch.setattr("mien.evaluation.latents.smoothness.FACES", 2)
    monkeypatch.setattr("mien.evaluation.latents.smoothness.AGES", (5.0, 45.0, 85.0))
    monkeypatch.setattr("mien.evaluation.latents.disentanglement.PERMUTATIONS", 5)
    monkeypatch.setattr("mien.evaluation.latents.disentanglement.TREES", 200)
    app = typer.Typer()
    app.command()(one_line_errors(latents))

    def run(*more: object) -> Any:
        fixed = (drawn, "-m", tmp_path / "model", "--device", "cpu", "--seeds", 1, "--bootstraps", 100)
        return CliRunner().invoke(app, [str(word) for word in (*fixed, *more)])

    out = tmp_path / "out"
    more = ("--identity", tmp_path / "mobile.pt", "--judge", "bright", "--between", "0", "3")
    result = run("-o", out, "--split", "all", "--limit", 60, *more)
    assert result.exit_code == 0, result.stderr
    assert "rate in nats: z_id" in result.stdout
    assert "posterior collapse" in result.stderr  # random weights say nothing of a picture
    assert "caution: the judge bright: it learnt from" in result.stderr
    found = json.loads((out / "latents.json").read_text())
    assert found["caution"].startswith("it learnt from 60 of these faces")
    assert "caution: it learnt from 60" in result.stderr
    assert found["about"]["learnt_from"] == found["about"]["faces"] == 60
    assert set(found["separation"]) == {"beta-VAE", "beta-VAE, z_id alone", "PCA", "untrained"}
    assert set(found["reconstruction"]["PCA"]) == {"mse", "l1", "psnr", "ssim", "perceptual"}
    assert found["reconstruction"]["PCA"]["mse"]["n"] == 60
    page = (out / "latents.html").read_text()
    assert "posterior collapse" in page
    assert "6 principal components of the pixels: " in page
    assert "<strong>Caution:</strong> the judge bright: it learnt from" in page
    assert page.count("data:image/png;base64,") == 4
    for name in ("reconstructions", "ages", "traversals", "interpolations"):
        assert (out / f"{name}.png").stat().st_size > 2000
    manifest = Manifest.open(drawn)
    val = np.flatnonzero(manifest.strings("split") == "val")[1:]
    manifest.take(np.setdiff1d(np.arange(len(manifest)), val)).save(tmp_path / "one")
    alone = CliRunner().invoke(
        app, [str(word) for word in (tmp_path / "one", "-m", tmp_path / "model", "--device", "cpu", "-o", tmp_path)]
    )
    assert alone.exit_code == 0, alone.stderr
    assert "posterior collapse" not in alone.stderr  # of one face there is no telling
    result = run("-o", out, "--between", "0", "9999")
    assert result.exit_code == 2
    assert "row 9999 to interpolate from" in result.stderr


def test_other_crops_and_other_weights_are_refused(drawn: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(drawn)
    wide = Manifest(manifest.table, manifest.root, Crop("chip", 0.4))
    with pytest.raises(MienError, match=r"chip with margin 0\.4, but chip is wanted"):
        evaluate_latents(tiny(), wide, "val", tmp_path)
    torch.save({"conv3.weight": torch.zeros(8, 512, 1, 1)}, tmp_path / "other.pt")
    with pytest.raises(MienError, match="not weights of MobileFaceNet"):
        load_identity(tmp_path / "other.pt")
    torch.save({"weight": torch.zeros(8)}, tmp_path / "other.pt")
    with pytest.raises(MienError, match="expected MobileFaceNet with its embedding"):
        load_identity(tmp_path / "other.pt")


def test_faces_without_a_name_are_all_different_persons() -> None:
    numbers = _numbered(np.array(["ann", None, "ben", None, "ann"], dtype=object))
    assert numbers[0] == numbers[4]
    assert len(set(numbers.tolist())) == 4


def test_no_person_who_is_judged_teaches(drawn: Path) -> None:
    manifest = Manifest.open(drawn)
    for split in ("all", "val"):
        teach, judged = _parts(manifest, split, 2000)
        assert len(teach)
        assert len(judged)
        number = dict(zip(manifest.strings("path"), manifest.groups(), strict=True))
        sides = [{number[path] for path in part.strings("path")} for part in (teach, judged)]
        assert not sides[0] & sides[1]
    # Given splits may cut persons in two.
    cut = manifest.with_columns({"split": [("train", "val")[row % 2] for row in range(len(manifest))]})
    number = dict(zip(cut.strings("path"), cut.groups(), strict=True))
    teach, judged = _parts(cut, "val", 2000)
    assert not {number[path] for path in teach.strings("path")} & {number[path] for path in judged.strings("path")}


@pytest.mark.parametrize("count", [1, 2, 3, 80])
def test_faces_to_interpolate_between_are_among_the_judged(count: int) -> None:
    assert all(0 <= row < count for pair in _two_pairs(count) for row in pair)
