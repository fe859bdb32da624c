"""Any network that tells ages, from its ONNX file: other people's mostly come so, whatever they were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mien.data.pictures import resize
from mien.errors import MienError, need, unknown
from mien.experts.base import Answers
from mien.experts.pixels import Pixels, prepared, view

#: Columns from which on an output that names no ages is taken for a distribution over the years 0, 1, 2 ...
LEAST = 50
#: Pictures that the network sees at once.
AT_ONCE = 64


class Onnx:
    """A network that onnxruntime runs, on the processor.

    Its input is one batch of pictures, (B, 3, S, S) or (B, S, S, 3), float or uint8 (then 0-255 RGB). Its output is a
    distribution over ages (B, K), by probabilities or logits, or one number a face. Of a distribution the age is the
    expectation, minus its standard deviation the confidence; a number comes without.

    Args:
        weights: the file.
        output: which of its outputs tells the age; need not be told of a file with one.
        ages: the ages that the columns stand for, in years; empty: 0, 1, 2 ... for a distribution.
        column: the column that is the number; need not be told of an output of one column.
        years: how many years one of that number is.
        pixels: what its pictures were in training.
        cut: share of each side of a crop that is cut off at every edge, for networks that saw faces nearer.
        size: side of its pictures, where the file leaves it open.

    Raises:
        MienError: no ONNX file, one of another kind of network, or settings that do not fit its outputs.
    """

    def __init__(
        self,
        weights: str | Path,
        name: str = "",
        output: str = "",
        ages: Sequence[float] = (),
        column: int | None = None,
        years: float = 1.0,
        pixels: Pixels | None = None,
        cut: float = 0.0,
        size: int | None = None,
        terms: str = "those of the file",
    ) -> None:
        onnxruntime = need("onnxruntime", "export")
        self.name, self.terms, self.where = name or Path(weights).stem, terms, str(weights)
        self.pixels, self.cut, self.years = pixels or Pixels(), cut, years
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds have no common base
            raise MienError(f"{weights}: no ONNX file that can be run: {' '.join(str(error).split())}") from None
        self._read_input(size)
        outputs = [one.name for one in self.session.get_outputs()]
        if output and output not in outputs:
            raise unknown("output", output, outputs, self.where)
        if not output and len(outputs) > 1:
            raise MienError(f"{self.where} has the outputs {', '.join(outputs)}; say with output: which tells the age")
        self.output = output or outputs[0]
        self._read_output(ages, column)

    def _read_input(self, size: int | None) -> None:
        """Where the colours stand, how large pictures are, how many go at once."""
        inputs = self.session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
            found = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise MienError(f"{self.where}: takes {found}; expected one input, (B, 3, S, S) or (B, S, S, 3)")
        kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
        if inputs[0].type not in kinds:
            raise MienError(f"{self.where}: takes {inputs[0].type}, expected float or uint8")
        self.input, self.kind, self.last = inputs[0].name, kinds[inputs[0].type], shape[1] != 3
        sides = {side for side in (shape[1:3] if self.last else shape[2:]) if isinstance(side, int)}
        if size is not None:
            sides |= {size}
        if len(sides) != 1:
            told = f"pictures of {' and '.join(map(str, sorted(sides)))} px" if sides else "pictures of any size"
            raise MienError(f"{self.where}: takes {told}; expected squares, set size: where the file leaves it open")
        (self.size,) = sides
        self.fixed = isinstance(shape[0], int) and shape[0] > 0
        self.at_once = shape[0] if self.fixed else AT_ONCE

    def _read_output(self, ages: Sequence[float], column: int | None) -> None:
        """Ask it about plain pictures, and settle what its answer means."""
        grey = np.full((3, self.size, self.size), 127, dtype=np.uint8)
        said = self._run([grey, grey // 2])
        width = said.shape[1]
        self.column: int | None = column if column is not None else (0 if width == 1 and not len(ages) else None)
        if self.column is not None:
            if len(ages) or not 0 <= self.column < width:
                raise MienError(
                    f"{self.where}: {self.output} has {width} columns: name one of them, 0 to {width - 1}, or the ages "
                    "of all, not both"
                )
            return
        if not len(ages) and width < LEAST:
            raise MienError(
                f"{self.where}: {self.output} has {width} columns, too few for the years 0 to {width - 1}; say what "
                "they are, by ages: [..] (one a column) or by column: (the one that is the age)"
            )
        if self.years != 1:
            raise MienError(
                f"{self.where}: years: {self.years:g} is for networks that give a number; {self.output} has {width} "
                "columns, say with column: which is the number, or leave years out"
            )
        if len(ages) and len(ages) != width:
            raise MienError(f"{self.where}: {len(ages)} ages for the {width} columns of {self.output}; one a column")
        self.ages = np.array(ages if len(ages) else range(width), dtype=np.float64)
        self.logits = not (np.all(said >= 0) and np.allclose(said.sum(1), 1, atol=1e-3))

    def ask(self, images: Sequence[np.ndarray]) -> Answers:
        """See `Expert.ask`."""
        said = self._run([view(image, False, 1 - 2 * self.cut) for image in images])
        if self.column is not None:
            nothing = np.full(len(images), np.nan)
            return Answers(said[:, self.column] * self.years, nothing, nothing.copy())
        shares = torch.from_numpy(said).softmax(1).numpy() if self.logits else said / said.sum(1, keepdims=True)
        return Answers.expected(shares, self.ages)

    def _run(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Its output for uint8 pictures (3, H, W), as (N, K) float64."""
        batch = torch.from_numpy(np.stack([resize(image, self.size) for image in images]))
        x = batch.numpy() if self.kind is np.uint8 else prepared(batch, self.pixels).numpy()
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if self.last else x
        parts = []
        for first in range(0, len(x), self.at_once):
            part = x[first : first + self.at_once]
            # A file that takes so many and no others gets the last face again.
            full = np.concatenate([part, part[-1:].repeat(self.at_once - len(part), axis=0)]) if self.fixed else part
            try:
                (told,) = self.session.run([self.output], {self.input: full})
            except Exception as error:  # onnxruntime's own kinds have no common base
                raise MienError(
                    f"{self.where}: cannot be run on {full.shape}: {' '.join(str(error).split())}"
                ) from None
            if len(full) == 1:  # some leave out the dimension of the batch
                told = np.reshape(told, (1, -1))
            if told.shape[:1] != (len(full),):
                raise MienError(f"{self.where}: {self.output} is {told.shape} for {len(full)} pictures; one row each")
            parts.append(told.reshape(len(full), -1)[: len(part)])
        return np.concatenate(parts).astype(np.float64)


def beside(file: Path) -> list[Path]:
    """The files in which an ONNX file keeps weights that it does not hold itself; none where it is no ONNX file."""
    onnx = need("onnx", "export")
    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except Exception:  # protobuf's own; whoever opens it will say so
        return []
    tensors = [*graph.initializer, *(attribute.t for node in graph.node for attribute in node.attribute)]
    names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return [file.parent / name for name in sorted(names)]
