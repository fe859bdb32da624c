"""MiVOLO as an expert, from the folder that the Hugging Face hub gives (`iitolstykh/mivolo_v2` and its like).

Only `config.json` and `model.safetensors` are read: the published modelling code is not run, `models.mivolo` has the
same layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mien.errors import MienError
from mien.experts.base import Answers
from mien.experts.pixels import view
from mien.models import hub
from mien.models.backbone import read_weights
from mien.models.mivolo import HALF, PATCH, build_mivolo

#: Mean and deviation of the colours it learnt from, RGB in [0, 1]: ImageNet's.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: How a picture is looked at several times: mirrored or not, the share of its sides that is kept, about the middle.
VIEWS = ((False, 1.0), (True, 1.0), (False, 0.9), (True, 0.9))
#: Faces in one pass: at 384 px the attention over 48 x 48 patches of one face takes 20 MB.
AT_ONCE = 16


class MiVolo:
    """A MiVOLO from its folder, with its body input empty unless bodies are given.

    It puts out one number, so it does not know how sure it is. Its age is the mean over some views of the face
    (mirrored, a little nearer), its confidence minus their standard deviation; with one view it has none. How far off
    it is that does not tell, so it gives no variance.

    Args:
        folder: with `config.json` and `model.safetensors`.
        views: how many of `VIEWS` it takes; as many times the work.

    Raises:
        MienError: a file is missing, damaged, or of another network; the message says which tensor.
    """

    def __init__(
        self, folder: str | Path, name: str | None = None, views: int = len(VIEWS), terms: str = "", device: str = "cpu"
    ) -> None:
        folder = Path(folder)
        config = hub.configuration(folder)
        missing = [key for key in ("model_name", "min_age", "max_age", "avg_age") if key not in config]
        if missing:
            raise MienError(f"{folder / 'config.json'}: {', '.join(missing)} missing; it is none of a MiVOLO")
        state = {
            key.removeprefix("mivolo.").removeprefix("model."): value
            for key, value in read_weights(folder / "model.safetensors").items()
        }
        self.name = name or folder.name
        self.terms = hub.terms(folder, terms)
        self.device = device
        self.views = VIEWS[:views]
        self.range, self.middle = float(config["max_age"]) - float(config["min_age"]), float(config["avg_age"])
        self.bodies = "patch_embed.conv1.0.weight" in state
        places, head = state.get("pos_embed"), state.get("head.bias")
        if places is None or head is None:
            raise MienError(f"{folder}: pos_embed or head.bias missing; these are no weights of a MiVOLO")
        self.size = places.shape[1] * PATCH * HALF
        self.network = build_mivolo(str(config["model_name"]), self.size, len(head), self.bodies)
        own = self.network.state_dict()
        wrong = [key for key in own if key not in state or state[key].shape != own[key].shape]
        if wrong:
            there = tuple(state[wrong[0]].shape) if wrong[0] in state else "missing"
            raise MienError(
                f"{folder}: not the weights of {config['model_name']}: {wrong[0]} is {there}, expected "
                f"{tuple(own[wrong[0]].shape)}; {len(wrong)} of {len(own)} tensors do not fit"
            )
        self.network.load_state_dict({key: state[key].to(own[key].dtype) for key in own})
        self.network.eval().to(device)

    @torch.inference_mode()
    def ask(self, images: Sequence[np.ndarray], bodies: Sequence[np.ndarray | None] | None = None) -> Answers:
        """See `Expert.ask`; `bodies` are crops of the whole person, one a face, None where there is none.

        Raises:
            MienError: bodies for a network that looks at faces alone.
        """
        if bodies is not None and not self.bodies:
            raise MienError(f"expert {self.name} looks at faces alone; give no bodies")
        said = np.concatenate(
            [
                self._seen(images[first : first + AT_ONCE], bodies and bodies[first : first + AT_ONCE])
                for first in range(0, len(images), AT_ONCE)
            ],
            axis=1,
        )
        spread = said.std(axis=0) if len(self.views) > 1 else np.full(len(images), np.nan)
        return Answers(said.mean(axis=0), -spread, np.full(len(images), np.nan))

    def _seen(self, faces: Sequence[np.ndarray], bodies: Sequence[np.ndarray | None] | None) -> np.ndarray:
        """The ages of some faces in each view, (V, N)."""
        ages = []
        for mirrored, share in self.views:
            batch = self._prepared([view(face, mirrored, share) for face in faces])
            if self.bodies:
                seen = [None if body is None else view(body, mirrored, 1.0) for body in bodies or [None] * len(faces)]
                batch = torch.cat([batch, self._prepared(seen)], dim=1)
            # The age is the last output; genders, where they are there, come first.
            ages.append(self.network(batch)[:, -1].cpu().double().numpy() * self.range + self.middle)
        return np.stack(ages)

    def _prepared(self, images: Sequence[np.ndarray | None]) -> Tensor:
        """As it was trained: letterboxed, a missing picture black, colours standardised."""
        black = np.zeros((3, self.size, self.size), dtype=np.uint8)
        boxed = [black if image is None else letterbox(image, self.size) for image in images]
        x = torch.from_numpy(np.stack(boxed)).to(self.device).float() / 255
        mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (x - mean) / std


def letterbox(image: np.ndarray, size: int) -> np.ndarray:
    """A picture (3, H, W) uint8 as large as it goes in the middle of a black square (3, size, size)."""
    height, width = image.shape[1:]
    scale = size / max(height, width)
    high, wide = max(round(height * scale), 1), max(round(width * scale), 1)
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    boxed = np.zeros((3, size, size), dtype=np.uint8)
    top, left = (size - high) // 2, (size - wide) // 2
    resized = np.asarray(picture.resize((wide, high), Image.Resampling.BILINEAR))
    boxed[:, top : top + high, left : left + wide] = resized.transpose(2, 0, 1)
    return boxed
