"""The AgeTransformer: shapes, what depends on what, one pass against many, and the discriminator beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from mien.errors import MienError
from mien.faces import Crop
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings, fourier, with_warp
from mien.models.checkpoint import load_renderer, save_renderer
from mien.models.discriminator import Discriminator
from mien.models.modulated import Modulated
from mien.models.renderer import renderer_hash, with_strength


def network(**settings: object) -> AgeTransformer:
    torch.manual_seed(0)
    made = AgeTransformer(
        AgeTransformerSettings(**{"size": 32, "width": 8, "blocks": 1, **settings}),  # type: ignore[arg-type]
        Crop("chip", 0.0, 32),
    )
    with torch.no_grad():  # as if it had learnt something: gates and blocks that are not at their start
        for name, parameter in made.named_parameters():
            if name.endswith(("conv2.weight", "gate.weight", "move.weight")):
                torch.nn.init.normal_(parameter, std=0.1)
        made.paint[0].weight.mul_(10)
    return made.eval()


def pictures(count: int = 2, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


AGES = torch.tensor([[5.0, 40.0, 90.0], [61.5, 40.0, 12.0]])


def test_it_renders_any_ages_and_the_same_each_time(tmp_path: Path) -> None:
    made, faces = network(), pictures(side=48)
    with torch.inference_mode():
        found = made.render(faces, AGES)
        assert found.shape == (2, 3, 3, 48, 48)
        assert found.dtype == torch.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert torch.equal(found, made.render(faces, AGES))
        assert torch.equal(found, made.render(faces.float() / 255, AGES))
        assert (found[0, 0] - found[0, 2]).abs().mean() > 1e-3
        # What is unknown is estimated; what is known counts.
        unknown = torch.full((2,), torch.nan)
        assert torch.equal(found, made.render(faces, AGES, unknown))
        known = made.render(faces, AGES, torch.tensor([20.0, torch.nan]))
        assert not torch.equal(found[0], known[0])
        assert torch.allclose(found[1], known[1], atol=1e-6)
        sure = made.render(faces, AGES, torch.tensor([20.0, torch.nan]), torch.tensor([6.0, torch.nan]))
        assert not torch.equal(sure[0], known[0])
        made.ages = (3.0, 90.0)
        save_renderer(tmp_path, made)
        again = load_renderer(tmp_path)
        assert isinstance(again, AgeTransformer)
        assert again.ages == (3.0, 90.0)
        assert torch.equal(found, again.render(faces, AGES))
    with pytest.raises(MienError, match="outside 0-120"):
        made.render(faces, AGES * 10)


@pytest.mark.parametrize("among", ["anchors", "none", "asked"])
def test_one_pass_shows_what_separate_passes_do_unless_ages_see_each_other(among: str) -> None:
    made, faces = network(among=among), pictures()
    with torch.inference_mode():
        whole = made.render(faces, AGES)
        apart = torch.cat([made.render(faces, AGES[:, [place]]) for place in range(3)], dim=1)
    same = torch.allclose(whole, apart, atol=1e-5)
    assert same is (among != "asked")


def test_with_mirror_both_halves_age_alike_and_strength_scales_what_is_shown() -> None:
    faces = pictures()
    middle = faces.float() / 255 * 0.4 + 0.3  # far from where pictures are cut off
    plain, whole = network(), network(mirror=True)
    some = network(mirror=True, strength=0.5)
    with torch.inference_mode():
        shown = whole.render(faces, AGES)
        torch.testing.assert_close(whole.render(faces.flip(-1), AGES).flip(-1), shown, atol=1e-5, rtol=0)
        assert not torch.allclose(plain.render(faces.flip(-1), AGES).flip(-1), plain.render(faces, AGES), atol=1e-2)
        mean = (plain.shown(faces, AGES).colours + plain.shown(faces.flip(-1), AGES).colours.flip(-1)) / 2
        torch.testing.assert_close(whole.shown(faces, AGES).colours, mean)
        change, half = (one.render(middle, AGES) - middle[:, None] for one in (whole, some))
        inside = (change.abs() < 0.25) & (change != 0)
        torch.testing.assert_close(half[inside], change[inside] / 2, atol=1e-5, rtol=0)
        # Training sees what is shown, but for the mirror image.
        torch.testing.assert_close(some(faces, AGES).change.colours, plain(faces, AGES).change.colours / 2)
        grey = faces[:, :1].expand(-1, 3, -1, -1)
        shown = network(colour=0.0).render(grey, AGES)
        assert (shown - shown[:, :, :1]).abs().max() < 1e-6
        assert (shown[:, 0] - shown[:, 2]).abs().max() > 1e-3
    assert len({renderer_hash(one) for one in (plain, whole, some)}) == 3
    with torch.inference_mode():
        assert torch.equal(with_strength(whole, 0.5).render(faces, AGES), some.render(faces, AGES))
        assert whole.settings.strength == 1
    with pytest.raises(MienError, match="a strength of 0: expected a number above 0, 4 at most"):
        with_strength(plain, 0)


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_with_beyond_0_the_face_alone_changes(margin: float) -> None:
    plain, kept, faded = network(warp=0.1), network(warp=0.1, beyond=0.0), network(warp=0.1, beyond=0.5)
    for one in (plain, kept, faded):
        one.crop = Crop("chip", margin)
    x, y, width, height = plain.crop.ellipse
    places = (torch.arange(32) + 0.5) / 32
    far = (((places - x) / width) ** 2 + ((places[:, None] - y) / height) ** 2).sqrt()
    faces = pictures()
    with torch.inference_mode():
        changes = [one.shown(faces, AGES) for one in (plain, kept, faded)]
    assert (far > 1.2).sum() > 20
    for whole, face, some in zip(*changes, strict=True):  # colours, flows
        assert whole is not None
        assert face is not None
        assert whole[..., far > 1.2].any()
        torch.testing.assert_close(face[..., far < 0.8], whole[..., far < 0.8])
        assert not face[..., far > 1.2].any()
        torch.testing.assert_close(some, (face + whole) / 2)
    assert renderer_hash(kept) != renderer_hash(plain)


def test_with_warp_pixels_move_no_farther_than_it_says_and_alike_in_the_mirror(tmp_path: Path) -> None:
    faces = pictures()
    made, whole = network(warp=0.1), network(warp=0.1, mirror=True)
    with torch.inference_mode():
        change = made.shown(faces, AGES)
        assert change.flows is not None
        assert change.flows.shape == (2, 3, 2, 32, 32)
        assert 0.01 < change.flows.abs().max() <= 0.1
        shown = whole.render(faces, AGES)
        torch.testing.assert_close(whole.render(faces.flip(-1), AGES).flip(-1), shown, atol=1e-5, rtol=0)
        assert not torch.allclose(made.render(faces.flip(-1), AGES).flip(-1), made.render(faces, AGES), atol=1e-2)
        half = with_strength(made, 0.5).shown(faces, AGES)
        torch.testing.assert_close(half.flows, change.flows / 2)
        save_renderer(tmp_path, made)
        assert torch.equal(load_renderer(tmp_path).render(faces, AGES), made.render(faces, AGES))
    assert renderer_hash(made) != renderer_hash(network())


def test_a_network_that_may_move_pixels_from_now_on_renders_as_before_until_it_has_learnt() -> None:
    plain, faces = network(mirror=True, strength=1.3), pictures(side=48)
    plain.ages, plain.card = (3.0, 90.0), {"terms": "for research"}
    grown = with_warp(plain, 0.2).eval()
    assert (grown.settings.warp, grown.settings.strength, grown.ages) == (0.2, 1.3, (3.0, 90.0))
    assert grown.card == plain.card
    with torch.inference_mode():
        torch.testing.assert_close(grown.render(faces, AGES), plain.render(faces, AGES), atol=1e-5, rtol=0)
    grown.train()(faces, AGES).pictures.square().mean().backward()
    assert grown.move is not None
    assert grown.move.weight.grad is not None
    assert grown.move.weight.grad.abs().max() > 0


def test_a_caption_counts_where_there_is_one() -> None:
    made, faces = network(text=6), pictures()
    text = torch.randn(2, 4, 6)
    text[0, 2:] = torch.nan  # a short one
    text[1] = torch.nan  # none
    with torch.inference_mode():
        without, told = made.render(faces, AGES), made.render(faces, AGES, text=text)
        assert not torch.allclose(without[0], told[0], atol=1e-5)
        assert torch.allclose(without[1], told[1], atol=1e-5)
        assert torch.allclose(told[0], made.render(faces, AGES, text=text[:, :2])[0], atol=1e-5)
    with pytest.raises(MienError, match="reads no text"):
        network().render(faces, AGES, text=text)


def test_modulation_is_that_of_the_weights() -> None:
    torch.manual_seed(0)
    layer = Modulated(5, 7, 4).double()
    x, code = torch.randn(2, 5, 6, 6).double(), torch.randn(2, 4).double()
    found = layer.float()(x.float(), code.float())
    for row in range(2):
        weight = layer.conv.weight * layer.scale(code[row].float())[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        wanted = (
            torch.nn.functional.silu(torch.nn.functional.conv2d(x[row : row + 1].float(), weight, padding=1)) * 1.676
        )
        assert torch.allclose(found[row : row + 1], wanted, atol=1e-4)


def test_sizes_follow_the_dial() -> None:
    counts = []
    for size, width in ((64, 16), (64, 24), (128, 24), (128, 48)):
        with torch.device("meta"):
            made = AgeTransformer(AgeTransformerSettings(size=size, width=width), Crop("chip"))  # type: ignore[arg-type]
        counts.append(sum(parameter.numel() for parameter in made.parameters()))
    assert counts[1] < 1_000_000
    assert counts == sorted(counts)
    with pytest.raises(ValidationError, match="two or more rising ages"):
        AgeTransformerSettings(anchors=[20, 10])
    waves = fourier(torch.tensor([30.0, 30.1, 60.0]))
    assert (waves[0] - waves[1]).abs().max() < 0.06 < (waves[0] - waves[2]).abs().max()


def test_the_discriminator_sees_ages_and_does_without() -> None:
    torch.manual_seed(0)
    made, faces = Discriminator(32, 8, [5.0, 40.0, 80.0]), pictures(4)
    ages = torch.tensor([5.0, 30.0, 70.0, 45.0])
    verdicts, classes = made(faces, ages)
    assert verdicts.shape == (4,)
    assert classes.shape == (4, 3)
    assert made.class_of(ages).tolist() == [0, 1, 2, 1]
    other = made(faces, ages.flip(0))[0]
    assert not torch.allclose(verdicts, other)
    without = made(faces, torch.full((4,), torch.nan))
    assert bool(without[0].isfinite().all())
    assert torch.equal(without[1], classes)
    # Faces that are all the same are told from faces that differ.
    alike = made(faces[:1].expand(4, -1, -1, -1), ages[:1].expand(4))[0]
    assert not torch.allclose(alike[0], verdicts[0])
