"""Languages that somebody learnt: CLIP and its like, or any text encoder of transformers', from a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mien.errors import MienError, need
from mien.models import hub
from mien.models.estimator import fingerprint
from mien.models.image_text import FAULTS
from mien.models.language import HashedLanguage, Language
from mien.models.renderer import as_float

#: Tokens of a text: a longer one's are averaged in as many runs.
LENGTH = 8
#: Texts read at once.
TOGETHER = 64
HASHED = HashedLanguage.name


class LearntLanguage:
    """A text encoder, and where it has one its picture encoder, as a `Language`; frozen.

    Args:
        folder: as the Hugging Face hub gives it: `config.json`, safetensors, the tokenizer's files and, of a model that
            sees pictures, its image processor's. Nothing is fetched, no code of the folder's is run.

    Raises:
        MienError: transformers is not installed or cannot open the folder as a model of texts.
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        transformers = need("transformers", "vlm")
        folder = Path(folder)
        config = hub.configuration(folder)
        where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **where)
            self.model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **where)
            self.sees = hasattr(self.model, "get_image_features")
            self._image = transformers.AutoImageProcessor.from_pretrained(folder, **where) if self.sees else None
        except FAULTS as error:
            raise MienError(
                f"{folder}: {config.get('model_type', 'a model without a type')} cannot be opened as a language of "
                f"transformers {transformers.__version__}: {' '.join(str(error).split())[:200]}"
            ) from None
        self.model.eval().requires_grad_(False).to(device)
        self.name = folder.name
        self.width = int(self.model.config.get_text_config().hidden_size)

    def hash(self) -> str:
        """sha256 of the weights."""
        return fingerprint(self.model, {"length": LENGTH})

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """See `Language.tokens`: the states of a text's tokens, averaged in at most `LENGTH` runs of equal length."""
        found = torch.full((len(texts), LENGTH, self.width), torch.nan)
        for row, states in enumerate(self._states(texts)):
            if texts[row].strip():
                runs = torch.tensor_split(states, min(LENGTH, len(states)))
                found[row, : len(runs)] = torch.stack([run.mean(dim=0) for run in runs])
        return found

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """See `Language.texts`: where it sees pictures, in the space it shares with them; else the mean state."""
        if not self.sees:
            return F.normalize(torch.stack([states.mean(dim=0) for states in self._states(texts)]), dim=1)
        parts = [_pooled(self.model.get_text_features(**inputs)).float().cpu() for inputs in self._inputs(texts)]
        return F.normalize(torch.cat(parts), dim=1)

    def images(self, images: Tensor) -> Tensor:
        """See `Language.images`.

        Raises:
            MienError: the model reads texts alone.
        """
        if self._image is None:
            raise MienError(f"language {self.name} sees no pictures; the term direction takes one that does, as CLIP")
        if self.model.device != images.device:
            self.model.to(images.device)
        side = int(self.model.config.vision_config.image_size)
        pictures = F.interpolate(as_float(images), (side, side), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (pictures.new_tensor(one).view(3, 1, 1) for one in (self._image.image_mean, self._image.image_std))
        features = _pooled(self.model.get_image_features(pixel_values=(pictures - mean) / std))
        return F.normalize(features.float(), dim=1)

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> Iterator[Tensor]:
        """The last layer's states of each text's tokens, (T, width) float32 each; of `TOGETHER` texts at a time."""
        reader = getattr(self.model, "text_model", self.model)
        for inputs in self._inputs(texts):
            states = reader(**inputs).last_hidden_state.float().cpu()
            known = inputs["attention_mask"].bool().cpu()
            yield from (one[mask] for one, mask in zip(states, known, strict=True))

    def _inputs(self, texts: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        how: dict[str, Any] = {"padding": True, "truncation": True, "return_attention_mask": True}
        for start in range(0, len(texts), TOGETHER):
            batch = self.tokenizer(list(texts[start : start + TOGETHER]), return_tensors="pt", **how)
            yield {key: value.to(self.model.device) for key, value in batch.items()}


def _pooled(output: Any) -> Tensor:
    """Transformers 5 answers with more than the features, transformers 4 with these alone."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


@lru_cache(maxsize=1)
def build_language(given: str | None, width: int | None = None, device: str = "cpu") -> Language:
    """The language of a recipe: `hashed` (None too), or a folder; loaded once, onto `device`.

    Args:
        width: what the renderer's tokens must have; None: it reads none.

    Raises:
        MienError: the folder's tokens have another.
    """
    if given in (None, HASHED):
        return HashedLanguage(width) if width else HashedLanguage()
    language = LearntLanguage(str(given), device)
    if width and width != language.width:
        raise MienError(
            f"language {given}: its tokens have {language.width} numbers, age_transformer.text is {width}; "
            f"set age_transformer.text={language.width}"
        )
    return language
