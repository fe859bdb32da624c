"""What says in words what a face looks like: its labels, or an image-text model that is shown it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mien.models.image_text import ImageText
from mien.models.language import age_texts

PROMPT = (
    "Describe the person in this picture in one sentence: hair, skin, glasses, beard, clothes, expression, background. "
    "Do not mention the age."
)
#: Tokens of a caption.
LONGEST = 48
#: A race that says nothing of how someone looks.
UNTOLD = "Others"


def label_caption(age: float, gender: str | None, race: str | None, expression: str | None) -> str:
    """The labels as a caption: "photo of a 40 year old woman, Asian, happy expression"; NaN or None is left out."""
    person = {"Male": "man", "Female": "woman"}.get(gender or "", "person")
    parts = [f"photo of a {person}" if np.isnan(age) else age_texts([age], [gender])[0]]
    if race is not None and race != UNTOLD:
        parts.append(race)
    if expression is not None:
        parts.append(f"{expression.lower()} expression")
    return ", ".join(parts)


class ImageTextCaptioner:
    """An image-text model of transformers' that answers a prompt with its likeliest words.

    Raises:
        MienError: as `ImageText`.
    """

    def __init__(self, folder: str | Path, device: str = "cpu", prompt: str = PROMPT, longest: int = LONGEST) -> None:
        self.model = ImageText(folder, device)
        self.name = Path(folder).name
        self.prompt, self.longest = prompt, longest

    @torch.inference_mode()
    def describe(self, images: Sequence[np.ndarray]) -> list[str]:
        """Captions of pictures (3, H, W) uint8, each on one line."""
        inputs = self.model.inputs(images, self.prompt)
        answers = self.model.answers(inputs, do_sample=False, max_new_tokens=self.longest)
        return [" ".join(text.split()) for text in answers]
