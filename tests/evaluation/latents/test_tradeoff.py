"""Codes in one table: rivals on the same faces, rate and distortion, and what is compared at equal rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.evaluation.latents.coders import coders, rebuilt_figures
from mien.evaluation.latents.codes import at_most, code_faces, decoded
from mien.evaluation.latents.shifts import _Asker, same_person
from mien.evaluation.latents.tradeoff import Point, at_equal_rate, place, trade_off
from mien.faces import Crop
from mien.metrics.bootstrap import Bootstrap
from mien.models.autoencoder import Autoencoder
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.report.latents import with_real_pairs


def tiny(seed: int = 0, size: int = 32, crop: str = "chip", **settings: Any) -> BetaVae:
    torch.manual_seed(seed)
    vae = BetaVae(BetaVaeSettings(size=size, width=8, id_dims=5, **settings), Crop(crop))
    for name, parameter in vae.named_parameters():
        if "modulation" in name or "conv2" in name or name.startswith("posterior"):
            nn.init.normal_(parameter, std=0.2)
    vae.name = f"tiny {seed}"
    return vae.eval()


class Quarter(Autoencoder):
    """An autoencoder that can be computed by hand: its code is the picture at half the side."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 3), "AutoencoderKL")

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return nn.functional.avg_pool2d(images, 2).flatten(1), images.mean(dim=(1, 2, 3))

    def decode(self, codes: Tensor, side: int) -> Tensor:
        return nn.functional.interpolate(codes.unflatten(1, (3, side // 2, side // 2)), scale_factor=2.0)


def test_rivals_stand_on_the_same_faces(drawn: Path) -> None:
    manifest = Manifest.open(drawn)
    vae, told = tiny(), tiny(1, conditional=True)
    learnt, judged = (code_faces(vae, at_most(manifest.split(split), 40)) for split in ("train", "val"))
    ways = {way.name: way for way in coders(vae, learnt, judged, rivals={"cvae": told, "kl": Quarter()})}
    assert list(ways) == ["beta-VAE", "cvae", "kl", "PCA", "untrained", "mean picture"]
    own, other, pretrained = ways["beta-VAE"], ways["cvae"], ways["kl"]
    assert own.rate is not None
    assert own.said is not None
    np.testing.assert_allclose(own.rate, judged.rates["z_id"] + judged.rates["z_age"], rtol=1e-6)
    with torch.no_grad():
        ages = vae.age_of(vae.encode(torch.from_numpy(judged.pictures)).age[0])
    np.testing.assert_allclose(own.said, ages.numpy(), rtol=1e-4)
    again = code_faces(told, judged.manifest)
    np.testing.assert_array_equal(other.codes, again.codes)
    np.testing.assert_array_equal(other.rebuild(np.arange(3)), decoded(told, again, np.arange(3)))
    assert other.said is None  # it was told
    assert "seed 002" in other.about
    pictures = judged.pictures / 255
    assert pretrained.codes is not None
    assert pretrained.codes.shape == (len(judged), 3 * 16 * 16)
    np.testing.assert_allclose(pretrained.rate, pictures.mean(axis=(1, 2, 3)), rtol=1e-5)
    blocks = pictures.reshape(len(judged), 3, 16, 2, 16, 2)
    spread = (blocks - blocks.mean(axis=(3, 5), keepdims=True)) ** 2
    np.testing.assert_allclose(rebuilt_figures(pretrained, judged)["mse"], spread.mean(axis=(1, 2, 3, 4, 5)), rtol=1e-4)
    assert pretrained.parameters == 9
    for rivals, message in (
        ({"big": tiny(size=64)}, "big works on pictures of 64 px, the first network on 32"),
        ({"box": tiny(crop="box")}, "for box: the manifest holds faces cropped as chip"),
        ({"PCA": told}, "two rows of the table are called 'PCA'"),
    ):
        with pytest.raises(MienError, match=message):
            coders(vae, learnt, judged, rivals=rivals)


def test_a_network_has_its_place_and_its_row(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.evaluation.latents.disentanglement.PERMUTATIONS", 5)
    vae, told = tiny(), tiny(1, conditional=True)
    faces = code_faces(vae, Manifest.open(drawn).split("val"))
    point = place(vae, faces)
    pictures = faces.pictures / 255
    mean = vae.decode(torch.from_numpy(faces.codes)).detach().numpy()
    np.testing.assert_allclose(point.mse, ((pictures - mean) ** 2).mean(axis=(1, 2, 3)), rtol=1e-3)
    # Drawn codes are as far from the mean as their spreads say.
    noise = [decoded(vae, faces, np.arange(4), noise=np.random.default_rng(seed)) for seed in range(2)]
    assert np.abs(noise[0] - noise[1]).max() > 0
    known = code_faces(told, faces.manifest)
    assert (known.spreads[:, 0] == 0).all()
    assert (known.spreads[:, 1:] > 0).all()
    boot = Bootstrap(faces.manifest.groups(), 100)
    row = trade_off(point, vae, faces, boot, range(1))
    assert row["rate"]["value"] == pytest.approx(point.rate.mean())
    assert row["mse_sampled"]["value"] == pytest.approx(point.sampled.mean())
    assert {"mig", "probe", "strongest", "constant", "age", "n", "parameters"} < set(row)
    assert "age" not in trade_off(place(told, known), told, known, boot, range(1))
    few = code_faces(vae, at_most(faces.manifest, 20))
    assert set(trade_off(place(vae, few), vae, few, Bootstrap(few.manifest.groups(), 100))) == {
        *("n", "parameters", "rate", "mse", "mse_sampled")
    }


def point(rate: float, mse: float, sampled: float = 1.0, noise: np.ndarray | None = None) -> Point:
    around = np.zeros(200) if noise is None else noise
    return Point("", False, 1, rate + around, mse * (1 + around / 10), np.full(200, sampled))


def test_reconstruction_is_compared_on_the_line_between_two_rates() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 200)
    boot = Bootstrap(np.arange(200), 200)
    theirs = [point(60, 0.02), point(20, 0.04), point(40, 0.03, 2.0)]
    equal = at_equal_rate(point(30, 0.035), theirs, boot)
    assert equal is not None
    assert equal["value"] == pytest.approx(1)
    better = at_equal_rate(point(30, 0.028, noise=noise - noise.mean()), theirs, boot)
    assert better is not None
    assert better["value"] == pytest.approx(0.8)
    assert 0.7 < better["low"] < 0.8 < better["high"] < 0.9
    drawn = at_equal_rate(point(50, 0.02, 3.0), theirs, boot, sampled=True)
    assert drawn is not None
    assert drawn["value"] == pytest.approx(3 / 1.5)
    edge = at_equal_rate(point(60, 0.01), theirs, boot)
    assert edge is not None
    assert edge["value"] == pytest.approx(0.5)
    for outside in (19.0, 61.0):
        assert at_equal_rate(point(outside, 0.01), theirs, boot) is None
    assert at_equal_rate(point(20, 0.01), theirs[1:2], boot) is None


class Redness(nn.Module):
    """A judge that can be computed by hand: age is the mean of red in percent, women are blue."""

    def predict(self, images: Tensor) -> dict[str, np.ndarray]:
        red, _, blue = (images.float() / 255).mean(dim=(2, 3)).unbind(1)
        return {"age": 100 * red.numpy(), "gender": np.where(blue > 0.45, "Female", "Male")}


def test_real_pairs_of_a_person_are_judged_as_shifts_are(drawn: Path) -> None:
    faces = code_faces(tiny(), Manifest.open(drawn))
    asker = _Asker(Redness(), nn.Flatten(), "cpu")  # type: ignore[arg-type]
    found = same_person(faces, asker, 100)
    names, ages = faces.manifest.strings("person"), faces.ages
    flat = (faces.pictures / 255).reshape(len(faces), -1)
    red, blue = (100 * (faces.pictures[:, channel] / 255).mean(axis=(1, 2)) for channel in (0, 2))
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    pairs = [
        (i, j)
        for i in range(len(faces))
        for j in range(len(faces))
        if names[i] == names[j] and 20 <= ages[j] - ages[i] <= 40
    ]
    assert found["n"] == len(pairs) > 20
    assert found["persons"] == len({names[i] for i, _ in pairs})
    assert found["cosine"]["value"] == pytest.approx(np.mean([flat[i] @ flat[j] for i, j in pairs]), rel=1e-4)
    assert found["cosine"]["low"] < found["cosine"]["value"] < found["cosine"]["high"]
    slopes = [(red[j] - red[i]) / (ages[j] - ages[i]) for i, j in pairs]
    assert found["slope"]["value"] == pytest.approx(np.mean(slopes), rel=1e-3)
    assert found["direction"]["value"] == pytest.approx(np.mean([red[j] > red[i] for i, j in pairs]))
    kept = np.mean([(blue[i] > 45) == (blue[j] > 45) for i, j in pairs])
    assert found["gender_kept"]["value"] == pytest.approx(kept)
    assert 0 < kept < 1
    # They stand below the vectors, where there are any.
    told = with_real_pairs({"routes": {"copy": {}}, "same_person": found})
    assert next(iter(told)) == "copy"
    assert told[f"real pictures, 20 to 40 years apart ({len(pairs):,} pairs of {found['persons']:,} persons)"] is found
    assert with_real_pairs({"routes": {"copy": {}}, "same_person": {"n": 0}}) == {"copy": {}}
