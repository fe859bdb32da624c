"""The loop, on a toy objective: a line through points, with labels missing here and there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import FaceBatch
from mien.models.checkpoint import save_tensors
from mien.objectives.base import Objective, Terms, averaged
from mien.training.loop import BrokenLossError, TrainingSettings, _move, estimate, train
from mien.training.optim import Average, OptimSettings, build_optimiser, rate_at
from mien.training.position import Position

N, FEATURES = 48, 5
GENERATOR = torch.Generator().manual_seed(1)
POINTS = torch.randn(N, FEATURES, generator=GENERATOR)
TRUTH = {
    "first": POINTS @ torch.arange(1.0, FEATURES + 1),
    "second": POINTS.sum(1),
}


class Points:
    """Batches of points as if they were faces; the order is a function of the epoch."""

    def __init__(self, batch: int, labels: Mapping[str, Tensor] = TRUTH) -> None:
        self.batch, self.labels = batch, dict(labels)
        self.rejected: dict[int, str] = {}

    def __len__(self) -> int:
        return N // self.batch

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
        order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
        for index in range(start, len(self)):
            rows = order[index * self.batch : (index + 1) * self.batch]
            yield FaceBatch(POINTS[rows], {name: value[rows] for name, value in self.labels.items()}, rows)


class Lines(Objective):
    """Two heads on shared features; NaN marks a missing label."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.ModuleDict({"body": nn.Linear(FEATURES, 4), "first": nn.Linear(4, 1), "second": nn.Linear(4, 1)})
        self.dropout = 0.0
        self.players = {"line": self.net}
        self.chooses = ("error", True)

    def weights(self, player: str) -> dict[str, float]:
        return {"first": 1.0, "second": 0.5}

    def counts(self, player: str, batch: FaceBatch) -> dict[str, int]:
        return {name: int((~value.isnan()).sum()) for name, value in batch.labels.items()}

    def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
        body = nn.functional.dropout(torch.tanh(self.net["body"](batch.images)), self.dropout)
        terms: Terms = {}
        for name, label in batch.labels.items():
            known = ~label.isnan()
            if known.any():
                error = self.net[name](body[known]).squeeze(1) - label[known]
                terms[name] = (error.square().sum(), known.sum())
        return terms

    def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        with averaged(self.net, averages.get("line")), torch.no_grad():
            body = torch.tanh(self.net["body"](POINTS))
            return {"error": float((self.net["first"](body).squeeze(1) - TRUTH["first"]).square().mean())}

    def save_model(self, folder: Path, averages: Mapping[str, Mapping[str, Tensor]]) -> None:
        save_tensors(folder / "model.safetensors", self.net.state_dict())
        (folder / "model.json").write_text("{}")


def run(
    folder: Path,
    objective: Lines | None = None,
    batches: object = None,
    resume: bool = False,
    optim: OptimSettings = OptimSettings(lr=0.05, warmup_epochs=0.5),  # noqa: B008 (never changed)
    **settings: object,
) -> Lines:
    objective = objective or Lines()
    training = TrainingSettings.model_validate({"epochs": 4, "average": 0.9, **settings})
    train(
        objective,
        batches or Points(8),  # type: ignore[arg-type]
        folder,
        training,
        optim,
        accelerator=Accelerator(cpu=True),
        resume=resume,
        show=False,
    )
    return objective


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_it_learns_and_records(tmp_path) -> None:
    objective = run(tmp_path, epochs=30)
    history = json.loads((tmp_path / "history.json").read_text())
    assert len(history) == 30
    assert history[-1]["select"]["error"] < 0.1 * history[0]["select"]["error"]
    assert set(history[0]["train"]) == {"first", "second"}
    assert (tmp_path / "checkpoints" / "best").read_text().strip().startswith("step-")
    assert list((tmp_path / "tensorboard").iterdir())
    assert objective.net.training


@pytest.mark.parametrize("file", ["training.json", "training.safetensors"])
def test_a_damaged_checkpoint_says_how_to_go_on_from_another(tmp_path, file: str) -> None:
    whole = run(tmp_path, Lines(), save_every=2)
    checkpoints = tmp_path / "checkpoints"
    names = sorted((path.name for path in checkpoints.glob("step-*")), key=lambda name: int(name[5:]))
    last = checkpoints / names[-1] / file
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(MienError, match=rf"{file}.*damaged.* write the name of its folder to .*checkpoints/last"):
        run(tmp_path, Lines(), resume=True, save_every=2)
    (checkpoints / "last").write_text(names[-2])
    assert same(whole.net, run(tmp_path, Lines(), resume=True, save_every=2).net)


def test_the_losses_of_an_epoch_are_means_over_its_own_labelled_faces(tmp_path) -> None:
    labels = {**TRUTH, "second": torch.where(torch.arange(N) % 3 == 0, TRUTH["second"], torch.nan)}
    objective = run(tmp_path, batches=Points(8, labels), epochs=3, optim=OptimSettings(lr=1e-9))
    terms = objective.losses("line", FaceBatch(POINTS, labels, torch.arange(N)), 0)
    expected = {name: pytest.approx(float(total.detach() / count), rel=1e-4) for name, (total, count) in terms.items()}
    history = json.loads((tmp_path / "history.json").read_text())
    assert [entry["train"] for entry in history] == [expected] * 3
    assert [(entry["epoch"], entry["step"]) for entry in history] == [(1, 6), (2, 12), (3, 18)]


@pytest.mark.parametrize("stop_at", [1, 6, 11, 17])
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(tmp_path, stop_at: int) -> None:
    class Killed(BaseException):
        pass

    class Mortal(Lines):
        def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
            if step == stop_at:
                raise Killed
            return super().losses(player, batch, step)

    def with_dropout(objective: Lines) -> Lines:
        objective.dropout = 0.3  # randomness inside the network must repeat too
        return objective

    whole = run(tmp_path / "whole", with_dropout(Lines()), save_every=2)
    with pytest.raises(Killed):
        run(tmp_path / "broken", with_dropout(Mortal()), save_every=2)
    resumed = run(tmp_path / "broken", with_dropout(Lines()), resume=True, save_every=2)
    assert same(whole.net, resumed.net)
    one, other = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "broken"))
    for entry in (*one, *other):
        del entry["seconds"]
    assert one == other


def test_pictures_that_a_killed_run_could_not_read_are_still_told(tmp_path) -> None:
    class Torn(Points):
        def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[FaceBatch]:
            for batch in super().epoch(epoch, start):
                self.rejected |= {row: f"{row}: no picture" for row in batch.index.tolist() if row % 7 == 0}
                yield batch

    class Killed(BaseException):
        pass

    class Mortal(Lines):
        def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
            if step == 5:
                raise Killed
            return super().losses(player, batch, step)

    run(tmp_path / "whole", batches=Torn(8), epochs=1, save_every=2)
    with pytest.raises(Killed):
        run(tmp_path / "broken", Mortal(), Torn(8), epochs=1, save_every=2)
    run(tmp_path / "broken", batches=Torn(8), resume=True, epochs=1, save_every=2)
    whole, broken = (json.loads((tmp_path / name / "unreadable.json").read_text()) for name in ("whole", "broken"))
    assert whole == broken
    assert len(whole["train"]) == 7


def test_a_run_killed_while_it_is_judged_goes_on(tmp_path) -> None:
    class Killed(BaseException):
        pass

    class Mortal(Lines):
        def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
            if killing:
                raise Killed
            return super().validate(averages)

    killing, whole = False, run(tmp_path / "whole", save_every=2)
    killing = True
    with pytest.raises(Killed):
        run(tmp_path / "broken", Mortal(), save_every=2)  # six steps an epoch: the last one is saved, then judged
    killing = False
    assert same(whole.net, run(tmp_path / "broken", Mortal(), resume=True, save_every=2).net)
    one, other = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "broken"))
    assert [entry["lr"] for entry in one] == [entry["lr"] for entry in other]


#: What each of two processes runs: other weights, and a figure of which only the first one's gets better.
APART = """
import sys
from pathlib import Path

import torch

from tests.training.test_loop import Lines, run

class Apart(Lines):
    def validate(self, averages):
        self.seen = getattr(self, "seen", 0) + 1
        return {"error": float(-self.seen if RANK == 0 else self.seen)}

from accelerate import Accelerator
RANK = Accelerator(cpu=True).process_index
made = Apart()
with torch.no_grad():
    for parameter in made.net.parameters():
        parameter.add_(RANK)
run(Path(sys.argv[1]), made, epochs=3, stop_after=1)
torch.save(made.net.state_dict(), f"{sys.argv[1]}/{RANK}.pt")
"""


def test_processes_start_from_the_first_ones_weights_and_stop_by_its_word(tmp_path) -> None:
    (tmp_path / "apart.py").write_text(APART)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"),
            *("--standalone", str(tmp_path / "apart.py"), str(tmp_path)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert len(json.loads((tmp_path / "history.json").read_text())) == 3


def test_a_figure_that_is_no_number_is_the_best_only_if_it_is_the_first() -> None:
    state = Position(better_is_lower=True)
    found = []
    for figure in (float("nan"), float("nan"), 3.0, float("nan"), 2.0, 2.5):
        found.append(state.judge({"error": figure}, "error"))
        state.close_epoch({"error": figure}, 0.1, 1.0)
    assert found == [True, False, True, False, True, False]
    assert (state.best, state.stale) == (2.0, 1)


def test_of_figures_below_nothing_the_highest_is_the_best_and_of_equals_the_first() -> None:
    state = Position(better_is_lower=False)
    found = []
    for figure in (-0.5, -0.2, -0.3, 0.1, 0.1):
        found.append(state.judge({"valence/ccc": figure}, "valence/ccc"))
        state.close_epoch({"valence/ccc": figure}, 0.1, 1.0)
    assert found == [True, True, False, True, False]


def test_of_signed_figures_the_nearest_to_nothing_is_the_best() -> None:
    state = Position(better_is_lower=True)
    found = []
    for figure in (-9.0, 0.5, -0.1, -4.0):
        found.append(state.judge({"age/bias": figure}, "age/bias"))
        state.close_epoch({"age/bias": figure}, 0.1, 1.0)
    assert found == [True, True, True, False]
    with pytest.raises(MienError, match="unknown figure to choose by 'age/bais'; did you mean 'age/bias'"):
        state.judge({"age/bias": 1.0}, "age/bais")


def test_a_run_killed_before_its_last_words_says_them_when_it_is_resumed(tmp_path) -> None:
    run(tmp_path, batches=Points(8), epochs=3)
    history = (tmp_path / "history.json").read_bytes()
    best = (tmp_path / "checkpoints" / "best").read_bytes()
    (tmp_path / "history.json").unlink()
    (tmp_path / "checkpoints" / "best").write_text("step-0")
    run(tmp_path, batches=Points(8), epochs=3, resume=True)
    assert (tmp_path / "history.json").read_bytes() == history
    assert (tmp_path / "checkpoints" / "best").read_bytes() == best


def test_accumulation_changes_nothing_but_rounding(tmp_path) -> None:
    # Labels missing unevenly: each term must be divided by its count over the whole window.
    labels = {name: value.clone() for name, value in TRUTH.items()}
    labels["first"][::3] = float("nan")
    labels["second"][: N // 2] = float("nan")
    # Not AdamW: it divides by a gradient's size, and so blows up the rounding of the smallest ones.
    sgd = OptimSettings(name="sgd", lr=0.02)
    one = run(tmp_path / "one", batches=Points(8, labels), optim=sgd)
    four = run(tmp_path / "four", batches=Points(2, labels), optim=sgd, accumulate=4)
    for a, b in zip(one.net.parameters(), four.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_parameter_without_labelled_faces_is_not_moved(tmp_path) -> None:
    labels = {"first": TRUTH["first"], "second": torch.full((N,), float("nan"))}
    before = Lines().net["second"]
    after = run(tmp_path, batches=Points(8, labels)).net["second"]
    assert same(before, after)  # weight decay included


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path) -> None:
    class Broken(Lines):
        def losses(self, player: str, batch: FaceBatch, step: int) -> Terms:
            terms = super().losses(player, batch, step)
            if step == 7:
                terms["second"] = (terms["second"][0] * float("nan"), terms["second"][1])
            return terms

    objective = Broken()
    with pytest.raises(BrokenLossError, match="step 7: the loss second is not a number"):
        run(tmp_path, objective)
    record = json.loads((tmp_path / "broken.json").read_text())
    assert record["step"] == 7
    assert record["terms"]["second"] == "nan"
    assert len(record["faces"]) == 8
    assert all(bool(parameter.isfinite().all()) for parameter in objective.net.parameters())


def test_early_stopping_counts_epochs_without_a_better_figure(tmp_path) -> None:
    class Stubborn(Lines):
        def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
            return {"error": 1.0}

    run(tmp_path, Stubborn(), epochs=20, stop_after=3)
    assert len(json.loads((tmp_path / "history.json").read_text())) == 4


def test_old_checkpoints_go_but_the_best_stays(tmp_path) -> None:
    class Worse(Lines):
        epochs = 0

        def validate(self, averages: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
            self.epochs += 1
            return {"error": float(self.epochs)}

    run(tmp_path, Worse(), epochs=5, keep=1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == ["step-30", "step-6"]
    assert (tmp_path / "checkpoints" / "best").read_text().strip() == "step-6"


def test_an_estimate_of_the_time_learns_nothing() -> None:
    objective = Lines()
    seconds = estimate(objective, Points(8), TrainingSettings(epochs=3), Accelerator(cpu=True))
    assert seconds > 0
    assert same(objective.net, Lines().net)
    assert all(parameter.grad is None for parameter in objective.net.parameters())


def test_rates() -> None:
    cosine = OptimSettings(schedule="cosine", warmup_epochs=1, floor=0.1)
    rates = [rate_at(cosine, step, 10, 5) for step in range(50)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == pytest.approx(rates[10]) == pytest.approx(1.0)
    assert rates[30] == pytest.approx(0.1 + 0.9 * 0.5)  # half of the way down
    assert rates[-1] < 0.11
    step = OptimSettings(schedule="step", warmup_epochs=0, step_epochs=2, step_factor=0.5)
    assert [rate_at(step, s, 10, 6) for s in (0, 19, 20, 45)] == [1.0, 1.0, 0.5, 0.25]
    assert rate_at(OptimSettings(schedule="plateau", warmup_epochs=0), 5, 10, 5, plateau=0.01) == 0.01


def test_groups_scale_by_depth_and_leave_biases_undecayed() -> None:
    net = Lines().net
    settings = OptimSettings(lr=1.0, layer_decay=0.5, head_scale=3.0, weight_decay=0.2, betas=(0.5, 0.9))
    heads = [name for name, _ in net.named_parameters() if not name.startswith("body")]
    optimiser = build_optimiser(net, [["body.weight"], ["body.bias"], heads], settings)
    found = {name: (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for name in g["names"]}
    assert found["body.weight"] == (0.5, 0.2)
    assert found["body.bias"] == (1.0, 0.0)
    assert found["first.weight"] == (3.0, 0.2)
    assert isinstance(optimiser, torch.optim.AdamW)
    assert optimiser.defaults["betas"] == (0.5, 0.9)
    (whole,) = {group["lr"] for group in build_optimiser(net, [list(found)], settings).param_groups}
    assert whole == 1.0  # of one depth alone nothing is the head
    sgd = build_optimiser(net, [list(found)], OptimSettings(name="sgd", momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)


def test_the_average_follows_its_formula() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(0.0)
        average = Average(net, 0.5)
        expected = 0.0
        for step in range(6):
            net.weight.fill_(float(step))
            average.update(net)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * step
    assert float(average.weights["weight"]) == pytest.approx(expected, rel=1e-6)


def test_on_a_plateau_the_rate_falls_and_counts_anew() -> None:
    optim, state, shares = OptimSettings(schedule="plateau", plateau_patience=1, step_factor=0.1), Position(True), []
    for value in (3.0, 4.0, 4.0, 4.0, 4.0, 2.0):
        better = state.judge({"error": value}, "error")
        state.close_epoch({"error": value}, 0.1, 1.0)
        state.plan(optim, None, better)
        shares.append(state.plateau)
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_an_estimate_moves_every_player_to_the_device() -> None:
    moved: list[str] = []

    class Other(nn.Linear):
        def to(self, *args: object, **more: object) -> Other:
            moved.append("other")
            return super().to(*args, **more)  # type: ignore[arg-type]

    objective = Lines()
    objective.players = {**objective.players, "other": Other(1, 1)}
    estimate(objective, Points(8), TrainingSettings(epochs=1), Accelerator(cpu=True))
    assert moved == ["other"]


def test_in_half_precision_a_step_without_a_labelled_face_moves_nothing() -> None:
    objective, accelerator = Lines(), Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu")
    unknown = torch.full((N,), float("nan"))
    window = [next(Points(8, {"first": unknown, "second": unknown}).epoch(0))]
    optimiser = torch.optim.SGD(objective.net.parameters(), lr=0.1)
    player = next(iter(objective.players))
    assert _move(objective, player, optimiser, window, 0, None, accelerator) == {}
    assert same(objective.net, Lines().net)
    assert _move(objective, player, optimiser, [next(Points(8).epoch(0))], 1, None, accelerator)
    assert not same(objective.net, Lines().net)
