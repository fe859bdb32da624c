"""Backbones: what they do to pixels, and how they refuse wrong names and weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from mien.errors import MienError
from mien.models.backbone import WideDepthwise, build_backbone, read_weights
from mien.models.mobilefacenet import MobileFaceNet


def faces(count: int = 2, side: int = 112) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_mobilefacenet_has_the_published_shapes() -> None:
    net = MobileFaceNet(embedding=128)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert len(shapes) == 307
    assert shapes["dw_conv.depthwise.weight"] == (64, 1, 3, 3)
    assert shapes["features.5.conv.0.0.weight"] == (256, 64, 1, 1)
    assert shapes["features.12.conv.0.0.weight"] == (512, 128, 1, 1)
    assert shapes["gdconv.depthwise.weight"] == (512, 1, 7, 7)
    assert shapes["conv3.bias"] == (128,)
    net.eval()
    with torch.no_grad():
        # The strides of the groups leave a map of 7 x 7, which the global filter needs.
        assert net(torch.zeros(1, 3, 112, 112)).shape == (1, 128)


def test_mobilefacenet_takes_larger_faces_with_the_same_weights() -> None:
    torch.manual_seed(0)
    usual, large = build_backbone("mobilefacenet").eval(), build_backbone("mobilefacenet", input_size=224).eval()
    large.load_state_dict(usual.state_dict())
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = large(images)
        # The map of 14 x 14 places, averaged two by two.
        maps = large.net.conv2(large.net.features(large.net.dw_conv(large.net.conv1(large._normalised(images)))))
        halved = maps.unflatten(2, (7, 2)).unflatten(4, (7, 2)).mean(dim=(3, 5))
        torch.testing.assert_close(found, large.net.gdconv(halved).flatten(1))
    assert found.shape == (2, 512)


def test_uint8_and_float_pictures_give_the_same_features() -> None:
    backbone = build_backbone("mobilefacenet").eval()
    images = faces()
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), backbone(images.float() / 255))


def test_normalisation_is_the_models_own() -> None:
    backbone = build_backbone("test_convnext", input_size=32).eval()
    seen: list[torch.Tensor] = []
    backbone.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        backbone(faces(side=32))
    expected = (faces(side=32).float() / 255 - backbone.mean) / backbone.std
    torch.testing.assert_close(seen[-1], expected)


def test_pictures_of_another_size_are_resized() -> None:
    backbone = build_backbone("test_convnext", input_size=32).eval()
    with torch.no_grad():
        assert backbone(faces(side=50)).shape == (2, backbone.features)


def test_depths_cover_every_parameter_once() -> None:
    for name in ("mobilefacenet", "test_convnext", "test_vit"):
        backbone = build_backbone(name)
        listed = [parameter for depth in backbone.depths() for parameter in depth]
        assert sorted(listed) == sorted(name for name, _ in backbone.named_parameters())


def test_the_stem_of_mobilefacenet_is_its_first_depth() -> None:
    depths = build_backbone("mobilefacenet").depths()
    assert "net.conv1.0.weight" in depths[0]
    assert "net.gdconv.depthwise.weight" in depths[-1]
    assert len(depths) > 10


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_path(tmp_path, suffix: str) -> None:
    net = MobileFaceNet(embedding=128)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}, path)
    else:
        save_file(net.state_dict(), path)
    backbone = build_backbone("mobilefacenet", str(path))
    torch.testing.assert_close(backbone.net.state_dict()["conv2.0.weight"], net.state_dict()["conv2.0.weight"])


def test_wrong_names_and_weights_are_one_clear_line(tmp_path) -> None:
    with pytest.raises(MienError, match=r"resnet81.*did you mean 'resnet"):
        build_backbone("resnet81")
    for size in (96, 120):
        with pytest.raises(MienError, match="takes 112 px or a larger multiple of 16"):
            build_backbone("mobilefacenet", input_size=size)
    for name, size in (("test_vit", 50), ("test_coatnet", 16), ("test_maxvit", 16)):
        with pytest.raises(MienError, match=rf"model\.input_size {size}: {name} does not take pictures of that size: "):
            build_backbone(name, input_size=size)
    with pytest.raises(MienError, match="no such file"):
        build_backbone("mobilefacenet", str(tmp_path / "none.safetensors"))
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, other)
    with pytest.raises(MienError, match="not weights of mobilefacenet"):
        build_backbone("mobilefacenet", str(other))
    other.write_bytes(b"no weights at all")
    with pytest.raises(MienError, match="cannot be read as weights"):
        build_backbone("mobilefacenet", str(other))


@pytest.mark.parametrize("size", [None, 64])
def test_weights_that_cannot_be_fetched_are_one_clear_line(size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, **options: object) -> None:
        if "img_size" in options:  # as networks do that need not be told
            raise TypeError("unexpected keyword argument 'img_size'")
        raise FileNotFoundError("no connection\nand more lines")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(MienError, match=r"^model\.weights hub: timm could not fetch resnet18: no connection$"):
        build_backbone("resnet18", "hub", size)


def test_a_pickle_that_would_run_code_is_refused(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "trap.pth"
    torch.save({"weight": Trap()}, path)
    with pytest.raises(
        MienError, match=r"cannot be read as weights: it wants \S*print to be run, which mien never does"
    ):
        build_backbone("mobilefacenet", str(path))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_what_is_no_file_of_weights_is_one_line_with_its_place(content: bytes, tmp_path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    reason = "torch finds no tensors in it; get it again, or save its tensors as .safetensors"
    said = f"{path}: cannot be read as weights: {reason}"
    with pytest.raises(MienError) as error:
        read_weights(path)
    assert str(error.value) == said
    with pytest.raises(MienError) as error:
        build_backbone("mobilefacenet", str(path))
    assert str(error.value) == f"model.weights {said}"


def test_strided_depthwise_convolutions_are_precise_under_autocast_and_change_nothing_else() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("mobilefacenet").eval()
    wide = [module for module in backbone.modules() if isinstance(module, WideDepthwise)]
    assert len(wide) == 4  # three strides and the global filter
    images = faces()
    with torch.no_grad():
        plain = backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            x = torch.rand(1, 128, 8, 8).bfloat16()
            assert wide[0](x).dtype == torch.bfloat16
            exact = torch.nn.functional.conv2d(x.double(), wide[0].weight.double(), None, 2, 1, groups=128)
            torch.testing.assert_close(wide[0](x).double(), exact, rtol=2**-8, atol=1e-6)
            rough = backbone(images)
    assert 0 < (rough - plain).abs().mean() < 0.1 * plain.abs().mean()


def test_networks_see_the_pixels_that_their_weights_were_made_for() -> None:
    imagenet, faces_only = build_backbone("resnet18"), build_backbone("mobilefacenet")
    assert imagenet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert imagenet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert faces_only.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert faces_only.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
