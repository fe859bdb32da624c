"""The estimator's objective: freezing, group DRO, counts that agree with the losses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mien.errors import MienError
from mien.faces import Crop, FaceBatch
from mien.models.estimator import Estimator, ModelSettings, build_estimator
from mien.objectives.estimator import GROUP, EstimatorObjective, EstimatorSettings
from mien.tasks.face import TasksSettings
from mien.training.loop import TrainingSettings, estimate

NAN = float("nan")


class Select:
    """One batch of faces to judge on."""

    def __init__(self, batch: FaceBatch) -> None:
        self.batch = batch
        self.rejected: dict[int, str] = {}
        self.labels = batch.labels

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        yield self.batch


def estimator(backbone: str = "test_convnext") -> Estimator:
    torch.manual_seed(0)
    settings = ModelSettings(backbone=backbone, input_size=32, dropout=0.0)
    return build_estimator(settings, TasksSettings(), Crop("chip"))


def batch() -> FaceBatch:
    ages = torch.tensor([[20.0, 20.0], [30.0, 39.0], [NAN, NAN], [60.0, 60.0]])
    labels = {
        "age": ages,
        "gender": torch.tensor([0, -1, 1, 1]),
        "race": torch.tensor([-1, -1, -1, -1]),
        GROUP: torch.tensor([0, 1, -1, 1]),
    }
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return FaceBatch(images, labels, torch.arange(4))


def objective(
    net: Estimator | None = None, shares: list[float] | None = None, harden: float = 0, **options: object
) -> EstimatorObjective:
    made = EstimatorObjective(
        net or estimator(),
        Select(batch()),  # type: ignore[arg-type]
        EstimatorSettings(group_dro=["race"] if shares else [], group_dro_rate=0.5, harden=harden),
        group_shares=None if shares is None else np.array(shares),
        **options,  # type: ignore[arg-type]
    )
    made.start_epoch(0)
    return made


def test_counts_are_known_before_the_forward_pass() -> None:
    made = objective()
    counts = made.counts("estimator", batch())
    losses = made.losses("estimator", batch(), 0)
    assert counts["age/ordinal"] == 3
    assert counts["gender/cross_entropy"] == 3
    assert counts["race/cross_entropy"] == 0
    assert "race/cross_entropy" not in losses
    assert {term: int(count) for term, (_, count) in losses.items()} == {k: v for k, v in counts.items() if v}


def test_frozen_means_weights_and_statistics() -> None:
    made = objective(estimator("test_resnet"), freeze_backbone=1)
    before = {name: value.clone() for name, value in made.estimator.backbone.state_dict().items()}
    terms = made.losses("estimator", batch(), 0)
    sum(total for total, _ in terms.values()).backward()
    assert all(p.grad is None for p in made.estimator.backbone.parameters())
    for name, value in made.estimator.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    made.start_epoch(1)
    terms = made.losses("estimator", batch(), 0)
    sum(total for total, _ in terms.values()).backward()
    assert any(p.grad is not None for p in made.estimator.backbone.parameters())


def test_one_face_is_no_batch_for_a_network_that_normalises_by_it() -> None:
    one = batch()
    one = FaceBatch(one.images[:1], {name: values[:1] for name, values in one.labels.items()}, one.index[:1])
    with pytest.raises(MienError, match=r"a batch of one face .*; give training\.batch two faces or more"):
        objective(estimator("test_resnet")).losses("estimator", one, 0)
    assert "age/ordinal" in objective(estimator("test_convnext")).losses("estimator", one, 0)


def test_an_estimate_of_the_time_leaves_the_groups_as_they_were() -> None:
    made = objective(shares=[0.25, 0.75])

    class Batches:
        def __len__(self) -> int:
            return 1

        def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
            yield batch()

    estimate(made, Batches(), TrainingSettings(epochs=1), Accelerator(cpu=True))
    before = made.state_dict()
    made.after_step(lambda tensor: tensor)
    assert made.state_dict() == before == {"q": [0.5, 0.5]}


def test_faces_without_any_label_are_hardened_against_nothing() -> None:
    nothing = batch()
    nothing.labels = {
        name: torch.full_like(value, NAN if name == "age" else -1) for name, value in nothing.labels.items()
    }
    assert objective(harden=4).losses("estimator", nothing, 0) == {}


def test_hardened_faces_cost_more_and_move_no_statistics_in_the_search() -> None:
    net = estimator("test_resnet")
    torch.manual_seed(1)
    plain = objective(net).losses("estimator", batch(), 0)
    statistics = {name: value.clone() for name, value in net.backbone.state_dict().items() if "running" in name}
    torch.manual_seed(1)
    made = objective(net, harden=8)
    seen: list[torch.Tensor] = []
    net.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]) if module.training else None)
    hard = made.losses("estimator", batch(), 0)
    assert len(seen) == 1
    away = (seen[0] - batch().images / 255).square().mean(dim=(1, 2, 3)).sqrt() * 255
    assert 0 < away.max() <= 8.001
    whole = [float(sum(total.detach() for total, _ in terms.values())) for terms in (plain, hard)]
    assert whole[1] > whole[0]
    assert {term: int(count) for term, (_, count) in hard.items()} == {t: int(c) for t, (_, c) in plain.items()}
    # What the network keeps of the faces it sees is of those it learns from.
    assert statistics
    sum(total for total, _ in hard.values()).backward()
    assert any(parameter.grad is not None for parameter in net.backbone.parameters())


def test_group_dro_weighs_groups_by_its_formula() -> None:
    net = estimator()
    plain, weighed = objective(net), objective(net, shares=[0.25, 0.75])
    # At first every group weighs the same: q = 1/2 each, so a face counts 2 or 2/3, an unknown one 1.
    outputs = net(batch().images)["age"]
    task = net.task("age")
    expected = torch.tensor([0.5 / 0.25, 0.5 / 0.75, 1.0, 0.5 / 0.75])
    by_hand = task.losses(outputs, batch().labels["age"], expected)["ordinal"][0]
    torch.testing.assert_close(weighed.losses("estimator", batch(), 0)["age/ordinal"][0], by_hand)
    assert not torch.isclose(plain.losses("estimator", batch(), 0)["age/ordinal"][0], by_hand)

    # Then q_g <- q_g exp(rate x loss_g), normalised; loss_g is the weighted mean of the age losses in the group.
    losses = []
    for rows in ([0], [1, 3]):
        found = task.losses({k: v[rows] for k, v in outputs.items()}, batch().labels["age"][rows])
        losses.append(sum(w * float(found[t][0].detach()) for t, w in task.loss_weights().items()) / len(rows))
    weighed.after_step(lambda tensor: tensor)
    wanted = 0.5 * np.exp(0.5 * np.array(losses))
    np.testing.assert_allclose(weighed.state_dict()["q"], wanted / wanted.sum(), rtol=1e-4)


def test_group_weights_are_remembered() -> None:
    made = objective(shares=[0.5, 0.5])
    made.load_state_dict({"q": [0.9, 0.1]})
    assert made.state_dict()["q"] == pytest.approx([0.9, 0.1])


def test_losses_that_are_all_switched_off_teach_nothing() -> None:
    tasks = TasksSettings.model_validate({"gender": {"weight": 0}, "race": None, "age": None})
    off = build_estimator(ModelSettings(backbone="test_convnext", input_size=32), tasks, Crop("chip"))
    with pytest.raises(MienError, match=r"the losses of gender have weight 0, .* such as tasks\.gender\.weight=1"):
        objective(off)


def test_validation_names_the_figure_that_chooses() -> None:
    made = objective()
    figures = made.validate({})
    assert made.chooses == ("age/mae", True)
    assert figures["age/mae"] > 0
    assert np.isnan(figures["race/accuracy"])
    assert set(made.figures()) == {"select/age", "select/gender", "select/race"}
    # Averaged weights judge, and the network keeps its own.
    zero = {name: torch.zeros_like(value) for name, value in made.estimator.state_dict().items()}
    before = {name: value.clone() for name, value in made.estimator.state_dict().items()}
    zeroed = made.validate({"estimator": zero})
    assert zeroed["age/mae"] != figures["age/mae"]
    assert all(torch.equal(value, before[name]) for name, value in made.estimator.state_dict().items())


def test_the_best_epoch_is_never_chosen_by_a_figure_that_is_not_defined() -> None:
    assert objective().chooses == ("age/mae", True)
    assert objective().instead == ""
    binned = batch()
    binned.labels["age"] = torch.tensor([[20.0, 29.0], [30.0, 39.0], [NAN, NAN], [60.0, 69.0]])
    made = EstimatorObjective(estimator(), Select(binned), EstimatorSettings())  # type: ignore[arg-type]
    assert made.chooses == ("age/inside", False)
    assert "the labels for age/mae: the best epoch is chosen by age/inside" in made.instead
    binned.labels["age"] = torch.full((4, 2), NAN)
    made = EstimatorObjective(estimator(), Select(binned), EstimatorSettings())  # type: ignore[arg-type]
    assert made.chooses == ("gender/accuracy", False)
    for figure in ("age/mae", "race/accuracy"):
        with pytest.raises(MienError, match=rf"objective\.choose {figure}: no face of .*gender/accuracy.* has"):
            EstimatorObjective(estimator(), Select(binned), EstimatorSettings(choose=figure))  # type: ignore[arg-type]
    binned.labels["gender"] = torch.full((4,), -1)
    with pytest.raises(MienError, match=r"no face of data\.select has a label to choose the best epoch by"):
        EstimatorObjective(estimator(), Select(binned), EstimatorSettings())  # type: ignore[arg-type]


def test_faces_without_the_label_do_not_make_a_group_look_good() -> None:
    def seen(unlabelled: list[int]) -> torch.Tensor:
        faces = batch()
        faces.images[:] = faces.images[:1]
        faces.labels["age"] = torch.tensor([[20.0, 20.0]] * 4)
        faces.labels["age"][unlabelled] = NAN
        faces.labels[GROUP] = torch.tensor([0, 1, 1, 1])
        made = objective(shares=[0.25, 0.75])
        made.losses("estimator", faces, 0)
        return made._seen[0] / made._seen[1]

    torch.testing.assert_close(seen([]), seen([2, 3]))
    assert seen([])[0] == pytest.approx(float(seen([])[1]), rel=1e-5)


def test_a_task_says_which_of_its_figures_choose_and_which_way(monkeypatch: pytest.MonkeyPatch) -> None:
    net = estimator()
    task = net.task("gender")
    given = task.metrics
    monkeypatch.setattr(task, "metrics", lambda *asked: given(*asked) | {"auroc": 0.5, "doubt": 0.1})

    def chosen(name: str) -> tuple[str, bool]:
        return EstimatorObjective(net, Select(batch()), EstimatorSettings(choose=name)).chooses  # type: ignore[arg-type]

    with pytest.raises(MienError, match="unknown figure 'gender/auroc' in objective"):
        chosen("gender/auroc")
    monkeypatch.setattr(task, "chooses", {"auroc": False, "doubt": True}, raising=False)
    assert chosen("gender/auroc") == ("gender/auroc", False)
    assert chosen("gender/doubt") == ("gender/doubt", True)
    assert chosen("age/mae") == ("age/mae", True)
