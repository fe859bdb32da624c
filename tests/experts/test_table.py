"""The file that lists the experts: what it gives, and what it says of mistakes."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mien.errors import MienError
from mien.experts.fusion import Fusion
from mien.experts.methods import Method, open_fusion
from mien.experts.table import content, load_experts


def written(folder: Path, text: str) -> Path:
    (folder / "weights.safetensors").write_bytes(b"numbers")
    (folder / "experts.yaml").write_text(text)
    return folder / "experts.yaml"


def test_names_and_places(tmp_path: Path) -> None:
    experts = load_experts(
        written(
            tmp_path,
            "experts:\n- {kind: ours, model: face-mobile}\n"
            "- {kind: dex, name: res, architecture: resnet50, weights: weights.safetensors, pixels: caffe}\n",
        )
    )
    assert experts.names() == ["face-mobile", "res"]
    assert experts.experts[1].place() == str(tmp_path / "weights.safetensors")
    assert experts.fusion == "mean"
    assert experts.experts[1].hash() == content(tmp_path / "weights.safetensors")


def test_folders_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "Janus-Pro-1.5").mkdir()
    (tmp_path / "Janus-Pro-1.5/config.json").write_text("{}")
    experts = load_experts(
        written(
            tmp_path,
            "experts:\n- {kind: vlm, weights: Janus-Pro-1.5, samples: 8}\n"
            "- {kind: mivolo, name: volo, weights: Janus-Pro-1.5, views: 2}\n",
        )
    )
    assert experts.names() == ["Janus-Pro-1.5", "volo"]
    assert experts.experts[0].hash() == content(tmp_path / "Janus-Pro-1.5")
    for expert, missing in zip(
        experts.experts, ("cannot be opened as an image-text model", "none of a MiVOLO"), strict=True
    ):
        with pytest.raises(MienError, match=missing):
            expert.build("cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a table with the key experts"),
        ("experts: []", "at least 1"),
        ("experts: [{kind: oura}]", r"unknown kind 'oura' in experts\.0; did you mean 'ours'"),
        ("experts: [{model: a}]", r"experts\.0: no kind; say what"),
        ("experts: [{kind: ours, model: a, colour: red}]", "unknown setting experts.0.ours.colour"),
        ("experts: [{kind: ours, model: a}, {kind: ours, model: b/a}]", "two experts are called 'a'"),
        ("experts: [{kind: ours, model: a, name: 'a b'}]", "pattern"),
        ("experts: [{kind: dex, architecture: vgg16, weights: gone.pt}]", "gone.pt is not there"),
        ("experts: [{kind: ours, model: a}]\nfusion: modian", "neither a file nor one of mean"),
        (
            "experts: [{kind: mivolo, weights: weights.safetensors, views: 9}]",
            "experts.0.mivolo.views: .*less than or equal to 4",
        ),
        ("experts: [", "cannot be read as YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MienError, match=message):
        load_experts(written(tmp_path, text))


def test_an_onnx_file_with_its_pixels(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "experts:\n- {kind: onnx, name: a, weights: weights.safetensors, pixels: {order: bgr, scale: 255}, cut: 0.1}\n"
        "- {kind: onnx, name: b, weights: weights.safetensors, pixels: caffe, ages: [0.25, 1]}\n",
    )
    first, second = load_experts(file).experts
    assert asdict(first.pixels) == {"order": "bgr", "scale": 255, "mean": (0, 0, 0), "std": (1, 1, 1)}
    assert second.pixels == "caffe"
    assert first.hash() == content(tmp_path / "weights.safetensors")
    with pytest.raises(MienError, match="no ONNX file that can be run"):
        first.build("cpu")
    for wrong, message in (("{std: [1, 0, 1]}", "greater than 0"), ("sepia", "caffe"), ("{order: gbr}", "bgr")):
        with pytest.raises(MienError, match=message):
            load_experts(written(tmp_path, f"experts: [{{kind: onnx, weights: weights.safetensors, pixels: {wrong}}}]"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MienError, match="no such file"):
        load_experts(tmp_path / "experts.yaml")


def test_content_changes_with_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/a").write_bytes(b"1")
    first, file = content(tmp_path / "m"), content(tmp_path / "m/a")
    (tmp_path / "m/a").write_bytes(b"2")
    assert content(tmp_path / "m") != first
    assert content(tmp_path / "m/a") != file
    (tmp_path / "m/a").write_bytes(b"1")
    assert (content(tmp_path / "m"), content(tmp_path / "m/a")) == (first, file)
    (tmp_path / "m/a").rename(tmp_path / "m/b")
    assert content(tmp_path / "m") != first
    assert content(tmp_path / "m/b") == file
    with pytest.raises(MienError, match="no such file or folder"):
        content(tmp_path / "gone")


def test_methods_give_what_a_fusion_gives() -> None:
    ages = np.array([[20.0, 24.0, 40.0], [30.0, np.nan, np.nan], [np.nan] * 3])
    variances = np.array([[4.0, 4.0, 4.0], [9.0, np.nan, np.nan], [np.nan] * 3])
    fused = Method("median", ["a", "b", "c"])(ages, ages, variances)
    np.testing.assert_allclose(fused.age, [24, 30, np.nan])
    np.testing.assert_allclose(fused.between, [(16 + 0 + 256) / 3, 0, np.nan])
    np.testing.assert_allclose(fused.total, [(16 + 0 + 256) / 3 + 4, 9, np.nan])
    np.testing.assert_allclose(fused.weights, [[1 / 3] * 3, [1, 0, 0], [0, 0, 0]])
    assert fused.answered.tolist() == [3, 1, 0]
    assert np.isnan(fused.low).all()


def test_a_fusion_is_opened_for_its_own_experts(tmp_path: Path) -> None:
    Fusion(["a", "b"], [0.0, 1.0], [1.0, 1.0], tau=0.5).save(tmp_path / "f.json")
    opened = open_fusion(tmp_path / "f.json", ["a", "b"])
    assert isinstance(opened, Fusion)
    assert opened.tau == 0.5
    with pytest.raises(MienError, match="fitted for a, b, asked for b, a"):
        open_fusion(tmp_path / "f.json", ["b", "a"])
    assert open_fusion("mean", ["a", "b"]) == Method("mean", ["a", "b"])
    Fusion(["a", "b"], [0.0, 1.0], [1.0, 1.0], hashes=["1", "2"]).save(tmp_path / "f.json")
    assert isinstance(open_fusion(tmp_path / "f.json", ["a", "b"], ["1", "2"]), Fusion)
    with pytest.raises(MienError, match="fitted for other weights of b; fit it anew"):
        open_fusion(tmp_path / "f.json", ["a", "b"], ["1", "3"])
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(MienError, match="no JSON"):
        open_fusion(tmp_path / "bad.json", ["a"])
    with pytest.raises(MienError, match="no such file"):
        open_fusion("modian", ["a"])
