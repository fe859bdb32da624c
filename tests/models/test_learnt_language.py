"""Languages of transformers' own classes, with random weights, and the captions that they embed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from mien.errors import MienError
from mien.faces import Crop, FaceBatch
from mien.models import embeddings, learnt_language
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.embeddings import caption_tokens, save_embeddings
from mien.models.language import HashedLanguage
from mien.models.learnt_language import LENGTH, LearntLanguage, build_language
from mien.objectives.age_transformer import GENERATOR, AgeTransformerObjective
from mien.objectives.ageing_settings import AgeTransformerObjectiveSettings
from mien.objectives.coding import AGE

transformers = pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
tiny = importlib.import_module("tiny_image_text")

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = ["a hat", "a woman with grey hair and glasses before a wall", ""]


def words() -> Any:
    """A token a byte, and one that ends the text, in which CLIP gathers it."""
    made = tiny.tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {tiny.AFTER}", special_tokens=[(tiny.AFTER, 5)]
    )
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of a few thousand parameters, of bytes."""
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    tokenizer = words()
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=SMALL | {"vocab_size": len(tokenizer), "eos_token_id": 5, "bos_token_id": 1, "pad_token_id": 0},
        vision_config=SMALL | {"image_size": 32, "patch_size": 16},
        projection_dim=12,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3]
    ).save_pretrained(folder)
    return folder


def test_clip_reads_words_and_pictures_into_one_space(clip: Path) -> None:
    language = LearntLanguage(clip)
    model, tokenizer = transformers.CLIPModel.from_pretrained(clip).eval(), words()
    texts = language.texts(TEXTS[:2])
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen = language.images(images)
    assert texts.shape == seen.shape == (2, 12)
    for row, text in enumerate(TEXTS[:2]):  # one at a time, without padding
        inputs = tokenizer(text, return_tensors="pt")
        pixels = (images[row : row + 1].detach() - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
            transformers.CLIPImageProcessor().image_std
        ).view(3, 1, 1)
        with torch.no_grad():
            whole = model(input_ids=inputs["input_ids"], pixel_values=pixels)
        torch.testing.assert_close(texts[row], whole.text_embeds[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(seen[row].detach(), whole.image_embeds[0], atol=1e-5, rtol=1e-4)
    seen[0, 0].backward()
    assert images.grad is not None
    assert float(images.grad[0].abs().max()) > 0
    assert float(images.grad[1].abs().max()) == 0
    assert not any(parameter.requires_grad for parameter in language.model.parameters())
    levels = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    torch.testing.assert_close(language.images(levels), language.images(levels / 255))


def test_tokens_are_runs_of_the_texts_states(clip: Path) -> None:
    language = LearntLanguage(clip)
    tokens = language.tokens(TEXTS)
    assert tokens.shape == (3, LENGTH, language.width)
    assert language.width == 16
    inputs = words()(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        states = transformers.CLIPModel.from_pretrained(clip).text_model(**inputs).last_hidden_state[0]
    assert len(states) == 6  # fewer than the runs: each is one
    torch.testing.assert_close(tokens[0, :6], states, atol=1e-5, rtol=1e-4)
    assert bool(tokens[0, 6:].isnan().all())
    assert not bool(tokens[1].isnan().any())
    assert bool(tokens[2].isnan().all())
    torch.testing.assert_close(tokens[1], language.tokens(TEXTS[1:2])[0], atol=1e-5, rtol=1e-4)  # alone or not


def test_texts_are_read_and_reduced_a_part_at_a_time(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    language = LearntLanguage(clip)
    texts = ["a hat", "a cap", "a wall", "a tree", "hair"]
    whole = language.tokens(texts), language.texts(texts)
    seen: list[str] = []

    def told(name: str, function: Any) -> Any:
        return lambda *given, **named: (seen.append(name), function(*given, **named))[1]

    monkeypatch.setattr(learnt_language, "TOGETHER", 2)
    monkeypatch.setattr(language, "tokenizer", told("words", language.tokenizer))
    monkeypatch.setattr(torch, "tensor_split", told("runs", torch.tensor_split))
    language.model.text_model.register_forward_hook(lambda *_: seen.append("states"))
    torch.testing.assert_close(language.tokens(texts), whole[0], atol=1e-5, rtol=1e-4, equal_nan=True)
    assert seen == ["words", "states", "runs", "runs", "words", "states", "runs", "runs", "words", "states", "runs"]
    seen.clear()
    torch.testing.assert_close(language.texts(texts), whole[1], atol=1e-5, rtol=1e-4)
    assert seen == ["words", "states"] * 3


def test_a_text_model_reads_words_alone(tmp_path: Path) -> None:
    tokenizer = words()
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(tmp_path / "b")
    tokenizer.save_pretrained(tmp_path / "b")
    language = LearntLanguage(tmp_path / "b")
    both = language.texts(TEXTS[:2])
    torch.testing.assert_close(both.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(both[0], language.texts(TEXTS[:1])[0], atol=1e-5, rtol=1e-4)  # padding changes nothing
    with pytest.raises(MienError, match="language b sees no pictures"):
        language.images(torch.rand(1, 3, 8, 8))


def test_it_guides_a_renderer(clip: Path) -> None:
    torch.manual_seed(0)
    network = AgeTransformer(AgeTransformerSettings(size=32, width=8, blocks=1), Crop("chip", 0.0, 32))
    for parameter in network.parameters():  # a new one shows the face as it is, in no direction
        torch.nn.init.normal_(parameter, std=0.1)
    ages = torch.tensor([[20.0, 20.0], [60.0, 60.0]])
    batch = FaceBatch(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), {AGE: ages}, torch.arange(2))
    options = AgeTransformerObjectiveSettings(direction=1.0, adversarial=0.0)
    language = LearntLanguage(clip)
    made = AgeTransformerObjective(network, None, options, ages.numpy(), 10, language)  # type: ignore[arg-type]
    total, count = made.losses(GENERATOR, batch, 0)["direction"]
    assert float(count) == 2
    assert 0 <= float(total.detach()) <= 4  # 1 - cosine, of two faces
    total.backward()
    assert float(network.stem[1].weight.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in language.model.parameters())


def test_a_language_by_its_name(clip: Path, tmp_path: Path) -> None:
    assert isinstance(build_language("hashed", 8), HashedLanguage)
    assert build_language(None, 8).width == 8
    there = build_language(str(clip), 16)
    assert there is build_language(str(clip), 16)
    moved = build_language(str(clip), device="meta")
    assert isinstance(moved, LearntLanguage)
    assert moved.model.device.type == "meta"
    assert build_language(str(clip)).model.device.type == "cpu"  # type: ignore[attr-defined]
    with pytest.raises(MienError, match=r"its tokens have 16 numbers, age_transformer\.text is 8; set .*text=16"):
        build_language(str(clip), 8)
    with pytest.raises(MienError, match=r"config\.json: no such file"):
        build_language(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(MienError, match="nothing cannot be opened as a language of transformers"):
        build_language(str(tmp_path))


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


class Counting(HashedLanguage):
    """Counts what it reads."""

    read = 0

    def tokens(self, texts: list[str]) -> Tensor:  # type: ignore[override]
        self.read += len(texts)
        return super().tokens(texts)


def test_embeddings_lie_beside_their_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, keys = tmp_path / "captions.jsonl", ["aa" * 32, "bb" * 32, "cc" * 32]
    lines = ["a young woman with a hat", "a hat", "a woman with a hat"]
    cache.write_text(
        "".join(json.dumps({"sha256": key, "caption": text}) + "\n" for key, text in zip(keys, lines, strict=True))
    )
    language = Counting(6, 4)
    without = caption_tokens(cache, [keys[1], "dd" * 32, keys[0]], language)
    same(without[0], HashedLanguage(6, 4).tokens(["a hat"])[0])
    assert bool(without[1].isnan().all())
    path = save_embeddings(cache, language)
    assert path == tmp_path / "captions.safetensors"
    language.read = 0
    kept = caption_tokens(cache, [keys[1], "dd" * 32, keys[0]], language)
    same(kept, without)
    assert language.read == 0
    # The young woman is read without her age, as the woman is.
    same(caption_tokens(cache, keys[:1], language), caption_tokens(cache, keys[2:], language))
    # Texts that were stripped of other words are made anew.
    assert language.read == 0
    with monkeypatch.context() as other:
        other.setattr(embeddings, "stripping", lambda: "of fewer words")
        same(caption_tokens(cache, keys[:1], language), kept[2:])
    assert language.read == 1
    # Another language, and other captions, are not served from it.
    assert caption_tokens(cache, keys, Counting(5, 4)).shape == (3, 4, 5)
    cache.write_text(cache.read_text().replace("hat", "cap"))
    same(caption_tokens(cache, keys[1:2], language), HashedLanguage(6, 4).tokens(["a cap"]))
    cache.write_text('{"sha256": "xx", "caption": "a"}\n')
    with pytest.raises(MienError, match="is no sha256"):
        save_embeddings(cache, language)
