"""Networks as ONNX files: what onnxruntime answers against what mien does."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mien.errors import MienError
from mien.faces import EXPRESSIONS, GENDERS, RACES, Crop
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.backbone import Backbone
from mien.models.checkpoint import save_estimator, save_renderer
from mien.models.estimator import Estimator, ModelSettings, build_estimator, weights_hash
from mien.models.exported import (
    Answer,
    EstimatorGraph,
    Graph,
    Port,
    RendererGraph,
    check_place,
    export,
    write_onnx,
)
from mien.models.join import join
from mien.tasks.face import TasksSettings, build_tasks
from mien.tasks.ordinal import METHODS

CHIP = Crop("chip")
SIDE = 32


def varied(estimator: Estimator) -> Estimator:
    """With heads whose answers depend much on the picture, and what is fitted on faces fitted."""
    for name, task in estimator.tasks.items():
        for parameter in task.parameters():
            parameter.data += 0.5 * torch.randn(parameter.shape)
        with torch.no_grad():
            outputs = estimator.eval()(pictures(60))[name]
        columns = {column: np.full(60, np.nan, np.float32) for column in task.columns}
        if name == "age":
            columns["age_low"] = columns["age_high"] = np.arange(60, dtype=np.float32)
            estimator.states[name] = task.fit(outputs, task.encode(columns))
        elif name in ("gender", "race", "expression"):
            estimator.states[name] = {"temperature": 1.5}
    return estimator


def tiny(**settings: Any) -> Estimator:
    """An age estimator with one convolution."""
    net = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 8))
    backbone = Backbone(net, 8, SIDE, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    tasks = build_tasks(TasksSettings.model_validate({"gender": None, "race": None, "age": settings}), 8)
    return varied(Estimator(backbone, tasks, 0.1, CHIP))


def pictures(faces: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.rand(faces, 3, 1, 1, generator=generator)  # else all are alike on the whole
    return (levels * 255 * torch.rand(faces, 3, SIDE, SIDE, generator=generator)).to(torch.uint8)


def ask(path: Path, *names: str, **inputs: Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = list(names) or [output.name for output in session.get_outputs()]
    return dict(zip(wanted, session.run(wanted, {name: x.numpy() for name, x in inputs.items()}), strict=True))


class Several(Graph):
    """Several estimators on the same pictures, for one export instead of many."""

    def __init__(self, estimators: dict[str, Estimator]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: EstimatorGraph(one) for name, one in estimators.items()})
        self.facts = {"model": "several"}
        self.inputs = next(iter(self.parts.values())).inputs  # type: ignore[assignment]
        self.outputs = tuple(
            Answer(f"{name}_{port.name}", *list(vars(port).values())[1:])
            for name, part in self.parts.items()
            for port in part.outputs  # type: ignore[union-attr]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for part in self.parts.values() for value in part(images))

    def sample(self, faces: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (pictures(faces, 1),)

    def expected(self, *inputs: Tensor) -> list[np.ndarray]:
        return [value for part in self.parts.values() for value in part.expected(*inputs)]  # type: ignore[operator]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs as they are traced, not simplified, which takes as long again; other tests see simplified ones."""
    monkeypatch.setattr(torch.onnx, "export", partial(torch.onnx.export, optimize=False))


#: What else is tried beside each method.
WAYS: dict[str, dict[str, Any]] = {
    "corn": {"grid": {"groups": [3, 10, 20, 60]}, "fit_blend": False},
    "or_cnn": {"regression": False},
    "dldl_v2": {"decode": "mean"},
    "soft_label": {"decode": "argmax"},
}


@pytest.mark.usefixtures("quickly")
def test_every_way_to_learn_an_age_answers_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    estimators = {method: tiny(method=method, **WAYS.get(method, {})) for method in METHODS}
    estimators["dldl"].mirror = True
    for name, estimator in estimators.items():  # intervals come from age and std alone, however these are learnt
        kept = {"dldl": {}, "regression": estimator.states["age"]}
        fitted = {key: value for key, value in estimator.states["age"].items() if key in ("temperature", "blend")}
        estimator.states = {"age": kept.get(name, fitted)}
    write_onnx(Several(estimators), tmp_path / "all.onnx")
    images = pictures(40)
    told = ask(tmp_path / "all.onnx", images=images)
    for name, estimator in estimators.items():
        columns = estimator.predict(images)
        for column in ("age", "age_std", "age_low", "age_high"):
            if np.isnan(columns[column]).any():
                assert f"{name}_{column}" not in told
            else:
                np.testing.assert_allclose(told[f"{name}_{column}"], columns[column], atol=2e-3)
        assert np.ptp(columns["age"]) > 3, name
    mirrored = ask(tmp_path / "all.onnx", images=images.flip(-1))
    np.testing.assert_allclose(mirrored["dldl_age"], told["dldl_age"], atol=2e-3)
    assert np.abs(mirrored["coral_age"] - told["coral_age"]).max() > 0.1
    assert {name for name in told if "regression" in name} == {f"regression_age{end}" for end in ("", "_low", "_high")}


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Estimator]:
    """A checkpoint with every task, a landmark branch and mirrored averaging, and its file beside it."""
    torch.manual_seed(1)
    settings = ModelSettings(backbone="test_resnet", input_size=SIDE, mirror=True, landmarks=True)
    tasks = TasksSettings.model_validate({"expression": {}, "valence": {}, "arousal": {"bounded": False}})
    estimator = build_estimator(settings, tasks, CHIP)
    estimator.name, estimator.card = "all-of-it", {"terms": "yours"}
    assert estimator.branch is not None
    for parameter in estimator.branch.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    folder.mkdir()
    save_estimator(folder, varied(estimator))
    export(folder, folder / "all.onnx")
    return folder, estimator.eval()


@pytest.mark.parametrize("faces", [1, 2, 7])
def test_all_tasks_landmarks_and_the_mirror_image(whole_model: tuple[Path, Estimator], faces: int) -> None:
    folder, estimator = whole_model
    images = pictures(faces, seed=faces)
    landmarks = SIDE * torch.rand(faces, 68, 2, generator=torch.Generator().manual_seed(faces))
    landmarks[1::2] = torch.nan
    told = ask(folder / "all.onnx", images=images, landmarks=landmarks)
    columns = estimator.predict(images, landmarks)
    for name in ("age", "age_std", "age_low", "age_high", "valence", "arousal"):
        np.testing.assert_allclose(told[name], columns[name], atol=2e-3 if "age" in name else 2e-5)
    for task, words in (("gender", GENDERS), ("race", RACES), ("expression", EXPRESSIONS)):
        expected = np.stack([columns[f"{task}_{word}"] for word in words], axis=1)
        np.testing.assert_allclose(told[task], expected, atol=2e-5)
    nowhere = torch.full_like(landmarks, torch.nan)
    without = ask(folder / "all.onnx", images=images, landmarks=nowhere)
    np.testing.assert_allclose(without["age"], estimator.predict(images)["age"], atol=2e-3)
    assert abs(without["age"][0] - told["age"][0]) > 0.01


def test_the_file_tells_what_it_is_and_nothing_of_where_it_was_made(whole_model: tuple[Path, Estimator]) -> None:
    folder, estimator = whole_model
    proto = onnx.load(folder / "all.onnx")
    onnx.checker.check_model(proto, full_check=True)
    told = {entry.key: entry.value for entry in proto.metadata_props}
    assert {key: told[key] for key in ("model", "kind", "weights_sha256", "mien_version", "terms")} == {
        "model": "all-of-it",
        "kind": "estimator",
        "weights_sha256": weights_hash(estimator),
        "mien_version": version("mien"),
        "terms": "yours",
    }
    assert json.loads(told["classes"]) == {
        "gender": list(GENDERS),
        "race": list(RACES),
        "expression": list(EXPRESSIONS),
    }
    assert json.loads(told["crop"]) == {"template": "chip", "margin": 0.0, "size": SIDE}
    assert json.loads(told["inputs"])["images"] == "uint8 (batch, 3, 32, 32): RGB face crops, 0 to 255"
    outputs = json.loads(told["outputs"])
    assert list(outputs) == [output.name for output in proto.graph.output]
    assert outputs["age_low"] == "float32 (batch): lower end of the interval that holds 90 % of true ages, years"
    assert outputs["gender"] == "float32 (batch, 2): probabilities of Male, Female"
    assert proto.graph.output[0].doc_string
    written = (folder / "all.onnx").read_bytes()
    assert b".py" not in written
    assert str(Path.cwd()).encode() not in written
    assert not (folder / "all.onnx.data").exists()


def test_only_some_tasks(whole_model: tuple[Path, Estimator], tmp_path: Path) -> None:
    folder, _ = whole_model
    torch.manual_seed(3)
    tasks = build_tasks(TasksSettings.model_validate({"valence": {}}), 8)
    estimator = varied(Estimator(tiny().backbone, tasks, 0.1, CHIP))
    made = write_onnx(EstimatorGraph(estimator, ["valence", "gender"]), tmp_path / "some.onnx")
    assert [port.name for port in made.outputs] == ["gender", "valence"]
    assert made.bytes == (tmp_path / "some.onnx").stat().st_size
    assert "age" not in {value.name for value in onnx.load(tmp_path / "some.onnx").graph.output}
    images = pictures(2)
    told = ask(tmp_path / "some.onnx", "valence", images=images)
    np.testing.assert_allclose(told["valence"], estimator.predict(images)["valence"], atol=2e-5)
    for wanted, message in ((["weight"], "unknown task 'weight' in the model all-of-it"), ([], "no task is asked for")):
        with pytest.raises(MienError, match=message):
            export(folder, tmp_path / "none.onnx", wanted)


@pytest.mark.usefixtures("quickly")
def test_joined_networks_of_two_sizes_are_one_file(tmp_path: Path) -> None:
    settings = TasksSettings.model_validate({"race": None, "age": {"given": []}})
    parts = [
        build_estimator(ModelSettings(backbone="test_resnet", input_size=side), settings, CHIP).eval()
        for side in (SIDE, SIDE // 2)
    ]
    joined = join(parts)
    made = write_onnx(EstimatorGraph(joined), tmp_path / "joined.onnx")
    images = pictures(5)
    told, expected = ask(made.path, "age", images=images)["age"], joined.predict(images)["age"]
    np.testing.assert_allclose(told, expected, atol=0.01)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("warp", [0.0, 0.2])
def test_a_renderer_shows_any_number_of_ages(warp: float, tmp_path: Path) -> None:
    torch.manual_seed(2)
    settings = AgeTransformerSettings(size=32, width=8, blocks=1, anchors=[10, 50], mirror=True, strength=3, warp=warp)
    renderer = AgeTransformer(settings, CHIP)
    for parameter in renderer.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    (tmp_path / "renderer").mkdir()
    save_renderer(tmp_path / "renderer", renderer)
    made = export(tmp_path / "renderer", tmp_path / "renderer.onnx")
    assert [port.name for port in (*made.inputs, *made.outputs)] == ["images", "ages", "pictures"]
    for faces, ages in ((1, 1), (2, 2), (3, 5)):
        years = 100 * torch.rand(faces, ages)
        told = ask(tmp_path / "renderer.onnx", images=pictures(faces), ages=years)["pictures"]
        with torch.no_grad():
            expected = renderer.eval().render(pictures(faces), years).numpy()
        np.testing.assert_allclose(told, expected, atol=1e-4)
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0.01
    with pytest.raises(MienError, match="is a renderer, which has no tasks"):
        export(tmp_path / "renderer", tmp_path / "again.onnx", ["age"])


class Wrong(RendererGraph):
    """Says that it adds one, and adds two."""

    def __init__(self, more: float) -> None:
        Graph.__init__(self)
        self.more = more
        self.inputs = (Port("x", "float32", ("batch",), "a number"),)
        self.outputs = (Answer("y", "float32", ("batch",), "one more", 0.01),)
        self.facts = {"model": "wrong"}

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return (x + self.more,)

    def sample(self, faces: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.rand(faces, generator=generator),)

    def expected(self, *inputs: Tensor) -> list[np.ndarray]:
        return [inputs[0].numpy() + 1]


def test_a_file_that_answers_otherwise_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"its y would be 1 from what wrong says, more than 0\.01"):
        write_onnx(Wrong(2.0), tmp_path / "wrong.onnx")
    with pytest.raises(MienError, match="would be nan"):
        write_onnx(Wrong(float("nan")), tmp_path / "wrong.onnx")
    assert list(tmp_path.iterdir()) == []
    assert write_onnx(Wrong(1.005), tmp_path / "wrong.onnx").differences["y"] == pytest.approx(0.005, abs=1e-5)


def test_places_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MienError, match=r"model: an exported network ends in \.onnx; write to .*model\.onnx"):
        check_place(tmp_path / "model")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(MienError, match="a folder is there"):
        export("face-mobile", tmp_path / "folder.onnx")
    for module in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, module, None)
            with pytest.raises(MienError, match=rf"{module} is not installed; .* pip install '\.\[export\]'"):
                export("face-mobile", tmp_path / "model.onnx")


def test_models_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"holds a landmarker, .*; expected an estimator or an AgeTransformer"):
        export("face-landmarks", tmp_path / "model.onnx")
    with pytest.raises(MienError, match="did you mean 'face-mobile'"):
        export("face-mobil", tmp_path / "model.onnx")
    torch.manual_seed(0)
    estimator = build_estimator(ModelSettings(backbone="test_resnet", input_size=SIDE), TasksSettings(), CHIP)
    save_estimator(tmp_path / "damaged", estimator)
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(MienError, match="damaged weights"):
        export(tmp_path / "damaged", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_what_onnx_cannot_hold_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsayable(Wrong):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
            return (torch.special.bessel_j0(x),)

    with pytest.raises(MienError, match=r"wrong cannot be written as ONNX: .*bessel"):
        write_onnx(Unsayable(1.0), tmp_path / "model.onnx")
    monkeypatch.setattr("mien.models.exported.TOO_MUCH", 0)
    with pytest.raises(MienError, match="one file of ONNX holds 2 GB at most"):
        write_onnx(Wrong(1.0), tmp_path / "model.onnx")
