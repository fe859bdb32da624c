"""Image-text models of transformers' (Janus-Pro, LLaVA, SmolVLM ...), from a folder as the Hugging Face hub gives it.

Nothing is fetched and no code of the folder's is run: an architecture that transformers does not know is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from mien.errors import MienError, need
from mien.models import hub

#: What transformers raises about a folder that is damaged, half there or of an architecture it does not know.
FAULTS = (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError, RuntimeError, SafetensorError)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ImageText:
    """A model that reads a picture and a question, and says what word comes next.

    Args:
        folder: with `config.json`, safetensors, and the processor's files.
        precision: one of `PRECISIONS`; what the weights are computed in.

    Raises:
        MienError: transformers is not installed, does not know the architecture, or the weights are not all there.
    """

    def __init__(self, folder: str | Path, device: str = "cpu", precision: str = "float32") -> None:
        transformers = need("transformers", "vlm")
        folder = Path(folder)
        config = hub.configuration(folder)
        where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        transformers.utils.logging.set_verbosity_error()  # its hints are for those who call it
        transformers.utils.logging.disable_progress_bar()
        try:
            self.processor = transformers.AutoProcessor.from_pretrained(folder, **where)
            self.model, loaded = transformers.AutoModelForImageTextToText.from_pretrained(
                folder, use_safetensors=True, dtype=PRECISIONS[precision], output_loading_info=True, **where
            )
        except FAULTS as error:
            raise MienError(
                f"{folder}: {config.get('model_type', 'a model without a type')} cannot be opened as an image-text "
                f"model of transformers {transformers.__version__}: {' '.join(str(error).split())[:200]}"
            ) from None
        if loaded["missing_keys"]:
            raise MienError(
                f"{folder}: {len(loaded['missing_keys'])} tensors are missing from its weights, "
                f"{min(loaded['missing_keys'])} among them; get all of its files"
            )
        self.folder = folder
        self.device = device
        self.model.eval().to(device)
        self.tokenizer = self.processor.tokenizer
        # Padded on the left, so that every row ends where its answer begins.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._last = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def inputs(self, images: Sequence[np.ndarray], question: str) -> dict[str, Tensor]:
        """What the model takes for one question about each of some pictures (3, H, W) uint8, up to its answer."""
        pictures = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
        if getattr(self.processor, "chat_template", None):
            talks = [
                [
                    {
                        "role": "user",
                        "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}],
                    }
                ]
                for picture in pictures
            ]
            batch = self.processor.apply_chat_template(
                talks,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        else:  # a model that only goes on with a text
            mark = getattr(self.processor, "image_token", None) or ""
            text = f"{mark}Question: {question} Answer:"
            batch = self.processor(
                text=[text] * len(pictures), images=[[one] for one in pictures], return_tensors="pt", padding=True
            )
        kind = self.model.dtype
        return {
            key: value.to(self.device, kind if value.is_floating_point() else None)
            for key, value in batch.items()
            if isinstance(value, Tensor)
        }

    @torch.inference_mode()
    def shares(self, images: Sequence[np.ndarray], question: str, tails: Sequence[Sequence[int]]) -> Tensor:
        """The probability of each token (N, V), float64, after the question about each picture and a beginning of the
        answer; `tails` are those beginnings, one a picture, all of one length."""
        inputs = self.inputs(images, question)
        length = inputs["input_ids"].shape
        tail = torch.tensor([list(one) for one in tails], dtype=torch.long, device=self.device).view(len(images), -1)
        for key, value in inputs.items():
            if value.shape == length:  # ids, mask, kinds of token: one each
                more = tail if key == "input_ids" else torch.full_like(tail, key == "attention_mask")
                inputs[key] = torch.cat([value, more.to(value.dtype)], dim=1)
        only_last = {"logits_to_keep": 1} if self._last else {}
        logits: Tensor = self.model(**inputs, use_cache=False, **only_last).logits[:, -1]
        return logits.cpu().double().softmax(dim=1)

    @torch.inference_mode()
    def say(self, image: np.ndarray, question: str, count: int, tokens: int, seed: int) -> list[str]:
        """`count` answers drawn at random, at most `tokens` long; the same for the same seed."""
        inputs = self.inputs([image], question)
        # Of its own card alone: by default torch starts every one of the machine's.
        card = torch.device(self.device)
        with torch.random.fork_rng([card] if card.type == "cuda" else []):
            torch.manual_seed(seed)
            return self.answers(
                inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=count,
                max_new_tokens=tokens,
            )

    @torch.inference_mode()
    def answers(self, inputs: dict[str, Tensor], **options: Any) -> list[str]:
        """What `generate` says after `inputs`, without the question.

        Models differ in how much of the question they repeat: decoders all of it, BLIP all but its last token, what has
        an encoder nothing.
        """
        said: Tensor = self.model.generate(**inputs, **options)
        if not self.model.config.is_encoder_decoder:
            asked = inputs["input_ids"].repeat_interleave(len(said) // len(inputs["input_ids"]), dim=0)
            length = min(said.shape[1], asked.shape[1])
            same = (said[:, :length] == asked[:, :length]).all(dim=0)
            said = said[:, int(same.long().cumprod(0).sum()) :]
        texts: list[str] = self.tokenizer.batch_decode(said, skip_special_tokens=True)
        return texts
