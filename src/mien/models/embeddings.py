"""Captions as vectors: what a renderer reads of them, from a file beside their cache where there is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mien.errors import MienError
from mien.files import file_hash, whole
from mien.models.language import Language, read_captions, stripping

#: Ending of the file beside a cache.
ENDING = ".safetensors"
ABOUT = "about"


def save_embeddings(cache: str | Path, language: Language) -> Path:
    """Embed the captions of a cache, words that tell an age taken out, into a file beside it; returns that file.

    It holds `keys` (N, 32) uint8, the sha256 of each picture; `text` (N,) int64, which of the different texts is its;
    `tokens` (T, L, W) and `sentences` (T, E) float32 of those texts; and which language and cache they are of.
    """
    from safetensors.torch import save_file

    captions = read_captions(cache)
    texts = sorted(set(captions.values()))
    place = {text: number for number, text in enumerate(texts)}
    try:
        keys = torch.tensor([list(bytes.fromhex(key)) for key in captions], dtype=torch.uint8)
    except ValueError:
        raise MienError(f"{cache}: a key in it is no sha256 of 64 hex digits") from None
    tensors = {
        "keys": keys,
        "text": torch.tensor([place[text] for text in captions.values()], dtype=torch.int64),
        "tokens": language.tokens(texts).contiguous(),
        "sentences": language.texts(texts).contiguous(),
    }
    path = Path(cache).with_suffix(ENDING)
    with whole(path) as beside:
        save_file(tensors, beside, metadata={ABOUT: json.dumps(_about(cache, language), sort_keys=True)})
    return path


def caption_tokens(cache: str | Path, keys: Sequence[str], language: Language) -> Tensor:
    """The tokens of the captions of pictures by their sha256 in hex, (N, L, W) float32; NaN without a caption.

    They are read from beside the cache if they were made of it by this language, else made.
    """
    from safetensors import safe_open

    path = Path(cache).with_suffix(ENDING)
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            if json.loads((file.metadata() or {}).get(ABOUT, "{}")) == _about(cache, language):
                rows = {bytes(key).hex(): row for row, key in enumerate(file.get_tensor("keys").tolist())}
                tokens, text = file.get_tensor("tokens"), file.get_tensor("text")
                found = torch.full((len(keys), *tokens.shape[1:]), torch.nan)
                known = [(place, rows[key]) for place, key in enumerate(keys) if key in rows]
                if known:
                    places, there = (torch.tensor(one) for one in zip(*known, strict=True))
                    found[places] = tokens[text[there]]
                return found
    captions = read_captions(cache)
    wanted = [captions.get(key, "") for key in keys]
    texts = sorted(set(wanted))
    place = {text: number for number, text in enumerate(texts)}
    return language.tokens(texts)[torch.tensor([place[text] for text in wanted], dtype=torch.int64)]


def _about(cache: str | Path, language: Language) -> dict[str, str]:
    return {"captions": file_hash(cache), "stripping": stripping(), "language": language.hash()}
