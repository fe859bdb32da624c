"""The beta-VAE: its shapes, the renderer's contract, the line of ages, its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.distributions import Normal, kl_divergence

from mien.errors import MienError
from mien.faces import Crop
from mien.models.beta_vae import LOG_SPREAD, BetaVae, BetaVaeSettings
from mien.models.checkpoint import load_estimator, load_renderer, save_renderer
from mien.models.perceptual import Perceptual
from mien.models.renderer import as_float, laid_over, strength_of, with_strength
from mien.objectives.latent import normal_rate


def vae(seed: int = 0, **settings: object) -> BetaVae:
    torch.manual_seed(seed)
    made = BetaVae(BetaVaeSettings(**{"size": 32, "width": 16, "id_dims": 6, **settings}), Crop("chip", 0.0, 32))  # type: ignore[arg-type]
    # Blocks start as their shortcuts, unmoved by age: as after some training, they are not.
    for name, parameter in made.named_parameters():
        if "modulation" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def images(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_every_size_comes_back_as_a_picture_of_that_size(size: int) -> None:
    net = vae(size=size)
    with torch.no_grad():
        posterior = net.encode(images(1, size))
        decoded = net.decode(posterior.sample())
    assert posterior.mean.shape == (1, 7)
    assert decoded.shape == (1, 3, size, size)
    assert decoded.dtype == torch.float32
    assert 0 <= decoded.min() <= decoded.max() <= 1


def test_bytes_and_floats_are_the_same_picture() -> None:
    net = vae()
    with torch.no_grad():
        torch.testing.assert_close(net.encode(images()).mean, net.encode(images().float() / 255).mean)


@pytest.mark.parametrize("residual", [True, False])
def test_the_contract_of_a_renderer(residual: bool) -> None:
    net = vae(residual=residual)
    ages = torch.tensor([[5.0, 40.0, 95.0], [95.0, 5.0, 12.5]])
    with torch.no_grad():
        first = net.render(images(2, 48), ages)
        assert first.shape == (2, 3, 3, 48, 48)
        assert first.dtype == torch.float32
        assert 0 <= first.min() <= first.max() <= 1
        torch.manual_seed(9)
        assert torch.equal(net.render(images(2, 48), ages), first)  # nothing is random
        if residual:  # what is said to be done to the picture is what is done
            shown = laid_over(as_float(images(2, 48)), net.shown(images(2, 48), ages)).clamp(0, 1)
            torch.testing.assert_close(shown, first, atol=1e-6, rtol=0)
        # A face is rendered as it would be alone, whatever the order of its ages.
        turned = net.render(images(2, 48)[1:], ages[1:].flip(1))
    torch.testing.assert_close(turned[0].flip(0), first[1], atol=1e-5, rtol=0)
    assert (first[0, 0] - first[0, 2]).abs().max() > 1e-3


def test_the_residual_route_gives_the_picture_back_at_its_own_age() -> None:
    net = vae()
    with torch.no_grad():
        own = net.render(images(), torch.tensor([[31.0], [62.0]]), torch.tensor([31.0, 62.0]))
        torch.testing.assert_close(own[:, 0], images().float() / 255, atol=1e-6, rtol=0)
        unknown = net.render(images(), torch.tensor([[31.0], [62.0]]), torch.tensor([31.0, torch.nan]))
        assert torch.equal(unknown[0], own[0])
        assert (unknown[1] - own[1]).abs().max() > 1e-4
        decoded = net.render(images(), torch.tensor([[31.0], [62.0]]), residual=False)
        code = torch.cat([net.age_code(torch.tensor([31.0, 62.0])), net.encode(images()).identity[0]], dim=1)
        torch.testing.assert_close(decoded[:, 0], net.decode(code))


def test_z_id_is_what_a_prior_given_the_age_leaves() -> None:
    plain, net = vae(), vae(usual=True)
    missing = net.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"usual"}
    with torch.no_grad():
        # As it starts, nothing is usual: the two are one network.
        known = plain.encode(images())
        torch.testing.assert_close(net.encode(images()).mean, known.mean)
        torch.testing.assert_close(net.decode(known.mean), plain.decode(known.mean))
        torch.nn.init.normal_(net.usual.net[-1].weight)
        torch.nn.init.normal_(net.usual.net[-1].bias)
        code = net.encode(images())
        assert torch.equal(code.age[0], known.age[0])
        middle, log_spread = net.usual(known.age[0])
        assert log_spread.abs().max() <= LOG_SPREAD
        mean, deviation = known.identity[0], (0.5 * known.identity[1]).exp()
        prior = kl_divergence(Normal(mean, deviation), Normal(middle, log_spread.exp()))
        torch.testing.assert_close(normal_rate(*code.identity), prior)
        # The decoder puts back what the encoder took away.
        torch.testing.assert_close(net.decode(code.mean), plain.decode(known.mean), atol=1e-5, rtol=1e-5)
        # So it does where an age is told that is not the one it guesses.
        told = torch.tensor([15.0, 80.0])
        own = torch.cat([net.age_code(told), mean], dim=1)
        asked = torch.cat([net.age_code(told + 5), mean], dim=1)
        middles = [net.usual(net.age_code(ages)) for ages in (told, told + 5)]
        moved = middles[1][0] + (middles[1][1] - middles[0][1]).exp() * (mean - middles[0][0])
        change = plain.decode(torch.cat([asked[:, :1], moved], dim=1)) - plain.decode(own)
        shown = net.render(images(), (told + 5)[:, None], told)[:, 0]
        torch.testing.assert_close(shown, (images().float() / 255 + change).clamp(0, 1), atol=1e-4, rtol=0)
        older = torch.cat([code.age[0] + 1, code.identity[0]], dim=1)
        assert not torch.allclose(net.decode(older), plain.decode(torch.cat([older[:, :1], mean], dim=1)), atol=1e-3)
    assert vae(conditional=True, usual=True).usual is None


def test_strength_scales_the_change_that_is_shown_not_the_one_that_is_learnt() -> None:
    net, faces, ages = vae(), images().float() / 255 * 0.4 + 0.3, torch.tensor([[20.0], [70.0]])
    half = with_strength(net, 0.5)
    with torch.no_grad():
        change, less = (one.render(faces, ages) - faces[:, None] for one in (net, half))
        inside = (change.abs() < 0.25) & (change != 0)
        torch.testing.assert_close(less[inside], change[inside] / 2, atol=1e-5, rtol=0)
        assert torch.equal(half.train().render(faces, ages), net.render(faces, ages))
    assert (strength_of(net), strength_of(half)) == (1.0, 0.5)
    with pytest.raises(MienError, match="BetaVae adds no change to the picture: leave strength out"):
        with_strength(vae(residual=False), 2)
    with pytest.raises(MienError, match="a strength of 5: expected a number above 0, 4 at most"):
        with_strength(net, 5)


def test_without_colour_brightness_alone_changes_but_not_in_training() -> None:
    net, plain, ages = vae(), vae(colour=0.0), torch.tensor([[20.0], [70.0]])
    faces = images().float() / 255 * 0.4 + 0.3
    with torch.no_grad():
        change, grey = (one.render(faces, ages) - faces[:, None] for one in (net, plain))
        assert (change - change[:, :, :1]).abs().max() > 1e-3
        torch.testing.assert_close(grey, grey[:, :, :1].expand_as(grey), atol=1e-6, rtol=0)
        luma = (change * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=2)
        torch.testing.assert_close(grey[:, :, 0], luma, atol=1e-5, rtol=0)
        assert torch.equal(plain.train().render(faces, ages), net.train().render(faces, ages))


def test_gradients_flow_from_the_render_to_the_network() -> None:
    net = vae()
    net.render(images(), torch.tensor([[20.0], [70.0]])).sum().backward()
    assert net.root.weight.grad is not None


@pytest.mark.parametrize("ages", [[[float("nan")], [5.0]], [[-1.0], [5.0]], [[121.0], [5.0]]])
def test_ages_of_nobody_are_refused(ages: list[list[float]]) -> None:
    with pytest.raises(MienError, match="to render is outside 0-120"):
        vae().render(images(), torch.tensor(ages))
    with pytest.raises(MienError, match="expected \\(2, A\\)"):
        vae().render(images(), torch.tensor([[3.0]]))


def test_one_latent_of_age_is_the_age_itself() -> None:
    net = vae()
    code = net.age_code(torch.tensor([0.0, 50.0, 100.0]))
    assert code.tolist() == [[-2.0], [0.0], [2.0]]
    torch.testing.assert_close(net.age_of(code), torch.tensor([0.0, 50.0, 100.0]))
    assert not any("direction" in name for name, _ in net.named_parameters())
    several = vae(age_dims=3)
    torch.testing.assert_close(several.age_of(several.age_code(torch.tensor([20.0]))), torch.tensor([20.0]))


def test_an_interval_widens_the_prior_by_its_variance() -> None:
    net = vae(prior_years=4.0)
    std = net.prior_std(torch.tensor([[30.0, 30.0], [20.0, 29.0]]))
    assert std.tolist() == pytest.approx([4 / 25, np.sqrt(16 + 81 / 12) / 25])


def test_the_baseline_is_told_and_unknown_labels_are_allowed() -> None:
    net = vae(conditional=True, attributes=["gender"])
    attributes = torch.tensor([[0], [-1]])
    with torch.no_grad():
        told = net.encode(images(), torch.tensor([30.0, torch.nan]), attributes)
        assert told.age[0][0].item() == pytest.approx(-0.8)
        assert torch.equal(told.sample()[:, :1], told.age[0])  # known exactly
        other = net.encode(images(), torch.tensor([60.0, torch.nan]), attributes)
        assert (told.identity[0][0] - other.identity[0][0]).abs().max() > 0
        assert torch.equal(told.identity[0][1], other.identity[0][1])
        assert net.render(images(), torch.tensor([[30.0], [60.0]])).shape == (2, 1, 3, 32, 32)
    plain = vae(attributes=["gender"])
    with torch.no_grad():
        assert torch.equal(plain.encode(images()).mean, plain.encode(images(), torch.tensor([9.0, 9.0])).mean)
        z = plain.encode(images()).mean
        assert not torch.equal(plain.decode(z, attributes)[0], plain.decode(z)[0])
        assert torch.equal(plain.decode(z, attributes)[1], plain.decode(z)[1])


def test_saved_and_loaded_it_renders_the_same(tmp_path: Path) -> None:
    net = vae(attributes=["gender", "race"])
    net.name, net.ages = "ages", (1.0, 90.0)
    save_renderer(tmp_path, net)
    loaded = load_renderer(tmp_path)
    assert (loaded.name, loaded.ages, loaded.settings, loaded.crop) == (net.name, net.ages, net.settings, net.crop)
    ages = torch.tensor([[5.0], [60.0]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.render(images(), ages), net.render(images(), ages))
    with pytest.raises(MienError, match=r"holds a beta-VAE, which .* takes; expected an estimator"):
        load_estimator(tmp_path)
    with pytest.raises(MienError, match="holds an estimator, which `mien predict` takes; expected a beta-VAE"):
        load_renderer("face-mobile")


def test_settings_that_cannot_be() -> None:
    for wrong in ({"size": 48}, {"width": 12}, {"attributes": ["agee"]}, {"age_dims": 0}):
        with pytest.raises((ValidationError, MienError)):
            BetaVaeSettings(**wrong)


@pytest.mark.parametrize("backbone", ["mobilefacenet", "test_resnet"])
def test_the_perceptual_distance_of_equal_pictures_is_nothing(backbone: str) -> None:
    torch.manual_seed(0)
    distance = Perceptual(backbone)
    a = images(2, 64)
    near = (a.float() / 255 + 0.02).clamp(0, 1).requires_grad_()
    assert distance(a, a).tolist() == [0.0, 0.0]
    close, far = distance(a, near), distance(a, a.flip(0))
    assert (close < far).all()
    close.sum().backward()
    assert near.grad is not None
    assert not any(parameter.requires_grad for parameter in distance.train().parameters())
    assert not distance.training
