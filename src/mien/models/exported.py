"""Networks as ONNX files: one file that answers as the network does, for programs without torch or mien."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mien.errors import MienError, need, unknown
from mien.faces import MAX_AGE, MIN_AGE, Crop
from mien.files import to_json, whole
from mien.models.age_transformer import AgeTransformer
from mien.models.checkpoint import kind_of, load_estimator, load_renderer
from mien.models.estimator import Estimator, weights_hash
from mien.models.renderer import as_float, laid_over, renderer_hash
from mien.tasks.age import AgeTask
from mien.tasks.base import Task
from mien.tasks.categorical import CategoricalTask
from mien.tasks.continuous import ContinuousTask

#: The version of ONNX's operators that files are written in, which runtimes have read since 2023.
OPSET = 18
#: How far a file's answers may be from the network's: in years; in probabilities and numbers in [-1, 1]; in brightness
#: of 1. Less than anybody sees in them, and far more than rounding makes.
YEARS, SHARE, BRIGHTNESS = 0.01, 0.0005, 0.002
#: Faces in each batch that a file is tried on.
BATCHES = (1, 3)
#: Bytes that one file of ONNX cannot hold.
TOO_MUCH = 1 << 31

#: What the answers on age mean.
AGES = {
    "age": "years",
    "age_std": "standard deviation of the distribution over ages, years",
    "age_low": "lower end of the interval that holds {level:.0f} % of true ages, years",
    "age_high": "upper end of that interval, years",
}


@dataclass(frozen=True)
class Port:
    """An input or an output of a file: its type in numpy's words, its shape, what it means."""

    name: str
    type: str
    shape: tuple[str | int, ...]
    about: str

    def __str__(self) -> str:
        return f"{self.type} ({', '.join(map(str, self.shape))}): {self.about}"


@dataclass(frozen=True)
class Answer(Port):
    """An output; `tolerance` is how far from the network's answer is no mistake."""

    tolerance: float


class Graph(nn.Module, ABC):
    """A network as a file holds it: tensors in the order of `inputs` to tensors in the order of `outputs`."""

    inputs: tuple[Port, ...]
    outputs: tuple[Answer, ...]
    #: What is told of the network in the file.
    facts: dict[str, Any]

    @abstractmethod
    def sample(self, faces: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random values of all inputs."""

    @abstractmethod
    def expected(self, *inputs: Tensor) -> list[np.ndarray]:
        """What mien itself answers, in the order of `outputs`."""


class EstimatorGraph(Graph):
    """An estimator with what its tasks make of its outputs: the columns of a prediction."""

    def __init__(self, estimator: Estimator, tasks: Sequence[str] | None = None) -> None:
        """`tasks` are the ones wanted; all by default.

        Raises:
            MienError: the estimator has not learnt one of them.
        """
        super().__init__()
        self.estimator = estimator.eval()
        wanted = list(estimator.tasks) if tasks is None else list(dict.fromkeys(tasks))
        if not wanted:
            raise MienError(f"no task is asked for; name some of {', '.join(estimator.tasks)}, or leave tasks out")
        for name in wanted:
            if name not in estimator.tasks:
                raise unknown("task", name, estimator.tasks, f"the model {estimator.name}")
        self.wanted = [name for name in estimator.tasks if name in wanted]
        self.inputs = (_images(estimator.input_size),)
        if estimator.branch is not None:
            about = "x and y of iBUG's 68 points in pixels of the picture, NaN throughout where they are unknown"
            self.inputs += (Port("landmarks", "float32", ("batch", 68, 2), about),)
        with torch.inference_mode():
            told = self.answers(*self.sample(2, torch.Generator()))
        self.outputs = tuple(self._port(task, name, value) for task in told for name, value in told[task].items())
        crop = Crop(estimator.crop.template, estimator.crop.margin, estimator.input_size)
        self.facts = {
            "model": estimator.name,
            "kind": "estimator",
            "weights_sha256": weights_hash(estimator),
            "classes": {name: task.classes for name in self.wanted if (task := self._classes(name)) is not None},
            "crop": crop.to_dict(),
            "terms": estimator.card.get("terms", ""),
        }

    def answers(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, dict[str, Tensor]]:
        """`{task: {output: tensor}}` of the wanted tasks."""
        outputs, states = self.estimator(images, landmarks), self.estimator.states
        return {name: self.estimator.task(name).answers(outputs[name], states.get(name, {})) for name in self.wanted}

    def forward(self, images: Tensor, landmarks: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(value for told in self.answers(images, landmarks).values() for value in told.values())

    def sample(self, faces: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        side = self.estimator.input_size
        images = _pictures(faces, side, generator)
        if self.estimator.branch is None:
            return (images,)
        points = torch.rand(faces, 68, 2, generator=generator) * side
        points[2:] = torch.nan  # the third face's are unknown
        return images, points

    def expected(self, *inputs: Tensor) -> list[np.ndarray]:
        columns = self.estimator.predict(*inputs)
        found = []
        for port in self.outputs:
            task = self._classes(port.name) if port.name in self.wanted else None
            words = [] if task is None else [columns[f"{port.name}_{word}"] for word in task.classes]
            found.append(np.stack(words, axis=1) if words else columns[port.name])
        return found

    def _classes(self, name: str) -> CategoricalTask | None:
        task = self.estimator.task(name)
        return task if isinstance(task, CategoricalTask) else None

    def _port(self, name: str, output: str, value: Tensor) -> Answer:
        task: Task = self.estimator.task(name)
        about, tolerance = f"what the task {name} answers", SHARE
        if isinstance(task, AgeTask):
            level = self.estimator.states.get(name, {}).get("conformal", {}).get("level", 0.9)
            about, tolerance = AGES.get(output, "years").format(level=100 * level), YEARS
        elif isinstance(task, CategoricalTask):
            about = f"probabilities of {', '.join(task.classes)}"
        elif isinstance(task, ContinuousTask):
            about = "a number in [-1, 1]"
        return Answer(output, "float32", ("batch", *value.shape[1:]), about, tolerance)


class RendererGraph(Graph):
    """An AgeTransformer for pictures of its own size, whose own age nobody tells."""

    def __init__(self, renderer: AgeTransformer) -> None:
        super().__init__()
        self.renderer = renderer.eval()
        side = renderer.input_size
        youngest, oldest = renderer.ages
        about = f"years to show each face at, {MIN_AGE} to {MAX_AGE}; it has seen {youngest:g} to {oldest:g}"
        self.inputs = (_images(side), Port("ages", "float32", ("batch", "ages"), about))
        shape = ("batch", "ages", 3, side, side)
        self.outputs = (Answer("pictures", "float32", shape, "RGB in [0, 1], a picture an age", BRIGHTNESS),)
        crop = Crop(renderer.crop.template, renderer.crop.margin, side)
        self.facts = {
            "model": renderer.name,
            "kind": "age_transformer",
            "weights_sha256": renderer_hash(renderer),
            "classes": {},
            "crop": crop.to_dict(),
            "terms": renderer.card.get("terms", ""),
        }

    def forward(self, images: Tensor, ages: Tensor) -> tuple[Tensor, ...]:
        # At the working size that is what `render` gives.
        return (laid_over(as_float(images), self.renderer.shown(images, ages)).clamp(0, 1),)

    def sample(self, faces: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        # Another number of ages than of faces, lest one be taken for the other.
        ages = torch.rand(faces, faces + 2, generator=generator) * (MAX_AGE - MIN_AGE) + MIN_AGE
        return _pictures(faces, self.renderer.input_size, generator), ages

    def expected(self, *inputs: Tensor) -> list[np.ndarray]:
        with torch.inference_mode():
            return [self.renderer.render(*inputs).numpy()]


@dataclass(frozen=True)
class Exported:
    """A file that was written: its size in bytes, its ports, and how far each output was from the network's."""

    path: Path
    bytes: int
    facts: dict[str, Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Answer, ...]
    differences: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain words, each output with its `difference`."""
        outputs = [asdict(port) | {"difference": self.differences[port.name]} for port in self.outputs]
        inputs = [asdict(port) for port in self.inputs]
        return {"path": self.path, "bytes": self.bytes, **self.facts, "inputs": inputs, "outputs": outputs}


def export(model: str | Path | None, path: str | Path, tasks: Sequence[str] | None = None) -> Exported:
    """Write the graph of `graph_of` to `path`, as `write_onnx` does.

    Raises:
        MienError: one of them refuses.
    """
    check_place(Path(path))
    return write_onnx(graph_of(model, tasks), path)


def graph_of(model: str | Path | None, tasks: Sequence[str] | None = None) -> Graph:
    """A run's best, a checkpoint or a shipped model (None: the default one) as a file would hold it.

    Raises:
        MienError: there is no such model, it is of a kind that is not exported, or has not learnt one of `tasks`.
    """
    if kind_of(model, "estimator", "age_transformer") == "estimator":
        return EstimatorGraph(load_estimator(model), tasks)
    if tasks is not None:
        raise MienError(f"{model} is a renderer, which has no tasks; leave them out")
    renderer = load_renderer(model)
    assert isinstance(renderer, AgeTransformer)
    return RendererGraph(renderer)


def check_place(path: Path) -> None:
    """Refuse a place that no file can be written to, or the lack of what writes it, before any work is done.

    Raises:
        MienError: the ending is not .onnx, a folder is there, or the extra `export` is not installed.
    """
    if path.suffix != ".onnx":
        raise MienError(f"{path}: an exported network ends in .onnx; write to {path.with_suffix('.onnx')}")
    if path.is_dir():
        raise MienError(f"{path}: a folder is there; name a file, such as {path / 'model.onnx'}")
    for module in ("onnx", "onnxscript", "onnxruntime"):
        need(module, "export")


def write_onnx(graph: Graph, path: str | Path) -> Exported:
    """Write `graph` to `path`, once it has been seen to answer as the network does.

    Raises:
        MienError: the place cannot be written to, the extra `export` is missing, the network does what ONNX has no
            words for, or the file answers otherwise.
    """
    path = Path(path)
    check_place(path)
    import onnx

    facts = graph.facts | {"mien_version": version("mien")}
    proto = _traced(graph)
    sides = {"inputs": graph.inputs, "outputs": graph.outputs}
    told = facts | {side: {port.name: str(port) for port in ports} for side, ports in sides.items()}
    told = {key: value if isinstance(value, str) else to_json(value, None) for key, value in told.items()}
    onnx.helper.set_model_props(proto, told)
    with whole(path) as beside:
        onnx.save(proto, str(beside))
        differences = _differences(graph, beside)
        for port in graph.outputs:
            if not differences[port.name] <= port.tolerance:  # NaN fails too
                raise MienError(
                    f"{path}: was not written, for its {port.name} would be {differences[port.name]:.3g} from what "
                    f"{facts['model']} says, more than {port.tolerance:g}; try other versions of torch and onnxscript"
                )
    return Exported(path, path.stat().st_size, facts, graph.inputs, graph.outputs, differences)


def _traced(graph: Graph) -> Any:
    """The graph as ONNX's ModelProto, without a word on where and by what code it was made."""
    from torch.onnx.errors import OnnxExporterError

    size = sum(weights.nbytes for weights in graph.state_dict().values())
    if size >= TOO_MUCH:
        raise MienError(f"{graph.facts['model']}: {size / 1e9:.1f} GB of weights; one file of ONNX holds 2 GB at most")
    # A batch of one is taken for a constant by some networks.
    examples = graph.sample(2, torch.Generator())
    axes = [{place: name for place, name in enumerate(port.shape) if isinstance(name, str)} for port in graph.inputs]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                examples,
                input_names=[port.name for port in graph.inputs],
                output_names=[port.name for port in graph.outputs],
                dynamic_shapes=tuple(axes),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise MienError(f"{graph.facts['model']} cannot be written as ONNX: {reason}; take another backbone") from error
    assert program is not None
    proto = program.model_proto
    made = proto.graph
    for part in (proto, made, *made.node, *made.initializer, *made.value_info, *made.input, *made.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value, port in zip((*made.input, *made.output), (*graph.inputs, *graph.outputs), strict=True):
        value.doc_string = port.about
    return proto


def _differences(graph: Graph, path: Path) -> dict[str, float]:
    """How far a file's answers are from the network's at most, by output, on random faces."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    found = {port.name: 0.0 for port in graph.outputs}
    for faces in BATCHES:
        inputs = graph.sample(faces, generator)
        given = {port.name: value.numpy() for port, value in zip(graph.inputs, inputs, strict=True)}
        answers = session.run([port.name for port in graph.outputs], given)
        for port, answer, expected in zip(graph.outputs, answers, graph.expected(*inputs), strict=True):
            apart = float(np.abs(answer - expected).max()) if answer.shape == expected.shape else np.nan
            found[port.name] = float(np.maximum(found[port.name], apart))  # NaN stays
    return found


def _images(side: int) -> Port:
    return Port("images", "uint8", ("batch", 3, side, side), "RGB face crops, 0 to 255")


def _pictures(faces: int, side: int, generator: torch.Generator) -> Tensor:
    """Random pictures (faces, 3, side, side) uint8, smooth as a face is."""
    coarse = torch.rand(faces, 3, 8, 8, generator=generator)
    return (F.interpolate(coarse, (side, side), mode="bilinear") * 255).to(torch.uint8)
