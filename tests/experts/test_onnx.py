"""Networks of others from their ONNX files: every layout of input and output, what is refused, mien's own export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mien.errors import MienError
from mien.experts.onnx import Onnx, beside
from mien.experts.pixels import PIXELS, Pixels
from mien.experts.table import OnnxSettings

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def written(
    path: Path,
    weight: np.ndarray,
    bias: Sequence[float],
    layout: str = "nchw",
    kind: int = FLOAT,
    batch: int | str = "n",
    side: int | str = 8,
    last: str = "",
) -> Path:
    """A network: the mean colour (3) of a picture times `weight` (3, K) plus `bias` (K), and `last` on top."""
    shape = [batch, 3, side, side] if layout == "nchw" else [batch, side, side, 3]
    colours = [2, 3] if layout == "nchw" else [1, 2]
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum" if last else "age"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["sum"], ["age"]))
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["mean"], ["colour"])],
        "tiny",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in ("age", "colour")],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], colours),
            numpy_helper.from_array(weight.astype(np.float32), "weight"),
            numpy_helper.from_array(np.array(bias, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def faces(*colours: tuple[int, int, int]) -> list[np.ndarray]:
    return [np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, 20, 20)).copy() for colour in colours]


RED, BLUE = (200, 10, 0), (0, 10, 200)
#: Logits over 60 years that lean to the young for red, to the old for blue.
LEANING = np.stack([np.linspace(1, -1, 60), np.zeros(60), np.linspace(-1, 1, 60)])


def expected(colour: Sequence[float], ages: np.ndarray) -> tuple[float, float]:
    logits = np.asarray(colour) @ LEANING
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    mean = float(shares @ ages)
    return mean, float(shares @ (ages - mean) ** 2)


@pytest.mark.parametrize("last", ["", "Softmax"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_distribution_by_logits_or_probabilities(tmp_path: Path, last: str, layout: str) -> None:
    file = written(tmp_path / "age.onnx", LEANING, [0.0] * 60, layout, last=last)
    answers = Onnx(file, output="age").ask(faces(RED, BLUE))
    for place, colour in enumerate((RED, BLUE)):
        age, variance = expected(np.array(colour) / 255, np.arange(60.0))
        assert answers.ages[place] == pytest.approx(age, rel=1e-5)
        assert answers.variances[place] == pytest.approx(variance, rel=1e-4)
        assert answers.confidences[place] == pytest.approx(-(variance**0.5), rel=1e-4)


def test_columns_may_stand_for_other_ages(tmp_path: Path) -> None:
    file = written(tmp_path / "age.onnx", LEANING[:, [0, 30, 59]], [0.0] * 3, last="Softmax")
    answers = Onnx(file, output="age", ages=[1, 30.5, 70]).ask(faces(BLUE))
    logits = np.array(BLUE) / 255 @ LEANING[:, [0, 30, 59]]
    shares = np.exp(logits) / np.exp(logits).sum()
    assert answers.ages == pytest.approx([shares @ [1, 30.5, 70]], rel=1e-5)


def test_one_number_of_several_and_the_order_of_colours(tmp_path: Path) -> None:
    weight = np.zeros((3, 3))
    weight[0, 2] = 1  # the third column is the first colour
    file = written(tmp_path / "age.onnx", weight, [5, 6, 0.25])
    told = {"output": "age", "column": 2, "years": 100.0}
    assert Onnx(file, **told).ask(faces(RED)).ages == pytest.approx([100 * (200 / 255 + 0.25)], rel=1e-5)
    answers = Onnx(file, **told, pixels=Pixels("bgr")).ask(faces(RED))
    assert answers.ages == pytest.approx([25.0], rel=1e-5)
    assert np.isnan(answers.confidences).all()
    assert np.isnan(answers.variances).all()
    # One column needs no name; Caffe's pictures are 0-255, less a mean.
    alone = written(tmp_path / "one.onnx", np.array([[1.0], [0], [0]]), [0.0])
    assert Onnx(alone, output="age", pixels=PIXELS["caffe"]).ask(faces(BLUE)).ages == pytest.approx([200 - 103.939])


def test_uint8_pictures_go_in_as_they_are(tmp_path: Path) -> None:
    file = written(tmp_path / "age.onnx", np.array([[0.5], [0], [0]]), [1.0], kind=UINT8)
    # Pixels say nothing of a network that takes them itself.
    assert Onnx(file, output="age", pixels=PIXELS["caffe"]).ask(faces(RED)).ages == pytest.approx([101.0])


def test_a_fixed_batch_answers_any_number(tmp_path: Path) -> None:
    file = written(tmp_path / "age.onnx", np.array([[255.0], [0], [0]]), [0.0], batch=2)
    shades = [(shade, 0, 0) for shade in (10, 20, 30, 40, 50)]
    assert Onnx(file, output="age").ask(faces(*shades)).ages == pytest.approx([10, 20, 30, 40, 50])


@pytest.mark.parametrize(("batch", "shape"), [(1, [60]), (1, [1, 60]), (2, [120])])
def test_an_output_without_a_batch_is_one_faces_or_refused(tmp_path: Path, batch: int, shape: list[int]) -> None:
    file = written(tmp_path / "age.onnx", LEANING, [0.0] * 60, batch=batch)
    model = onnx.load(file)
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [len(shape)], shape))
    model.graph.node[3].output[0] = "unshaped"
    model.graph.node.insert(4, helper.make_node("Reshape", ["unshaped", "shape"], ["age"]))
    onnx.save(model, file)
    if batch == 2:
        with pytest.raises(MienError, match=r"age is \(120,\) for 2 pictures; one row each"):
            Onnx(file, output="age")
        return
    said = Onnx(file, output="age").ask(faces(RED, BLUE))
    ages = [expected(np.array(colour) / 255, np.arange(60.0))[0] for colour in (RED, BLUE)]
    assert said.ages == pytest.approx(ages, rel=1e-5)


def test_a_size_that_the_network_cannot_take_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "age.onnx", np.array([[255.0], [0], [0]]), [0.0], side="s")
    model = onnx.load(file)
    # Only pictures of 8 px have so many numbers.
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 3, 8, 8]))
    model.graph.node[0].output[0] = "cast"
    model.graph.node.insert(1, helper.make_node("Reshape", ["cast", "shape"], ["x"]))
    onnx.save(model, file)
    assert Onnx(file, output="age", size=8).ask(faces(RED)).ages == pytest.approx([200])
    with pytest.raises(MienError, match=r"age\.onnx: cannot be run on \(2, 3, 9, 9\)"):
        Onnx(file, output="age", size=9)


def test_weights_that_lie_beside_the_file_are_told_apart(tmp_path: Path) -> None:
    seen = set()
    for offset in (0.0, 50.0):
        file = written(tmp_path / "age.onnx", np.zeros((3, 1)), [offset])
        alone = OnnxSettings(kind="onnx", weights=str(file), output="age").hash()
        (tmp_path / "age.onnx.data").unlink(missing_ok=True)
        onnx.save(onnx.load(file), file, save_as_external_data=True, location="age.onnx.data", size_threshold=0)
        assert beside(file) == [tmp_path / "age.onnx.data"]
        settings = OnnxSettings(kind="onnx", weights=str(file), output="age")
        assert settings.build("cpu").ask(faces(RED)).ages == pytest.approx([offset])
        seen |= {alone, settings.hash()}
    assert len(seen) == 4


def test_edges_are_cut_off_and_open_sizes_told(tmp_path: Path) -> None:
    file = written(tmp_path / "age.onnx", np.array([[255.0], [0], [0]]), [0.0], side="s")
    image = np.zeros((3, 20, 20), np.uint8)
    image[:, 4:16, 4:16] = 80
    assert Onnx(file, output="age", size=10, cut=0.2).ask([image]).ages == pytest.approx([80])
    assert Onnx(file, output="age", size=20).ask([image]).ages == pytest.approx([80 * 0.36])
    with pytest.raises(MienError, match="takes pictures of any size; expected squares, set size:"):
        Onnx(file, output="age")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "has the outputs age, colour; say with output: which tells the age"),
        ({"output": "years"}, "unknown output 'years'"),
        ({"output": "age"}, "age has 7 columns, too few for the years 0 to 6; say what they are"),
        ({"output": "age", "ages": [1, 2]}, "2 ages for the 7 columns of age"),
        ({"output": "age", "column": 7}, "age has 7 columns: name one of them, 0 to 6"),
        ({"output": "age", "column": 1, "ages": range(7)}, "or the ages of all, not both"),
        ({"output": "age", "column": 1, "size": 9}, "takes pictures of 8 and 9 px"),
        ({"output": "age", "ages": range(7), "years": 10.0}, "years: 10 is for networks that give a number"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, told: dict[str, object], message: str) -> None:
    file = written(tmp_path / "age.onnx", np.ones((3, 7)), [0.0] * 7)
    with pytest.raises(MienError, match=message):
        Onnx(file, **told)  # type: ignore[arg-type]


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "age.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(MienError, match=r"age\.onnx: no ONNX file that can be run"):
        Onnx(tmp_path / "age.onnx")
    value = helper.make_tensor_value_info("x", FLOAT, ["n", 10])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "no", [value], [
        helper.make_tensor_value_info("y", FLOAT, ["n", 10])
    ])  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "n.onnx")
    with pytest.raises(MienError, match=r"takes x \['n', 10\]; expected one input"):
        Onnx(tmp_path / "n.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MienError, match=r"onnxruntime is not installed.*\[export\]"):
        Onnx(tmp_path / "n.onnx")
