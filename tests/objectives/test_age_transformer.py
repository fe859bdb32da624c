"""The AgeTransformer's objective: each term alone, R1, two players in the loop, collapse, what it learns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError

from mien.errors import MienError
from mien.faces import Crop, FaceBatch
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings, with_warp
from mien.models.captioners import label_caption
from mien.models.checkpoint import save_estimator
from mien.models.estimator import ModelSettings, build_estimator
from mien.models.language import HashedLanguage, age_texts, read_captions, without_age
from mien.objectives import adversarial
from mien.objectives.adversarial import AdaptiveAugment, gradient_penalty
from mien.objectives.age_transformer import DISCRIMINATOR, GENERATOR, AgeTransformerObjective, CollapseError, variation
from mien.objectives.ageing import SPREAD, TEXT, collapse
from mien.objectives.ageing_settings import AgeTransformerObjectiveSettings
from mien.objectives.coding import AGE
from mien.objectives.guides import AgeGuide, IdentityGuide, Seen, changed_traits
from mien.tasks.face import TasksSettings
from mien.training.loop import TrainingSettings, train
from mien.training.optim import OptimSettings

SIDE = 32


class Select:
    def __init__(self, *batches: FaceBatch) -> None:
        self.batches = batches
        self.rejected: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        yield from self.batches[start:]


def faces(count: int = 4) -> FaceBatch:
    """Blobs: the older, the darker."""
    ages = torch.linspace(5, 80, count)
    images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 60
    images = (images + (190 - 2 * ages)[:, None, None, None]).clamp(0, 255).to(torch.uint8)
    return FaceBatch(images, {AGE: ages[:, None].repeat(1, 2)}, torch.arange(count))


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("guide")
    tasks = TasksSettings.model_validate({"gender": None, "race": None, "age": {"method": "dldl", "regression": False}})
    save_estimator(folder, build_estimator(ModelSettings(backbone="test_resnet", input_size=SIDE), tasks, Crop("chip")))
    return str(folder)


def objective(batch: FaceBatch, text: int = 0, **settings: object) -> AgeTransformerObjective:
    torch.manual_seed(0)
    network = AgeTransformer(AgeTransformerSettings(size=SIDE, width=8, blocks=1, text=text), Crop("chip", 0.0, SIDE))
    options = AgeTransformerObjectiveSettings(**{"width": 8, **settings})  # type: ignore[arg-type]
    return AgeTransformerObjective(network, Select(batch), options, batch.labels[AGE].numpy(), 100)  # type: ignore[arg-type]


def losses(made: AgeTransformerObjective, player: str, batch: FaceBatch, step: int = 0) -> dict[str, float]:
    torch.manual_seed(3)
    found = made.losses(player, batch, step)
    counts = made.counts(player, batch)
    assert all(int(count) == counts[term] for term, (_, count) in found.items())
    assert set(counts) - set(found) <= {"r1"}
    return {term: float(total.detach()) / int(count) for term, (total, count) in found.items()}


def test_each_term_can_be_left_out_and_changes_no_other(guide: str, resnet_weights: str) -> None:
    batch = faces()
    all_of_it = {
        "age": 1.0,
        "ordering": 1.0,
        "guide_model": guide,
        "identity": 1.0,
        "identity_model": guide,
        "perceptual": 1.0,
        "perceptual_backbone": "test_resnet",
        "perceptual_weights": resnet_weights,
        "direction": 1.0,
    }
    whole = losses(objective(batch, **all_of_it), GENERATOR, batch)
    assert len(whole) == 12
    for term in ("age", "ordering", "identity", "perceptual", "direction", "own", "cycle", "mask", "smooth", "source"):
        without = losses(objective(batch, **{**all_of_it, term: 0.0}), GENERATOR, batch)
        assert without == pytest.approx({key: value for key, value in whole.items() if key != term}, rel=1e-4), term
    made = objective(batch, **{**all_of_it, "adversarial": 0.0})
    assert set(made.players) == {GENERATOR}
    left = set(whole) - {"adversarial", "age_class"}
    assert set(losses(made, GENERATOR, batch)) == left
    with pytest.raises(ValidationError, match="age needs guide_model"):
        AgeTransformerObjectiveSettings(age=1.0)
    with pytest.raises(ValidationError, match="identity needs identity_weights"):
        AgeTransformerObjectiveSettings(identity=1.0)
    with pytest.raises(MienError, match="mobilefacenet judges identity"):
        IdentityGuide("mobilefacenet")


def test_two_anchors_must_lie_within_the_ages_learnt_from(guide: str) -> None:
    batch = faces()
    batch.labels[AGE] = torch.tensor([[16.0, 16.0], [18, 18], [21, 21], [24, 24]])
    with pytest.raises(MienError, match=r"are 16 to 24 years old, and 0 of age_transformer\.anchors lies within"):
        objective(batch, guide_model=guide, age=1.0)
    objective(batch)  # without a guide nothing is judged by anchors


def test_rough_flows_are_not_smooth() -> None:
    still = torch.zeros(2, 3, 2, 8, 8)
    bent = still.clone()
    bent[1, :, 0, :, 4:] = 0.25  # in all rows one step of a quarter, of seven
    torch.testing.assert_close(variation(bent), torch.tensor([0.0, 0.25 / 2 / 7]))
    batch = faces()
    made = objective(batch, smooth=1.0)
    plain = losses(made, GENERATOR, batch)["smooth"]
    made.network = with_warp(made.network, 0.2)
    assert losses(made, GENERATOR, batch)["smooth"] == pytest.approx(plain, rel=1e-5)
    assert made.network.move is not None
    torch.nn.init.normal_(made.network.move.weight, std=0.5)
    assert losses(made, GENERATOR, batch)["smooth"] > plain + 0.1


def test_neither_player_moves_the_other_and_guides_stay(guide: str) -> None:
    batch = faces()
    made = objective(batch, age=1.0, guide_model=guide)
    assert made.discriminator is not None
    assert made.guide is not None
    torch.stack([total for total, _ in made.losses(GENERATOR, batch, 0).values()]).sum().backward()
    assert all(parameter.grad is None for parameter in (*made.discriminator.parameters(), *made.guide.parameters()))
    assert made.network.stem[1].weight.grad is not None
    made.network.zero_grad()
    found = made.losses(DISCRIMINATOR, batch, 0)
    assert {"real", "made", "mismatch", "age_class", "r1"} == set(found)
    torch.stack([total for total, _ in found.values()]).sum().backward()
    assert all(parameter.grad is None for parameter in made.network.parameters())
    assert made.discriminator.stem[1].weight.grad.abs().max() > 0
    assert "r1" not in made.losses(DISCRIMINATOR, batch, 1)


def test_several_guides_take_turns_and_judge_together(guide: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    settings = ModelSettings(backbone="test_convnext", input_size=32, dropout=0.0)
    other = build_estimator(settings, TasksSettings(), Crop("chip", 0.0, SIDE))
    save_estimator(tmp_path, other)
    both = AgeGuide([guide, str(tmp_path)])
    alone = [AgeGuide(guide), AgeGuide(str(tmp_path))]
    pictures = faces().images
    seen = [one(pictures) for one in alone]
    assert torch.equal(both.ask(1, pictures).age, seen[1][0])
    age, deviation = both(pictures)
    torch.testing.assert_close(age, (seen[0][0] + seen[1][0]) / 2)
    apart = ((seen[0][0] - seen[1][0]) / 2).square()
    torch.testing.assert_close(deviation, ((seen[0][1].square() + seen[1][1].square()) / 2 + apart).sqrt())
    torch.manual_seed(0)
    assert 4 < sum(both.draw() for _ in range(20)) < 16
    both.require_traits(1.0, "objective")
    alone[0].require_traits(0.0, "objective")
    with pytest.raises(MienError, match=r"objective\.traits is 1, but no guide_model tells gender or race"):
        alone[0].require_traits(1.0, "objective")
    made = objective(faces(), age=1.0, guide_model=[guide, str(tmp_path)])
    assert losses(made, GENERATOR, faces())["age"] > 0


def test_traits_of_renders_are_held_to_those_of_the_face(guide: str, tmp_path: Path) -> None:
    log = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    years = torch.zeros(4)
    given = Seen(years[:2], years[:2], (log,))
    made = Seen(years, years, (torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.9, 0.1]]).log(),))
    expected = torch.tensor([0, 0.8 * math.log(9), 0, 0.5 * math.log(0.25 / 0.09)])
    torch.testing.assert_close(changed_traits(given, made), expected)
    assert changed_traits(Seen(years[:2], years[:2], ()), Seen(years, years, ())).tolist() == [0, 0, 0, 0]

    settings = ModelSettings(backbone="test_convnext", input_size=32, dropout=0.0)
    save_estimator(tmp_path, build_estimator(settings, TasksSettings(), Crop("chip", 0.0, SIDE)))
    made_by = objective(faces(), traits=1.0, guide_model=str(tmp_path))
    found = losses(made_by, GENERATOR, faces())
    assert found["traits"] > 0
    assert "age" not in found
    with pytest.raises(MienError, match="no guide_model tells gender or race"):
        objective(faces(), traits=1.0, guide_model=guide)
    with pytest.raises(ValidationError, match="traits needs guide_model"):
        AgeTransformerObjectiveSettings(traits=1.0)


def test_unknown_and_uncertain_ages_are_done_without() -> None:
    batch = faces()
    batch.labels[AGE][1] = math.nan
    batch.labels[SPREAD] = torch.tensor([0.0, math.nan, 7.0, 0.0])
    made = objective(batch, withhold=0.0)
    assert made.counts(GENERATOR, batch)["source"] == 3
    assert all(math.isfinite(value) for value in losses(made, GENERATOR, batch).values())
    assert all(math.isfinite(value) for value in losses(made, DISCRIMINATOR, batch).values())
    spread = torch.tensor([0.0, 5.0, 7.0, math.nan])
    assert made._trust(spread, 0).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert made._trust(spread, 100).tolist() == pytest.approx([1.0, 0.5, 1 / 2.96, 0.0])
    own = torch.tensor([10.0, 50.0])
    near, far = made._asked(own, 0), made._asked(own, 100)
    assert bool((near.diff(dim=1) >= 0).all())
    assert bool(((near - own[:, None]).abs() <= 20).all())
    assert bool(((far - own[:, None]).abs() > 20).any())
    assert far.min() >= 5
    batch.labels[TEXT] = torch.randn(4, 2, 6)
    assert "own" in losses(objective(batch, text=6), GENERATOR, batch)


def test_the_gradient_penalty_is_exact_and_can_be_derived() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(3, 2, 4, 4).double(), torch.randn(2, 4, 4).double()
    linear = gradient_penalty(lambda leaf: (leaf * w).sum(dim=(1, 2, 3)), x)
    assert torch.allclose(linear, w.square().sum().expand(3))
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.Linear(12, 1))
    net = net.double()
    names = [name for name, _ in net.named_parameters()]

    def of(*weights: torch.Tensor) -> torch.Tensor:
        own = dict(zip(names, weights, strict=True))
        return gradient_penalty(lambda leaf: torch.func.functional_call(net, own, (leaf,))[:, 0], x)

    assert torch.autograd.gradcheck(of, tuple(parameter.detach().requires_grad_() for parameter in net.parameters()))


def test_augmentation_grows_as_the_discriminator_knows_its_faces() -> None:
    augment, images = AdaptiveAugment(0.6, 100), torch.rand(8, 3, 16, 16)
    assert augment(images) is images
    augment.see(torch.ones(50))
    augment.adapt(lambda tensor: tensor)
    assert augment.p == pytest.approx(0.5)
    torch.manual_seed(0)
    seen = augment(images)
    changed = [not torch.allclose(a, b) for a, b in zip(images, seen, strict=True)]
    assert any(changed)
    augment.see(torch.tensor([1.0, 1, 1, -1]))  # a mean sign of 0.5 is below the target
    augment.adapt(lambda tensor: tensor)
    assert augment.p == pytest.approx(0.46)
    augment.see(torch.ones(100))
    augment.adapt(lambda tensor: tensor)
    assert augment.p == 0.8  # at most
    augment.adapt(lambda tensor: tensor)
    assert augment.p == 0.8  # nothing was seen since
    augment.see(-torch.ones(100))
    augment.adapt(lambda tensor: tensor)
    assert augment.p == 0
    never = AdaptiveAugment(0.0, 100)
    never.see(torch.ones(50))
    never.adapt(lambda tensor: tensor)
    assert never.p == 0


def test_augmentation_flips_shifts_and_colours_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    augment = AdaptiveAugment(0.6, 100)
    augment.p = 0.5
    torch.manual_seed(0)
    spreads = {"BRIGHTNESS": 0.1, "CONTRAST": 0.3, "SATURATION": 0.5}
    with monkeypatch.context() as only:
        for name in spreads:
            only.setattr(adversarial, name, 0.0)
        place = torch.arange(16.0) / 16
        map_ = torch.stack([place.expand(16, 16), place[:, None].expand(16, 16), torch.zeros(16, 16)])
        seen = augment(map_.expand(2000, 3, 16, 16))[:, :2, 8, 8:10] * 16
        flipped = seen[:, 0, 0] > seen[:, 0, 1]
        across = torch.where(flipped, 7 - seen[:, 0, 0], seen[:, 0, 0] - 8)
        down = seen[:, 1, 0] - 8
        assert float(flipped.float().mean()) == pytest.approx(0.25, abs=0.04)  # half of those that may be
        assert set(across.tolist()) == set(down.tolist()) == {-2, -1, 0, 1, 2}  # an eighth of the side
        shifted = (across != 0) | (down != 0)
        assert float(shifted.float().mean()) == pytest.approx(0.5 * 24 / 25, abs=0.05)
        for name, spread in spreads.items():
            only.setattr(adversarial, name, spread)
            made = augment(torch.tensor([0.3, 0.5, 0.7])[:, None, None].expand(2000, 3, 2, 2))[:, :, 0, 0]
            moved = made[:, 1] - 0.5 if name == "BRIGHTNESS" else ((made[:, 2] - made[:, 0]) / 0.4).log()
            changed = moved.abs() > 1e-5
            assert float(changed.float().mean()) == pytest.approx(0.5, abs=0.05), name
            assert float(moved[changed].std()) == pytest.approx(spread, rel=0.1), name
            assert float(moved[changed].mean()) == pytest.approx(0, abs=spread / 5), name
            only.setattr(adversarial, name, 0.0)
    grey = torch.full((2000, 3, 2, 2), 0.6)
    monkeypatch.setattr(adversarial, "BRIGHTNESS", 0.0)
    # Contrast is about the middle of the range, and grey has no saturation.
    made = augment(grey)
    assert torch.equal(made[:, 0], made[:, 2])
    assert float(((made[:, 0, 0, 0] - 0.5) / 0.1).log().std()) == pytest.approx(0.3 * 0.5**0.5, rel=0.1)


def test_collapse_is_said_and_stops(capsys: pytest.CaptureFixture[str]) -> None:
    batch = faces()
    made = objective(batch, adversarial=0.0, stop_on_collapse=True, patience=2)
    with torch.no_grad():
        made.network.paint[0].weight.zero_()
        made.network.paint[0].bias[12:] = -20.0  # nothing is let through
    assert made.validate({})["collapse"] == 1
    assert "copies of the input" in capsys.readouterr().err
    with pytest.raises(CollapseError, match="stopped after 2 epochs"):
        made.validate({})
    good = {"spread/share": 0.9, "change/far": 0.1, "age/slope": 0.8}
    assert collapse(good) == ""
    assert "constant pictures" in collapse(good | {"spread/share": 0.01})
    assert "one age for all" in collapse(good | {"age/slope": 0.05})


def test_one_face_to_judge_by_is_no_collapse(capsys: pytest.CaptureFixture[str]) -> None:
    figures = objective(faces(1), adversarial=0.0, own=0.0).validate({})
    assert math.isnan(figures["spread/share"])
    assert "constant pictures" not in capsys.readouterr().err


def test_figures_are_those_of_the_renders_by_hand(guide: str) -> None:
    batch = faces(6)
    batch.labels[AGE][4:] = torch.tensor([[20.0, 29.0], [math.nan, math.nan]])
    made = objective(batch, adversarial=0.0, age=1.0, guide_model=guide, identity=1.0, identity_model=guide)
    parts = [slice(4), slice(4, None)]
    made.select = Select(*(FaceBatch(batch.images[s], {AGE: batch.labels[AGE][s]}, batch.index[s]) for s in parts))  # type: ignore[assignment]
    with torch.no_grad():
        made.network.paint[0].weight.mul_(30)  # changes that are seen
    found, net = made.validate({}), made.network.eval()
    assert made.guide is not None
    assert made.identity is not None
    pictures, exact = batch.images / 255, batch.labels[AGE][:4, 0]
    with torch.no_grad():
        looks = net.encode(pictures).own_age
        told = torch.cat([exact, torch.tensor([24.5, math.nan])])
        unsure = torch.tensor([0.0, 0, 0, 0, 9 / 12**0.5, math.nan])
        own = torch.where(told.isnan(), looks, told)
        anchors = net.anchors.expand(6, -1)
        again, *aged = net.render(pictures, torch.cat([own[:, None], anchors], 1), told, unsure).unbind(1)
        judged = torch.stack([made.guide(one)[0] for one in aged], 1).double().numpy()
        cosines = torch.stack([(made.identity(one) * made.identity(pictures)).sum(1) for one in aged], 1)
    changes = torch.stack([(one - pictures).abs().mean((1, 2, 3)) for one in aged], 1)
    spread = [one.var(0, correction=0).mean().sqrt().item() for one in (pictures, *aged)]
    years = net.anchors.double().numpy()
    inside = (years >= net.ages[0]) & (years <= net.ages[1])
    judged, years = judged[:, inside], years[inside]
    expected = {
        "own/l1": (again - pictures).abs().mean(),
        "change/far": changes[(anchors - own[:, None]).abs() >= 20].mean(),
        "spread/share": min(spread[1:]) / spread[0],
        "source/mae": (looks[:4] - exact).abs().mean(),
        "identity/cosine": cosines.mean(),
        "age/mae": np.abs(judged - years).mean(),
        "age/slope": np.mean([np.polyfit(years, one, 1)[0] for one in judged]),
        "ordering/pairs": np.mean([b > a for one in judged for a, b in pairwise(one)]),
        "ordering/faces": np.mean([all(b > a for a, b in pairwise(one)) for one in judged]),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-3, abs=1e-6), name
    score = made.settings.own * found["own/l1"] + found["age/mae"] / 10 + 1 - found["identity/cosine"]
    assert found["score"] == pytest.approx(score)


def test_it_learns_a_few_faces_and_a_killed_run_ends_where_a_whole_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = faces(8)
    monkeypatch.setattr(AgeTransformerObjective, "figures", lambda self: {})
    settings = TrainingSettings(epochs=2, batch=8, average=0.9, precision="fp32")
    optim = OptimSettings(lr=3e-3, betas=(0.0, 0.99), weight_decay=0.0, warmup_epochs=0.0)

    def run(folder: Path, resume: bool = False) -> AgeTransformerObjective:
        made = objective(batch, r1_every=4, augment_faces=50, augment=0.1)
        data = Select(*[batch] * 10)
        train(made, data, folder, settings, optim, accelerator=Accelerator(cpu=True), resume=resume, show=False)
        return made

    whole = run(tmp_path / "whole")
    history = json.loads((tmp_path / "whole" / "history.json").read_text())
    assert history[1]["select"]["own/l1"] < 0.1
    assert history[1]["train"]["generator/source"] < history[0]["train"]["generator/source"]
    assert {"discriminator/r1", "discriminator/real", "generator/adversarial"} <= set(history[0]["train"])
    validate, calls = AgeTransformerObjective.validate, []

    def once(self: AgeTransformerObjective, averages: dict[str, dict[str, torch.Tensor]]) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(self, averages)

    monkeypatch.setattr(AgeTransformerObjective, "validate", once)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    monkeypatch.setattr(AgeTransformerObjective, "validate", validate)
    again = run(tmp_path / "broken", resume=True)
    assert whole.augment.p == again.augment.p
    for player in whole.players:
        for name, value in whole.players[player].state_dict().items():
            assert torch.equal(value, again.players[player].state_dict()[name]), name


def test_words(tmp_path: Path) -> None:
    assert age_texts([7.0, 40.0, 40.0], ["Male", "Female", None]) == [
        "photo of a 7 year old boy",
        "photo of a 40 year old woman",
        "photo of a 40 year old person",
    ]
    assert without_age("an elderly man with grey hair and glasses") == "a man with grey hair and glasses"
    assert without_age("a 34-year-old woman, smiling") == "a woman, smiling"
    # Whoever is left out would tell the age as well.
    for age in (8.0, 40.0):
        for gender, word in (("Male", "man"), ("Female", "woman"), (None, "person")):
            assert without_age(label_caption(age, gender, "Asian", None)) == f"photo of a {word}, Asian"
    assert (
        without_age("two teenage girls and a baby beside an old adult woman") == "two women and a person beside a woman"
    )
    cache = tmp_path / "captions.jsonl"
    cache.write_text('{"sha256": "aa", "caption": "a young woman with a hat"}\n\n')
    assert read_captions(cache) == {"aa": "a woman with a hat"}
    cache.write_text('{"sha": 1}\n')
    with pytest.raises(MienError, match="line 1 is not an object with sha256 and caption"):
        read_captions(cache)
    language = HashedLanguage(16, 3)
    tokens = language.tokens(["hat and hair of a face", "", "Hat"])
    assert tokens.shape == (3, 3, 16)
    assert torch.equal(tokens[0, 0], tokens[2, 0])
    assert bool(tokens[1].isnan().all())
    assert torch.allclose(language.texts(["one", "two"]).norm(dim=1), torch.ones(2))


def test_guided_terms_have_the_values_of_their_formulas(guide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for 20 and 40, 50 and 70 years, the guide sees 30 and 28, 50 and 70; everybody is the same person."""
    batch = faces(2)
    made = objective(
        batch, age=1.0, ordering=1.0, guide_model=guide, identity=1.0, identity_model=guide, renders=2, jitter=0.0
    )
    seen = Seen(torch.tensor([30.0, 28.0, 50.0, 70.0]), torch.zeros(4), ())
    assert made.guide is not None
    monkeypatch.setattr(made.guide, "ask", lambda *_: seen)
    monkeypatch.setattr(made, "_asked", lambda *_: torch.tensor([[20.0, 40.0], [50.0, 70.0]]))
    same = torch.nn.functional.normalize(torch.ones(1, 4), dim=1)
    monkeypatch.setattr(made.identity, "forward", lambda images: same.expand(len(images), -1))
    found = losses(made, GENERATOR, batch)
    # Decades off: 1 and 1.2, less half a year of the quadratic part; the second face is right.
    assert found["age"] == pytest.approx((0.95 + 1.15) / 2 / 2)
    # The first face's judged ages fall by 2 years where 2 at least are to be gained: .4 of a decade, of two faces.
    assert found["ordering"] == pytest.approx(0.4 / 2)
    assert found["identity"] == pytest.approx(0.0, abs=1e-5)
    # The pictures are asked about first, then what was made of them: another person altogether, thirty years away.
    answers = iter([torch.eye(4)[:1], torch.eye(4)[1:2]])
    monkeypatch.setattr(made.identity, "forward", lambda images: next(answers).expand(len(images), -1))
    monkeypatch.setattr("mien.objectives.age_transformer.same_person", lambda apart: torch.full_like(apart, 0.5))
    assert losses(made, GENERATOR, batch)["identity"] == pytest.approx(0.5)


def test_guides_can_see_what_will_be_shown(guide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of faces larger than the network works on, guides see the given detail with the change laid over, which is what
    `render` gives; at working size they see what the discriminator does."""
    batch = faces(2)
    large = FaceBatch(torch.randint(90, 160, (2, 3, 48, 48), dtype=torch.uint8), batch.labels, torch.arange(2))
    looked: list[torch.Tensor] = []

    def ask(which: int, images: torch.Tensor) -> Seen:
        looked.append(images.detach())
        return Seen(images.mean(dim=(1, 2, 3)), torch.zeros(len(images)), ())

    made = {side: objective(large, age=1.0, guide_model=guide, jitter=0.0, guided_at=side) for side in (48, None)}
    asked = torch.tensor([[20.0, 40.0], [50.0, 70.0]])
    for side, one in made.items():
        monkeypatch.setattr(one.guide, "ask", ask)
        monkeypatch.setattr(one, "_asked", lambda *_: asked)
        assert losses(one, GENERATOR, large)["age"] > 1
        own = large.labels[AGE].mean(dim=1)
        torch.manual_seed(3)
        told = own.masked_fill(torch.rand(2) < one.settings.withhold, torch.nan)
        with torch.no_grad():
            shown = one.network.render(large.images, asked, told)
        if side is None:
            shown = one.network(large.images, asked, told).pictures
        torch.testing.assert_close(looked.pop(), shown.flatten(0, 1), atol=1e-5, rtol=0)
        one.settings.grey = 1.0
        losses(one, GENERATOR, large)
        grey = looked.pop()
        torch.testing.assert_close(grey[:, 0], grey[:, 2])
        assert one.validate({})["age/mae"] > 0
        assert looked.pop().shape[-1] == (side or SIDE)


def test_the_discriminator_takes_real_faces_for_real_and_renders_for_made(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = faces()
    made = objective(batch)
    assert made.discriminator is not None
    given = made.discriminator.forward
    monkeypatch.setattr(made.discriminator, "forward", lambda *asked: (given(*asked)[0] * 0 + 3.0, given(*asked)[1]))
    found = losses(made, DISCRIMINATOR, batch, step=1)
    assert found["real"] == pytest.approx(math.log1p(math.exp(-3)))
    assert found["made"] == pytest.approx(math.log1p(math.exp(3)))
    assert found["mismatch"] > 1  # of the faces whose wrong age is far from their own
    assert losses(made, GENERATOR, batch)["adversarial"] == pytest.approx(math.log1p(math.exp(-3)))


@pytest.mark.parametrize("choose", ["age/mae", "ordering/pairs", "identity/cosine"])
def test_a_figure_that_no_guide_gives_cannot_choose(choose: str) -> None:
    with pytest.raises(ValidationError, match=f"choose={choose} needs"):
        AgeTransformerObjectiveSettings(choose=choose)  # type: ignore[arg-type]
