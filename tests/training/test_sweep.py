"""Sweeps: which runs there are, that they resume, that one that fails stops nobody, and what is told of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mien.cli.console import one_line_errors
from mien.cli.sweep import sweep as command
from mien.errors import MienError
from mien.models.beta_vae import BetaVae
from mien.models.checkpoint import load_renderer
from mien.objectives.beta_vae import BetaVaeObjective
from mien.report.sweep import choice, lines_of
from mien.training.run import train_run
from mien.training.sweep import Member, Sweep, figures_of, members, sheet

TINY = [
    *("beta_vae.width=8", "beta_vae.id_dims=4", "training.epochs=1", "training.batch=64"),
    *("training.precision=fp32", "data.workers=0"),
]
BETA = "beta_vae_objective.beta"


def inside(sweep: Sweep, member: Member, run: Path) -> str:
    """Trains in this process, which is quicker than one of its own."""
    try:
        train_run(member.recipe, run, resume=(run / "config_used.json").is_file(), show=False)
    except MienError as error:
        return str(error)
    return ""


def test_every_combination_is_a_run_of_its_own_name() -> None:
    found = members("drawn-beta-vae", ["data.faces=x"], [f"{BETA}=1,2.5,1e-3", "seed=0,1"])
    assert [member.name for member in found][:3] == ["beta=1_seed=0", "beta=1_seed=1", "beta=2.5_seed=0"]
    assert [member.recipe.beta_vae_objective.beta for member in found] == [1, 1, 2.5, 2.5, 1e-3, 1e-3]
    assert {member.recipe.data.faces for member in found} == {"x"}
    listed = members("demo", [], ["tasks.age.given=[],[gender]", "tasks.race.given=[],[gender]"])
    assert listed[1].name == "tasks.age.given=empty_tasks.race.given=gender"
    assert listed[1].values == {"tasks.age.given": [], "tasks.race.given": ["gender"]}
    assert listed[2].recipe.tasks.age is not None
    assert listed[2].recipe.tasks.age.given == ["gender"]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([], "name a key and its values"),
        (["seed"], "expected key=value,value"),
        (["seed="], "expected key=value,value"),
        (["seed=0", "seed=1"], "seed is given twice"),
        (["seed=1,1"], "a value stands there twice"),
        (["optim.lr=1e-3,0.002,0.001"], r"lr=1e-3 and lr=0\.001 are one and the same run"),
        (["seed=[1"], "not YAML"),
        ([f"{BETA}s=1"], r"unknown setting beta_vae_objective\.betas"),
        ([f"{BETA}=1,-1"], r"beta_vae_objective\.beta.*-1"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(over: list[str], message: str) -> None:
    with pytest.raises(MienError, match=message):
        members("drawn-beta-vae", [], over)


def test_a_sweep_of_betas_fails_resumes_and_is_left_alone(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BetaVaeObjective, "figures", lambda self: {})
    monkeypatch.setattr("mien.evaluation.latents.disentanglement.PERMUTATIONS", 5)
    trained: list[str] = []

    def launch(sweep: Sweep, member: Member, run: Path) -> str:
        trained.append(member.name)
        if member.name == "beta=2" and trained.count("beta=2") == 1:
            (run / "config_used.json").unlink(missing_ok=True)
            return "the machine is on fire"
        if member.name == "beta=8":
            return "no space left"
        return inside(sweep, member, run)

    def run(*over: str, settings: list[str] = TINY) -> dict[str, Any]:
        sweep = Sweep("drawn-beta-vae", [f"data.faces={drawn}", *settings], over, tmp_path)
        return sweep.run(launch=launch, seeds=1, resamples=100)

    found = run(f"{BETA}=1,2")
    assert [row["status"] for row in found["runs"]] == ["done", "failed"]
    assert found["runs"][1]["error"] == "the machine is on fire"
    code = found["runs"][0]["code"]
    vae = load_renderer(tmp_path / "beta=1")
    assert isinstance(vae, BetaVae)
    assert code["n"] == found["runs"][0]["figures"]["faces"] > 30
    assert code["parameters"] == sum(parameter.numel() for parameter in vae.parameters())
    assert code["rate"]["low"] <= code["rate"]["value"] <= code["rate"]["high"]
    # The run's own figures are of the same faces, by other code.
    told = found["runs"][0]["figures"]
    assert code["mse"]["value"] == pytest.approx(told["reconstruction/mse"], rel=1e-3)
    assert code["rate"]["value"] == pytest.approx(told["rate/id"] + told["rate/age"], rel=1e-3)
    assert code["age"]["value"] == pytest.approx(told["age/mae"], rel=1e-3)

    lines = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [line["status"] for line in lines] == ["done", "failed"]
    assert float(lines[0]["code/mse low"]) == pytest.approx(code["mse"]["low"])
    page = (tmp_path / "sweep.html").read_text()
    assert "the machine is on fire" in page
    assert page.count("data:image/png;base64,") == 1
    assert "KL divergence" in page
    assert "Mean absolute error in years" in page

    # The failed one is tried again, finished ones are not, and a new value joins them.
    monkeypatch.setattr("mien.training.sweep.judge_code", lambda *_: {**code, "n": 1})
    trained[:] = ["beta=2"]
    found = run(f"{BETA}=1,2,8")
    assert trained[1:] == ["beta=2", "beta=8"]
    assert [row["status"] for row in found["runs"]] == ["kept", "done", "failed"]
    assert found["runs"][1]["code"]["n"] == 1
    assert found["runs"][0]["code"] == code
    assert found["runs"][0]["seconds"] > 0

    # A setting that changed is said; the run that stands there is left alone.
    stands = (tmp_path / "beta=1" / "config_used.json").read_bytes()
    found = run(f"{BETA}=1", settings=[*TINY, "optim.lr=1e-4"])
    assert trained[3:] == []
    assert [row["status"] for row in found["runs"]] == ["changed", "done"]  # beta=8 left nothing behind
    assert "(optim.lr)" in found["runs"][0]["error"]
    assert found["runs"][0]["figures"] == {}
    assert (tmp_path / "beta=1" / "config_used.json").read_bytes() == stands


def test_figures_are_read_and_lines_and_a_choice_are_made(tmp_path: Path) -> None:
    estimate = {"value": 4.4, "low": 4.2, "high": 4.5, "n": 100}
    metrics = {"age": {"mae": estimate, "gaps": {"gender": {"raw": estimate}}, "n": 3}, "faces": 100, "split": "val"}
    (tmp_path / "metrics.val.json").write_text(json.dumps(metrics))
    assert figures_of(tmp_path) == {"age/mae": estimate, "age/n": 3, "faces": 100}
    assert figures_of(tmp_path / "none") == {}

    def row(name: str, mse: float, probe: float, **values: Any) -> dict[str, Any]:
        code = {"mse": {"value": mse}, "probe": {"value": probe}, "rate": {"value": 50.0}}
        return {"run": name, "values": {BETA: 1, **values}, "code": code, "figures": {}, "status": "done", "error": ""}

    rows = [row("a", 0.01, 0.5, seed=0), row("b", 0.02, 0.85, seed=1), row("c", 0.03, 0.95, seed=1)]
    assert choice(rows).startswith("Take b,")
    assert choice(rows[:1]).startswith("There is no run")
    assert "none is to be preferred" in choice([])
    assert {name: len(points) for name, points in lines_of(rows).items()} == {"seed 0": 1, "seed 1": 2}
    text = sheet({"runs": [{**rows[0], "figures": {"age/mae": estimate}}]})
    assert text.splitlines()[0] == (
        f"run,{BETA},seed,status,error,age/mae,age/mae low,age/mae high,"
        "code/mse,code/mse low,code/mse high,code/probe,code/probe low,code/probe high,"
        "code/rate,code/rate low,code/rate high"
    )
    assert text.splitlines()[1].startswith("a,1,0,done,,4.4,4.2,4.5,0.01,,,")


def test_tables_that_the_disk_has_damaged_are_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"runs": [')
    with pytest.raises(MienError, match=r"sweep.json is damaged .*; remove it: the same command tells again"):
        Sweep("demo", [], ["seed=0,1"], tmp_path)
    # A member's costs that member its figures, and not the sweep.
    (tmp_path / "sweep.json").unlink()

    def launch(sweep: Sweep, member: Member, run: Path) -> str:
        run.mkdir()
        (run / "metrics.val.json").write_text("{}" if member.name == "seed=1" else "")
        return ""

    found = Sweep("demo", [], ["seed=0,1"], tmp_path).run(launch=launch)
    assert [row["status"] for row in found["runs"]] == ["done", "done"]
    assert found["runs"][0]["error"].startswith("trained, but not judged: ")
    assert "metrics.val.json is damaged" in found["runs"][0]["error"]
    assert not found["runs"][1]["error"]


def test_from_the_command_line_each_run_is_a_process(drawn: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(one_line_errors(command))

    def run(*words: object) -> Any:
        return CliRunner().invoke(app, ["demo", f"data.faces={drawn}", "-o", str(tmp_path), *map(str, words)])

    listed = run("--over", "seed=0,1", "--dry-run", "--json")
    assert [row["run"] for row in json.loads(listed.stdout)["runs"]] == ["seed=0", "seed=1"]
    assert not any(tmp_path.iterdir())
    # No such weights: the process ends at once, with a line that the sweep tells on.
    result = run("--over", "model.weights=nowhere.safetensors", "--json", "--device", "cpu")
    assert result.exit_code == 1
    (only,) = json.loads(result.stdout)["runs"]
    assert (only["status"], only["figures"]) == ("failed", {})
    assert "nowhere.safetensors" in only["error"]
    assert "Traceback" not in only["error"]
    assert "nowhere.safetensors" in (tmp_path / "weights=nowhere.safetensors.log").read_text()
    assert (tmp_path / "sweep.html").is_file()
