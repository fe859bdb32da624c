"""The landmarker: its shapes, its start, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mien.errors import MienError
from mien.faces import MIRRORED, Crop
from mien.models.checkpoint import FACTS, load_estimator, load_landmarker, save_landmarker
from mien.models.landmarker import Landmarker, LandmarkerSettings, eye_distance
from mien.models.landmarks import mirrored


def landmarker(width: float = 0.25) -> Landmarker:
    torch.manual_seed(0)
    net = Landmarker(LandmarkerSettings(width=width))
    net.shape.copy_(torch.randn(68, 2) * 0.2)
    return net


def images(count: int = 2, side: int = 112) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_mirrored_it_sees_a_face_and_its_mirror_image_alike() -> None:
    net = landmarker().eval()
    with torch.no_grad():
        net.points.weight.mul_(20)
        once, _ = net(images())
        net.settings.mirror = True
        points, spread = net(images())
        there, spread_there = net(images().flip(-1))
        net.settings.mirror = False
        image, _ = net(images().flip(-1))
    torch.testing.assert_close(points, mirrored(there, 112), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(spread, spread_there[:, MIRRORED], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(points, (once + mirrored(image, 112)) / 2, rtol=1e-4, atol=1e-3)
    assert (points - once).abs().max() > 0.1
    net.settings.mirror = True
    net.train()
    torch.manual_seed(2)
    learning, _ = net(images())
    net.settings.mirror = False
    torch.testing.assert_close(learning, net(images())[0])


def test_it_is_small_and_starts_near_the_mean_face() -> None:
    net = Landmarker(LandmarkerSettings()).eval()
    assert 3e5 < sum(p.numel() for p in net.parameters()) < 1e6
    net = landmarker().eval()
    with torch.no_grad():
        points, spread = net(images())
    assert points.shape == (2, 68, 2)
    assert spread.shape == (2, 68)
    assert (spread > 0).all()
    mean = (net.shape + 0.5) * 112 - 0.5
    assert (points - mean).abs().max() < 0.1 * 112


def test_floats_and_other_sizes_mean_the_same_places() -> None:
    net = landmarker().eval()
    with torch.no_grad():
        points, spread = net(images())
        torch.testing.assert_close(net(images().float() / 255), (points, spread))
        doubled = images().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        large, wide = net(doubled)
    # In pixels of a picture twice as large: place + 0.5 doubles, and so does what it may be off by.
    torch.testing.assert_close((large + 0.5) / 2 - 0.5, points, atol=0.5, rtol=0)
    torch.testing.assert_close(wide / 2, spread, atol=0.2, rtol=0.1)


def test_eye_distance_is_that_of_the_centres() -> None:
    points = torch.zeros(1, 68, 2)
    points[:, 36:42] = torch.tensor([10.0, 20.0])
    points[:, 42:48] = torch.tensor([13.0, 24.0])
    assert eye_distance(points).tolist() == [5.0]


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    net = landmarker().eval()
    net.refuse, net.name = 0.15, "marks"
    save_landmarker(tmp_path, net)
    loaded = load_landmarker(tmp_path)
    assert (loaded.refuse, loaded.name, loaded.settings) == (0.15, "marks", net.settings)
    assert loaded.crop == Crop("chip", net.settings.margin, 112)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images()), net(images()))


def test_each_kind_of_model_is_refused_in_the_place_of_the_other(tmp_path: Path) -> None:
    save_landmarker(tmp_path / "marks", landmarker())
    with pytest.raises(MienError, match="holds a landmarker, which `--landmarker` takes; expected an estimator"):
        load_estimator(tmp_path / "marks")
    with pytest.raises(MienError, match=r"holds an estimator, .*; expected a landmarker"):
        load_landmarker("face-mobile")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    save_landmarker(tmp_path, landmarker())
    facts = json.loads((tmp_path / FACTS).read_text())
    facts["settings"]["landmarker"]["width"] = 0.5
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(MienError, match="do not belong together"):
        load_landmarker(tmp_path)
    facts["settings"]["landmarker"]["wide"] = 1
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(MienError, match="not a model of this version"):
        load_landmarker(tmp_path)
