"""Who judges renders: of age and other labels, of identity, of where the face's points are. None of them guides."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mien.data.align import require_view
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.experts.base import Expert
from mien.experts.methods import open_fusion
from mien.experts.ours import Ours
from mien.experts.table import load_experts
from mien.faces import Crop
from mien.models.backbone import Backbone, Joined
from mien.models.checkpoint import load_estimator
from mien.models.estimator import Estimator, fingerprint, weights_hash
from mien.models.identity import load_identity
from mien.models.landmarker import Landmarker, eye_distance
from mien.models.perceptual import Perceptual

#: Labels that ageing should leave as they are, as far as the judge tells them.
KEPT = ("gender", "race", "expression")


class AgeJudge(Protocol):
    """Tells the age of faces, and other labels where it can. `hash` changes when its answers would, `hashes` are those
    of the weights of every network that it asks."""

    name: str
    hash: str
    hashes: tuple[str, ...]

    def ask(self, images: Tensor) -> dict[str, np.ndarray]:
        """Uint8 faces (B, 3, H, W) to `age` (B,) float years, and some of `KEPT`, (B,) words."""
        ...

    def check(self, manifest: Manifest) -> None:
        """Refuse faces of another crop than it learnt from."""
        ...


class EstimatorJudge:
    """An estimator of ours as judge.

    Raises:
        MienError: it does not tell ages.
    """

    def __init__(self, estimator: Estimator) -> None:
        self.estimator, self.name, self.hash = estimator, estimator.name, weights_hash(estimator)
        self.hashes: tuple[str, ...] = (self.hash,)
        if "age" not in estimator.tasks:
            raise MienError(f"the judge {self.name} does not tell ages; name a model that has the task age")

    def ask(self, images: Tensor) -> dict[str, np.ndarray]:
        """See `AgeJudge.ask`."""
        said = self.estimator.predict(images)
        return {"age": said["age"].astype(np.float64)} | {name: said[name] for name in KEPT if name in said}

    def check(self, manifest: Manifest) -> None:
        """See `AgeJudge.check`."""
        require_view(
            manifest.crop, self.estimator.crop, f"for the judge {self.name}: {manifest.path or 'the manifest'}"
        )


class MixtureJudge:
    """The experts of an `experts.yaml`, their answers made one as it says. They tell the age alone.

    Raises:
        MienError: see `load_experts`.
    """

    def __init__(self, file: str | Path, device: str = "cpu") -> None:
        table = load_experts(file)
        self.name = f"{Path(file).stem} ({', '.join(table.names())})"
        fusion = Path(table.fusion)
        self.hashes = tuple(one.hash() for one in table.experts)
        # What is not in the weights changes answers too: how pictures are scaled, what is asked.
        asked = [one.model_dump_json(exclude={"name", "terms", "model", "weights"}) for one in table.experts]
        told = [*self.hashes, *asked, fusion.read_text() if fusion.is_file() else table.fusion]
        self.hash = hashlib.sha256("\0".join(told).encode()).hexdigest()
        self.experts: list[Expert] = [one.build(device) for one in table.experts]
        self.fusion = open_fusion(table.fusion, table.names(), self.hashes)

    def ask(self, images: Tensor) -> dict[str, np.ndarray]:
        """See `AgeJudge.ask`."""
        pictures = list(images.cpu().numpy())
        said = [expert.ask(pictures) for expert in self.experts]
        ages, sure, spread = (
            np.stack([getattr(one, name) for one in said], axis=1) for name in ("ages", "confidences", "variances")
        )
        fused = self.fusion(ages, sure, spread)
        return {"age": fused.age}

    def check(self, manifest: Manifest) -> None:
        """See `AgeJudge.check`."""
        for expert in self.experts:
            if isinstance(expert, Ours):
                require_view(manifest.crop, expert.estimator.crop, f"{manifest.path} for {expert.name}")


def load_judge(what: str | None, device: str = "cpu") -> AgeJudge:
    """The judge of age: a run, a checkpoint or a shipped model (None: the default one), or a YAML list of experts."""
    if what is not None and Path(what).suffix in (".yaml", ".yml"):
        return MixtureJudge(what, device)
    return EstimatorJudge(load_estimator(what, device))


class IdentityJudge:
    """Embeds faces so that the cosine of two tells whether they are one person.

    Args:
        what: a file of MobileFaceNet's weights, or a run, a checkpoint or a shipped estimator, whose features stand in.

    `perceptual` measures distances of pictures by the same network's maps; None for an estimator's features, which
    know faces of its `crop` alone.
    """

    def __init__(self, what: str | Path, device: str = "cpu") -> None:
        self.net: Backbone | Joined
        self.perceptual: Perceptual | None = None
        self.crop: Crop | None = None
        if Path(what).is_file():
            self.net, self.name = load_identity(what), f"MobileFaceNet, {Path(what).name}"
            self.perceptual = Perceptual("mobilefacenet", what).to(device)
        else:
            estimator = load_estimator(what)
            self.net, self.name = estimator.backbone.eval(), f"features of {estimator.name}"
            self.crop = estimator.crop
        self.net.to(device)
        self.hash = fingerprint(self.net, {})

    def check(self, manifest: Manifest) -> None:
        """Refuse faces of another crop than an estimator learnt from."""
        if self.crop is not None:
            require_view(manifest.crop, self.crop, f"for {self.name}: {manifest.path or 'the manifest'}")

    @torch.inference_mode()
    def embed(self, images: Tensor) -> np.ndarray:
        """Uint8 faces (B, 3, H, W) to embeddings (B, E) float32 of length 1."""
        return nn.functional.normalize(self.net(images).float(), dim=1).cpu().numpy()


class PointsJudge:
    """The landmarks of whole crops, many at once; where a landmarker is not sure, they are NaN.

    Args:
        margin: of the crops that it is shown, as a share of the plain crop's side.
    """

    def __init__(self, landmarker: Landmarker, margin: float = 0.0) -> None:
        self.landmarker, self.name, self.margin = landmarker, landmarker.name, margin
        self.hash = fingerprint(landmarker, {"margin": margin, "mirror": landmarker.settings.mirror})
        self.limit = float("inf") if landmarker.refuse is None else landmarker.refuse

    @torch.inference_mode()
    def find(self, images: Tensor) -> np.ndarray:
        """Uint8 faces (B, 3, S, S) to points (B, 68, 2) float32 in shares of the side."""
        side = images.shape[-1]
        # The landmarker expects the crop with a margin of its own around it; a negative pad cuts a wider one off.
        pad = round((self.landmarker.settings.margin - self.margin) / (1 + 2 * self.margin) * side)
        mode = "reflect" if pad > 0 else "constant"
        padded = nn.functional.pad(images.float(), [pad] * 4, mode=mode) / 255
        points, spread = self.landmarker(padded)
        error = spread.mean(dim=1) / eye_distance(points)
        points = torch.where((error <= self.limit)[:, None, None], (points - pad + 0.5) / side, torch.nan)
        found: np.ndarray = points.cpu().numpy()
        return found


class Judges:
    """All that look at a picture: age always, identity and points where there is a network for them."""

    def __init__(self, age: AgeJudge, identity: IdentityJudge | None = None, points: PointsJudge | None = None) -> None:
        self.age, self.identity, self.points = age, identity, points

    def facts(self) -> dict[str, Any]:
        """Names and hashes, for the record."""
        named = {"age": self.age, "identity": self.identity, "points": self.points}
        return {key: None if one is None else {"name": one.name, "hash": one.hash} for key, one in named.items()}

    def look(self, images: Tensor) -> dict[str, np.ndarray]:
        """What there is to say of uint8 faces (B, 3, S, S): `age`, words of `KEPT`, `embedding`, `points`."""
        # Equal pictures are looked at once, and get the very same answer: copies and mean faces are many.
        keys = [hashlib.sha256(one.tobytes()).digest() for one in images.cpu().numpy()]
        _, first, place = np.unique(np.array(keys, dtype=object), return_index=True, return_inverse=True)
        images = images[torch.from_numpy(first).to(images.device)]
        found = self.age.ask(images)
        if self.identity is not None:
            found["embedding"] = self.identity.embed(images)
        if self.points is not None:
            found["points"] = self.points.find(images)
        # Words as numpy's own strings: Python's would be stored as a pickle, which nobody should load.
        return {
            name: (values.astype(str) if values.dtype == object else values)[place] for name, values in found.items()
        }
