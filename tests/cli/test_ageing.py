"""`mien audit --ageing` from its command line, with a tiny AgeTransformer of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from mien.cli.ageing import met, remarks
from mien.cli.audit import audit
from mien.cli.console import one_line_errors
from mien.data.manifest import Manifest
from mien.evaluation.ageing.judges import EstimatorJudge, IdentityJudge, Judges, load_judge
from mien.faces import Crop
from mien.files import write_json
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.checkpoint import load_estimator, load_renderer, save_renderer
from mien.models.met import Met
from mien.training.record import CONFIG

JUDGE = "face-mobile"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = AgeTransformer(AgeTransformerSettings(size=32, width=8), Crop("chip"))
    network.name = "tiny"
    folder = tmp_path_factory.mktemp("model")
    save_renderer(folder, network)
    return folder


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(one_line_errors(audit))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_audit_and_the_same_one_again(model: Path, drawn: Path, tmp_path: Path) -> None:
    asked = ("--ageing", model, "--ages", "20,60", "-n", 5, "--bootstraps", 100, "--landmarker", "none", "-o", tmp_path)
    result = run(drawn, *asked, "--judge", JUDGE, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert f"the judge {JUDGE} errs by" in result.stdout
    assert "5 faces of val at 20, 60 years" in result.stdout
    real = json.loads((tmp_path / "ageing.json").read_text())["real"]
    off, inside = (sum(real[age][key]["value"] for age in ("20", "60")) / 2 for key in ("mae", "in_band"))
    assert f"other real faces of these ages look {off:.2f} years off to it, {100 * inside:.1f} % in" in result.stdout
    assert "nobody judges identity; name a network with --identity" in result.stdout
    assert f"{model} does not tell what guided it" in result.stdout
    assert f"report: {tmp_path / 'report.html'}" in result.stderr
    stamp = (tmp_path / "tiny" / "answers.npz").stat().st_mtime_ns
    told = json.loads(run(drawn, *asked, "--device", "cpu", "--json").stdout)
    assert list(told["renderers"]) == ["tiny", "copy of the input", "mean face of the age", "shift by pixel means"]
    assert told["renderers"]["tiny"]["summary"]["truth"]["n"] == 5
    network = load_renderer(model)
    assert told["renderers"]["tiny"]["parameters"] == sum(len(one.flatten()) for one in network.parameters())
    assert (tmp_path / "tiny" / "answers.npz").stat().st_mtime_ns == stamp


def test_a_renderer_is_aimed_beside_itself(model: Path, drawn: Path, tmp_path: Path) -> None:
    asked = ("--ages", "20,60", "-n", 5, "--bootstraps", 100, "--landmarker", "none", "--device", "cpu")
    result = run(drawn, "--ageing", model, "--aim", JUDGE, "--against", model, *asked, "-o", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert list(told["renderers"])[:2] == [f"tiny, aimed by {JUDGE}", "tiny"]
    assert told["about"]["notes"][0] == f"{model} was aimed by its judge {JUDGE}: its ages prove nothing; name another"


def test_a_judge_of_identity_that_guided_ages_is_told(tmp_path: Path) -> None:
    judges = Judges(EstimatorJudge(load_estimator("face-ensemble")), IdentityJudge(JUDGE))
    recipe = {"age_transformer": {}, "age_transformer_objective": {"guide_model": JUDGE, "age": 1.0}}
    write_json(tmp_path / CONFIG, recipe)
    told = remarks(str(tmp_path), judges)
    assert f"{tmp_path} was guided by its judge of identity features of {JUDGE}; name another" in told


def test_a_judge_that_learnt_from_the_faces_is_told(drawn: Path) -> None:
    manifest, estimator = Manifest.open(drawn), load_estimator(JUDGE)
    judges = Judges(EstimatorJudge(estimator))
    assert met(judges, manifest, "val") == []
    estimator.learnt = Met.of(manifest.split("val").strings("sha256"))
    (told,) = met(judges, manifest, "val")
    assert told.startswith(f"the judge {JUDGE}: it learnt from ")
    assert met(judges, manifest, "test") == []


def test_a_judge_that_guided_is_told(tmp_path: Path) -> None:
    judges = Judges(EstimatorJudge(load_estimator(JUDGE)))
    recipe = {"age_transformer": {}, "age_transformer_objective": {"guide_model": JUDGE, "age": 1.0}}
    write_json(tmp_path / CONFIG, recipe)
    assert remarks(str(tmp_path), judges) == [
        f"{tmp_path} was guided by its judge {JUDGE}: its ages prove nothing; name another"
    ]
    experts = tmp_path / "experts.yaml"
    experts.write_text(f"experts: [{{kind: ours, model: {JUDGE}}}, {{kind: ours, name: b, model: face-ensemble}}]\n")
    mixture = Judges(load_judge(str(experts)))
    assert remarks(str(tmp_path), mixture)[0].startswith(f"{tmp_path} was guided by its judge experts")
    recipe["age_transformer_objective"] |= {"identity": 1.0, "identity_model": JUDGE}
    write_json(tmp_path / CONFIG, recipe)
    told = remarks(str(tmp_path), Judges(judges.age, IdentityJudge(JUDGE)))
    assert any("was guided by its judge of identity" in line for line in told)
    recipe["age_transformer_objective"] = {"guide_model": "gone", "age": 1.0}
    write_json(tmp_path / CONFIG, recipe)
    assert "guided by gone, which is not there" in remarks(str(tmp_path), judges)[0]
    recipe["age_transformer_objective"]["age"] = 0.0  # it guided nothing
    write_json(tmp_path / CONFIG, recipe)
    assert remarks(str(tmp_path), judges) == []
    write_json(tmp_path / CONFIG, {"age_transformer": {}})
    assert remarks(str(tmp_path), judges) == []
    # A beta-VAE's age is its own head's; its guide guides by `guide` and `traits`, and it, too, what starts from it.
    first, then = tmp_path / "first", tmp_path / "then"
    for terms, expected in (({"age": 9.0}, []), ({"traits": 1.0}, [f"{first} was guided by its judge {JUDGE}"])):
        write_json(first / CONFIG, {"beta_vae": {}, "beta_vae_objective": {"guide_model": JUDGE, **terms}})
        write_json(then / CONFIG, {"beta_vae": {}, "model": {"init": str(first)}})
        for run_folder in (first, then):
            assert [line.split(":")[0] for line in remarks(str(run_folder), judges)] == expected
    write_json(then / CONFIG, {"beta_vae": {}, "model": {"init": "face-ages"}})
    assert remarks(str(then), judges) == ["face-ages does not tell what guided it: see that neither judge did"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ageing", "nothing"], "unknown model 'nothing'"),
        (["--ageing", "x", "--robustness"], "two audits; give one command for each"),
        (["--ageing", "x", "--model", "y"], "an ageing audit's renderer is --ageing's"),
        (["--ageing", "x", "--ages", "5-75"], "expected FIRST:LAST:STEP"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(drawn: Path, arguments: list[str], message: str) -> None:
    result = run(drawn, *arguments)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("mien: ")
    assert message in last
