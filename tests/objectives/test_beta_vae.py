"""The beta-VAE's objective: its terms by hand, what unknown ages change, each switch, what it learns of a few faces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.distributions import Normal, kl_divergence

from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.faces import Crop, FaceBatch
from mien.metrics.coding import linear_probe
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.checkpoint import save_estimator
from mien.models.estimator import ModelSettings, build_estimator
from mien.objectives.beta_vae import BetaVaeObjective
from mien.objectives.beta_vae_settings import BetaVaeObjectiveSettings
from mien.objectives.coding import AGE, ATTRIBUTES
from mien.tasks.face import TasksSettings

PLAYER = "learner"
#: No term but reconstruction and rate.
BARE = {"age_rate": 0.0, "age": 0.0, "adversary": 0.0}


class Select:
    def __init__(self, batch: FaceBatch) -> None:
        self.batch = batch
        self.rejected: dict[int, str] = {}
        self.labels = batch.labels
        self.manifest = SimpleNamespace(groups=lambda: np.arange(len(batch)))

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        yield self.batch


def faces(ages: list[tuple[float, float]], side: int = 32) -> FaceBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(ages), 3, side, side), dtype=torch.uint8, generator=generator)
    labels = {AGE: torch.tensor(ages), ATTRIBUTES: torch.arange(len(ages))[:, None] % 3 - 1}
    return FaceBatch(images, labels, torch.arange(len(ages)))


def objective(batch: FaceBatch, network: dict[str, object] | None = None, **settings: object) -> BetaVaeObjective:
    torch.manual_seed(0)
    own = {"size": 32, "width": 16, "id_dims": 5, **(network or {})}
    vae = BetaVae(BetaVaeSettings(**own), Crop("chip", 0.0, 32))  # type: ignore[arg-type]
    options = BetaVaeObjectiveSettings(**settings)  # type: ignore[arg-type]
    return BetaVaeObjective(vae, Select(batch), options, batch.labels[AGE].numpy(), 100)  # type: ignore[arg-type]


def losses(made: BetaVaeObjective, batch: FaceBatch, step: int = 50) -> dict[str, tuple[float, int]]:
    torch.manual_seed(3)
    found = made.losses(PLAYER, batch, step)
    assert {name: int(count) for name, (_, count) in found.items()} == made.counts(PLAYER, batch)
    return {name: (float(total.detach()), int(count)) for name, (total, count) in found.items()}


EXACT = [(30.0, 30.0), (62.0, 62.0), (5.0, 5.0), (41.0, 41.0)]


def test_terms_are_sums_over_pixels_and_latents() -> None:
    batch = faces([(30.0, 30.0), (20.0, 29.0), (math.nan, math.nan)])
    made = objective(batch, reconstruction="mse")
    found = losses(made, batch)
    vae = made.vae.eval()
    with torch.no_grad():
        posterior = vae.encode(batch.images)
        torch.manual_seed(3)
        decoded = vae.decode(posterior.sample())
    pictures = batch.images.float() / 255
    assert found["reconstruction"] == (pytest.approx(float((decoded - pictures).square().sum()), rel=1e-4), 3)
    mean, log_variance = posterior.identity
    rate = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum()
    assert found["rate"] == (pytest.approx(float(rate), rel=1e-3), 3)
    age, spread = (value.squeeze(1) for value in posterior.age)
    years = vae.settings.prior_years
    prior = Normal(
        torch.tensor([-0.8, (24.5 - 50) / 25, 0.0]),
        torch.tensor([years / 25, math.sqrt(years**2 + 81 / 12) / 25, 1.0]),
    )
    rate = kl_divergence(Normal(age, (0.5 * spread).exp()), prior).sum()
    assert found["age_rate"] == (pytest.approx(float(rate), rel=1e-3), 3)
    said = 50 + 25 * age
    outside = [abs(float(said[0]) - 30), max(20 - float(said[1]), float(said[1]) - 29, 0.0)]
    assert found["age"] == (pytest.approx(sum(value / 10 - 0.05 for value in outside), rel=1e-3), 2)
    assert found["leak"][1] == 2


def test_laplace_is_its_negative_log_likelihood() -> None:
    batch = faces(EXACT)
    made = objective(batch, reconstruction="laplace", **BARE)
    found = losses(made, batch)["reconstruction"]
    torch.manual_seed(3)
    decoded = made.vae.decode(made.vae.encode(batch.images).sample()).detach()
    nats = -torch.distributions.Laplace(decoded, 0.1).log_prob(batch.images.float() / 255).sum()
    assert found == (pytest.approx(float(nats), rel=1e-4), 4)


def test_a_face_without_an_age_changes_nothing_of_the_ages() -> None:
    batch = faces(EXACT)
    made = objective(batch, hsic=2.0)
    alone = losses(made, batch)
    more = faces([*EXACT, (math.nan, math.nan)])
    more.images[:4] = batch.images
    together = losses(made, more)
    for term in ("age", "leak", "batch_hsic"):
        assert together[term] == (pytest.approx(alone[term][0], rel=1e-5), 4), term
    none = faces([(math.nan, math.nan)] * 2)
    assert set(losses(made, none)) == {"reconstruction", "rate", "age_rate"}
    made.learner.zero_grad()
    torch.stack([total for total, _ in made.losses(PLAYER, none, 0).values()]).sum().backward()
    assert made.vae.age_head.weight.grad is None  # and so it is not moved, decay included
    assert all(parameter.grad is None for parameter in made.learner.adversary.parameters())


def test_every_term_has_its_switch(resnet_weights: str) -> None:
    batch = faces(EXACT)
    assert set(losses(objective(batch, **BARE), batch)) == {"reconstruction", "rate"}
    assert set(objective(batch, beta=0.0, **BARE).weights(PLAYER)) == {"reconstruction"}
    seen = {"perceptual": 2.0, "perceptual_backbone": "test_resnet", "perceptual_weights": resnet_weights}
    made = objective(batch, capacity=20.0, gamma=7.0, tc=True, beta=4.0, hsic=1.0, cycle=0.5, **seen)
    assert made.weights(PLAYER) == {
        "reconstruction": 1.0,
        "batch_rate": 7.0,
        "batch_tc": 3.0,
        "perceptual": 2.0,
        "age_rate": 1.0,
        "age": 10.0,
        "leak": 1.0,
        "batch_hsic": 1.0,
        "cycle": 0.5,
    }
    found = losses(made, batch)
    assert set(found) == set(made.weights(PLAYER))
    assert found["cycle"][1] == 1  # a quarter of the faces
    assert all(math.isfinite(total) for total, _ in found.values())


def test_the_baseline_has_the_losses_of_seed_002_alone() -> None:
    batch = faces(EXACT)
    made = objective(batch, {"conditional": True, "attributes": ["gender"], "withhold": 0.0}, reconstruction="mse")
    assert set(losses(made, batch)) == {"reconstruction", "rate"}
    assert made.weights(PLAYER) == {"reconstruction": 1.0, "rate": 1.0}
    assert made.learner.adversary is None
    assert "rate/age" not in made.validate({})


def test_the_capacity_grows_and_holds() -> None:
    batch = faces(EXACT)
    made = objective(batch, capacity=30.0, capacity_over=0.5, **BARE)
    free = losses(objective(batch, **BARE), batch)["rate"][0] / 4
    for step, capacity in ((0, 0.0), (25, 15.0), (50, 30.0), (99, 30.0)):
        total, count = losses(made, batch, step)["batch_rate"]
        assert total / count == pytest.approx(abs(free - capacity), rel=1e-4)


def test_the_adversary_learns_and_the_encoder_gets_its_gradient_turned() -> None:
    batch = faces(EXACT)
    gradients = []
    for strength in (1e-6, 3.0):
        made = objective(batch, adversary=strength, adversary_over=0.0, age_rate=0.0, age=0.0)
        with torch.no_grad():  # it knows these faces: all are pushed
            for _ in range(1):
                made.log_frequency.fill_(-50.0)
        made.losses(PLAYER, batch, 1)["leak"][0].backward()
        assert made.learner.adversary[0].weight.grad.abs().max() > 0
        gradients.append(made.vae.posterior.weight.grad.clone())
    ratio = gradients[1].norm() / gradients[0].norm()
    assert float(ratio) == pytest.approx(3e6, rel=1e-3)
    # Where it knows less than the frequencies tell, the encoder is left alone.
    made = objective(batch, adversary=3.0, adversary_over=0.0, age_rate=0.0, age=0.0)
    made.log_frequency.fill_(0.0)
    made.losses(PLAYER, batch, 1)["leak"][0].backward()
    assert made.vae.posterior.weight.grad.abs().max() == 0
    # The push is against what the adversary's own descent wants of the code.
    made = objective(batch, adversary=1.0, adversary_over=0.0, age_rate=0.0, age=0.0)
    made.log_frequency.fill_(-50.0)
    before = made.losses(PLAYER, batch, 1)["leak"][0]
    before.backward()
    with torch.no_grad():
        slope = made.vae.posterior.weight.grad
        made.vae.posterior.weight -= 1e-3 * slope / slope.norm()
        assert made.losses(PLAYER, batch, 1)["leak"][0] > before


def test_weights_of_faces_scale_their_terms() -> None:
    batch = faces(EXACT)
    made = objective(batch)
    plain = losses(made, batch)
    batch.weights = torch.full((4,), 2.0)
    heavy = losses(made, batch)
    for term in ("reconstruction", "rate", "age_rate", "age", "leak"):
        assert heavy[term][0] == pytest.approx(2 * plain[term][0], rel=1e-5)


def test_a_guide_moves_the_pictures_and_stays_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    guides = []
    for name, gender in (("ages", None), ("both", {"weight": 0.4})):
        tasks = TasksSettings.model_validate({"gender": gender, "race": None, "age": {"method": "dldl", "given": []}})
        judge = build_estimator(ModelSettings(backbone="test_resnet", input_size=32), tasks, Crop("chip", 0.0, 32))
        judge.settings = {"model": judge.settings["model"], "tasks": judge.settings["tasks"]}
        save_estimator(tmp_path / name, judge)
        guides.append(str(tmp_path / name))
    batch = faces(EXACT)
    made = objective(batch, guide=1.0, guide_model=guides[0], rendered=1.0, **BARE)
    assert set(made.losses(PLAYER, batch, 0)) == {"reconstruction", "rate", "guide"}
    with pytest.raises(MienError, match="traits is 1, but no guide_model tells gender or race"):
        objective(batch, traits=1.0, guide_model=guides[0], **BARE)
    more = {"guide": 1.0, "traits": 3.0, "jitter": 1.0, "guide_model": guides[1], "rendered": 1.0}
    made = objective(batch, {"usual": True}, **more, **BARE)
    assert {made.weights(PLAYER)[term] for term in ("guide", "traits")} == {1.0, 3.0}
    unmoved = made.losses(PLAYER, batch, 0)
    for name, parameter in made.vae.named_parameters():
        if "modulation" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    for term in ("guide", "traits"):
        made.vae.zero_grad()
        total, count = made.losses(PLAYER, batch, 0)[term]
        assert int(count) == 4
        total.backward()
        assert made.vae.root.weight.grad.abs().max() > 0
        # What a face is called and what is usual at an age is not for a judge of pictures to say.
        others = [made.guide, made.vae.encoder, made.vae.posterior, made.vae.usual]
        assert all(parameter.grad is None for other in others for parameter in other.parameters())
        assert all(parameter.requires_grad for parameter in made.vae.parameters())
    several = objective(batch, {"age_dims": 3}, cycle=1.0, **more, **BARE)
    terms = several.losses(PLAYER, batch, 0)
    sum(terms[term][0] for term in ("guide", "traits", "cycle")).backward()
    assert several.vae.direction.grad is None
    both = objective(batch, traits=3.0, guide_model=[guides[1], guides[1]], **BARE)
    assert set(both.losses(PLAYER, batch, 0)) == {"reconstruction", "rate", "traits"}
    assert 0 <= float(unmoved["traits"][0].detach()) < float(total.detach())
    with pytest.raises(ValidationError, match="guide needs guide_model"):
        BetaVaeObjectiveSettings(guide=1.0)
    with pytest.raises(ValidationError, match="traits needs guide_model"):
        BetaVaeObjectiveSettings(traits=1.0)
    with pytest.raises(ValidationError, match="perceptual needs perceptual_weights"):
        BetaVaeObjectiveSettings(perceptual=1.0)
    with pytest.raises(ValidationError, match="must be 1 or more"):
        BetaVaeObjectiveSettings(tc=True, beta=0.5)


def test_collapse_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    batch = faces(EXACT)
    made = objective(batch)
    with torch.no_grad():
        made.vae.posterior.weight.zero_()  # every picture has the same code
    figures = made.validate({})
    assert figures["code/active"] == 0
    assert figures["rate/id"] == pytest.approx(0, abs=1e-5)
    assert "posterior collapse: 0 of 5" in capsys.readouterr().err


@pytest.mark.parametrize("conditional", [False, True])
def test_figures_are_those_of_the_faces_by_hand(conditional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ages = [(20.0 + 7 * n % 50, 20.0 + 7 * n % 50) for n in range(10)] + [(20.0, 29.0), (math.nan, math.nan)]
    batch = faces(ages)
    batch = FaceBatch(batch.images, batch.labels, batch.index.flip(0))
    parts = [
        FaceBatch(batch.images[s], {name: value[s] for name, value in batch.labels.items()}, batch.index[s])
        for s in (slice(7), slice(7, None))
    ]
    monkeypatch.setattr(Select, "epoch", lambda self, *_: iter(parts))
    made = objective(batch, {"attributes": ["gender"], "conditional": conditional}, **BARE)
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    made.select.manifest = SimpleNamespace(groups=lambda: groups)  # type: ignore[assignment]
    found, vae = made.validate({}), made.vae.eval()
    with torch.no_grad():
        age, gender = batch.labels[AGE], batch.labels[ATTRIBUTES]
        posterior = vae.encode(batch.images, age.mean(dim=1), gender)
        decoded = vae.decode(posterior.mean, gender).double().numpy()
    mean, log_variance = posterior.identity
    pictures = batch.images.double().numpy() / 255
    squared = np.square(decoded - pictures).mean(axis=(1, 2, 3))
    exact = age[:10, 0].double().numpy()
    read = linear_probe(mean[:10].numpy(), exact, groups[::-1][:10])
    expected = {
        "reconstruction/mse": squared.mean(),
        "reconstruction/l1": np.abs(decoded - pictures).mean(),
        "reconstruction/psnr": (-10 * np.log10(squared)).mean(),
        "reconstruction/mse_sampled": pytest.approx(squared.mean(), rel=0.5),
        "rate/id": kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1).mean().item(),
        "code/active": (mean.var(0, unbiased=False) > 0.01).sum().item(),
        "code/explained": 1 - squared.mean() / pictures.var(axis=0).mean(),
        "probe/mae": np.abs(read - exact).mean(),
        "probe/constant": np.abs(exact - np.median(exact)).mean(),
        "probe/ratio": np.abs(read - exact).mean() / np.abs(exact - np.median(exact)).mean(),
    }
    if not conditional:
        mean, log_variance = posterior.age
        prior = torch.cat([vae.age_code(age[:11].mean(1)), torch.zeros(1, mean.shape[1])]).detach()
        spread = torch.cat([vae.prior_std(age[:11]), torch.ones(1)])[:, None]
        divergence = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(prior, spread))
        expected["rate/age"] = divergence.sum(1).mean().item()
        expected["age/mae"] = np.abs(vae.age_of(mean).detach().numpy()[:10] - exact).mean()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (value if name.endswith("sampled") else pytest.approx(value, rel=1e-4)), name


def test_it_learns_a_few_drawn_faces_with_their_ages(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Manifest.open(drawn).take(np.arange(12))
    columns = manifest.columns(["age_low", "age_high"])
    ages = torch.stack([torch.as_tensor(columns[name]).float() for name in columns], dim=1)
    loader = FaceLoader(manifest, {AGE: ages}, 32, 12)
    torch.manual_seed(0)
    vae = BetaVae(BetaVaeSettings(size=32, width=16, id_dims=15), Crop("chip", 0.0, 32))
    settings = BetaVaeObjectiveSettings(reconstruction="mse", reconstruction_weight=20.0, beta=0.1, age=30.0)
    made = BetaVaeObjective(vae, loader, settings, ages.numpy(), 50)
    batch = next(loader.epoch())
    optimiser = torch.optim.Adam(made.learner.parameters(), lr=4e-3)
    first = made.validate({})
    assert "posterior collapse" in capsys.readouterr().err
    for step in range(50):
        torch.manual_seed(step)
        terms = made.losses(PLAYER, batch, step)
        loss = sum(made.weights(PLAYER)[name] * total / count for name, (total, count) in terms.items())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    last = made.validate({})
    assert capsys.readouterr().err == ""
    assert last["reconstruction/mse"] < 0.5 * first["reconstruction/mse"]
    assert last["code/explained"] > 0.3
    assert last["age/mae"] < 8 < first["age/mae"]
    assert last["probe/constant"] > 10
    pictures = made.figures()["select/ages"]
    assert len(pictures.axes) == 6 * 8


def test_a_figure_that_will_not_be_there_cannot_choose() -> None:
    batch = faces(EXACT)
    with pytest.raises(MienError, match="a conditional network has no z_age"):
        objective(batch, {"conditional": True}, choose="age/mae", **BARE)
    with pytest.raises(MienError, match=r"needs 4 faces of data\.select with an age in years; it has 1"):
        objective(faces([(30.0, 30.0), (20.0, 29.0), (math.nan, math.nan)]), choose="probe/ratio")
    assert objective(batch, choose="probe/ratio").chooses == ("probe/ratio", False)


def test_a_conditional_network_is_not_credited_with_the_age_it_was_told() -> None:
    batch = faces(EXACT)
    assert "age/mae" not in objective(batch, {"conditional": True}, **BARE).validate({})
    assert "age/mae" in objective(batch).validate({})
