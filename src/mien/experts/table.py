"""The experts of a mixture, as a YAML file lists them; names become objects here and nowhere else.

experts:
  - {kind: ours, model: runs/a}
  - {kind: dex, name: resnet, architecture: resnet50, weights: dex.safetensors, pixels: caffe, terms: research only}
  - {kind: mivolo, weights: mivolo_v2}             # folders as the Hugging Face hub gives them
  - {kind: vlm, name: janus, weights: Janus-Pro-1B, precision: bfloat16}
  - {kind: onnx, weights: age.onnx, pixels: {scale: 255}}   # any other network, from its ONNX file
fusion: fusion.json        # what `mien relabel --fit` wrote; or mean, median, winsorised
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mien.errors import MienError, unknown
from mien.experts.base import Expert
from mien.experts.methods import METHODS
from mien.experts.pixels import PIXELS, Pixels

#: What a name may be: it heads columns.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class OursSettings(BaseModel):
    """An estimator of ours: a run, a checkpoint or a shipped model."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["ours"]
    name: str = Field(default="", pattern=NAME, validate_default=False)
    model: str

    def place(self) -> str:
        return self.model

    def build(self, device: str) -> Expert:
        from mien.experts.ours import Ours

        return Ours(self.model, self.name, device)

    def hash(self) -> str:
        """sha256 of the weights and what decoding uses."""
        from mien.models.checkpoint import load_estimator
        from mien.models.estimator import weights_hash

        return weights_hash(load_estimator(self.model))


class DexSettings(BaseModel):
    """A ResNet50 or VGG16 over the ages 0-100; `pixels`: see `experts/dex.py`, a wrong one costs years."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["dex"]
    name: str = Field(default="", pattern=NAME, validate_default=False)
    architecture: Literal["resnet50", "vgg16"]
    weights: str
    pixels: Literal["torchvision", "caffe", "vggface"] = "torchvision"
    terms: str = "those of the file"

    def place(self) -> str:
        return self.weights

    def build(self, device: str) -> Expert:
        from mien.experts.dex import Dex

        return Dex(self.architecture, self.weights, self.pixels, self.name, self.terms, device)

    def hash(self) -> str:
        """sha256 of the file."""
        return content(Path(self.weights))


class MiVoloSettings(BaseModel):
    """A MiVOLO from its folder; `views`: how often it looks at a face, the spread of which is its confidence."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["mivolo"]
    name: str = Field(default="", pattern=NAME, validate_default=False)
    weights: str
    views: int = Field(default=4, ge=1, le=4)
    terms: str = ""

    def place(self) -> str:
        return self.weights

    def build(self, device: str) -> Expert:
        from mien.experts.mivolo import MiVolo

        return MiVolo(self.weights, self.name, self.views, self.terms, device)

    def hash(self) -> str:
        """sha256 of the folder's files."""
        return content(Path(self.weights))


class VlmSettings(BaseModel):
    """An image-text model of transformers' from its folder; `samples` and `least`: see `experts/vlm.py`."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["vlm"]
    name: str = Field(default="", pattern=NAME, validate_default=False)
    weights: str
    question: str = Field(default="", description="What it is asked; a question of its own if empty.")
    samples: int = Field(default=0, ge=0)
    least: float = Field(default=0.1, ge=0, le=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    terms: str = ""

    def place(self) -> str:
        return self.weights

    def build(self, device: str) -> Expert:
        from mien.experts.vlm import QUESTION, Vlm

        question = self.question or QUESTION
        return Vlm(self.weights, self.name, question, self.samples, self.least, self.terms, self.precision, device)

    def hash(self) -> str:
        """sha256 of the folder's files."""
        return content(Path(self.weights))


class OnnxSettings(BaseModel):
    """Any network that tells ages, from its ONNX file; what its pictures and its output are: see `experts/onnx.py`."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["onnx"]
    name: str = Field(default="", pattern=NAME, validate_default=False)
    weights: str
    output: str = ""
    ages: list[float] = []
    column: int | None = Field(default=None, ge=0)
    years: float = Field(default=1.0, gt=0)
    pixels: Literal["torchvision", "caffe", "vggface"] | Pixels = Pixels()
    cut: float = Field(default=0.0, ge=0, lt=0.5)
    size: int | None = Field(default=None, ge=8, le=1024)
    terms: str = "those of the file"

    def place(self) -> str:
        return self.weights

    def build(self, device: str) -> Expert:
        from mien.experts.onnx import Onnx

        told = self.model_dump(include={"name", "output", "ages", "column", "years", "cut", "size", "terms"})
        pixels = PIXELS[self.pixels] if isinstance(self.pixels, str) else self.pixels
        return Onnx(self.weights, pixels=pixels, **told)

    def hash(self) -> str:
        """sha256 of the file, and of those beside it that hold its weights."""
        from mien.experts.onnx import beside

        parts = [content(path) for path in (Path(self.weights), *beside(Path(self.weights)))]
        return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()


ExpertSettings = Annotated[
    OursSettings | DexSettings | MiVoloSettings | VlmSettings | OnnxSettings, Field(discriminator="kind")
]


class Experts(BaseModel):
    """Who is asked, in the order of the columns, and how their answers become one."""

    model_config = ConfigDict(extra="forbid")

    experts: list[ExpertSettings] = Field(min_length=1)
    fusion: str = "mean"

    def names(self) -> list[str]:
        return [expert.name for expert in self.experts]


def load_experts(file: str | Path) -> Experts:
    """Read and check `file`; paths in it are relative to its folder, and every expert has a name of its own.

    Raises:
        MienError: no such file, an unknown kind or setting, a file that is not there, two experts of one name.
    """
    path = Path(file)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MienError(f"{path}: no such file; it lists the experts, docs/curate.md shows one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MienError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise MienError(f"{path}: expected a table with the key experts, this is {type(values).__name__}")
    try:
        experts = Experts.model_validate(values)
    except ValidationError as error:
        raise MienError(f"{path}: " + "; ".join(dict.fromkeys(_fault(dict(one)) for one in error.errors()))) from None
    for expert in experts.experts:
        field = "model" if isinstance(expert, OursSettings) else "weights"
        setattr(expert, field, _beside(path.parent, expert.place()))
        if field == "weights" and not Path(expert.place()).exists():
            raise MienError(f"{path}: {expert.kind} {expert.name or ''}: {expert.place()} is not there; name its file")
        place = Path(expert.place())
        expert.name = expert.name or (place.name if place.is_dir() else place.stem)
    names = experts.names()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MienError(f"{path}: two experts are called {twice[0]!r}; give each a name: of its own")
    if experts.fusion not in METHODS:
        experts.fusion = _beside(path.parent, experts.fusion)
        if not Path(experts.fusion).is_file():
            raise MienError(
                f"{path}: fusion {experts.fusion!r} is neither a file nor one of {', '.join(METHODS)}; "
                "`mien relabel --fit` writes such a file"
            )
    return experts


def content(path: Path) -> str:
    """sha256 of a file, or of all files of a folder by name.

    Raises:
        MienError: there is nothing.
    """
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    if not files:
        raise MienError(f"{path}: no such file or folder")
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            digest.update(f"{file.relative_to(path) if file != path else ''}\0".encode())
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _beside(folder: Path, value: str) -> str:
    """`value` as a path from `folder` if something is there, else as it is: a shipped name, or an absolute path."""
    return str(folder / value) if (folder / value).exists() else value


def _fault(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {place}"
    if error["type"] == "union_tag_invalid":
        kinds = [one.strip(" '") for one in error["ctx"]["expected_tags"].split(",")]
        return str(unknown("kind", error["ctx"]["tag"], kinds, place))
    if error["type"] == "union_tag_not_found":
        return f"{place}: no kind; say what expert it is, such as kind: ours"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}"
