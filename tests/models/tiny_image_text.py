"""Image-text models of transformers' own classes that a test can afford: random weights, a tokenizer of bytes."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig

PAD, BEGIN, END, IMAGE, BEFORE, AFTER = "<pad>", "<s>", "</s>", "<image>", "<before>", "<after>"
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a byte, so that numbers take a token a digit."""
    words = [PAD, BEGIN, END, IMAGE, BEFORE, AFTER, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    plain = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    special = {"image_token": IMAGE, "boi_token": BEFORE, "eoi_token": AFTER}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token=PAD, bos_token=BEGIN, eos_token=END, extra_special_tokens=special
    )


def text(vocabulary: int) -> LlamaConfig:
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    tokens = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaConfig(**small, **heads, **tokens, initializer_range=0.3)


def janus(folder: Path) -> Path:
    """A Janus of 0.2 million parameters, with a chat template."""
    words = tokenizer()
    vision = transformers.JanusVisionConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=2,
        num_image_tokens=4,
        image_size=32,
        patch_size=16,
        projection_dim=32,
    )
    pictures = transformers.JanusVQVAEConfig(
        embed_dim=4,
        num_embeddings=8,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1],
        num_res_blocks=1,
        projection_dim=8,
        num_patches=2,
        image_token_embed_dim=32,
    )
    torch.manual_seed(0)
    config = transformers.JanusConfig(
        vision_config=vision, text_config=text(len(words)), vq_config=pictures, image_token_id=3
    )
    transformers.JanusForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.JanusImageProcessor(size={"height": 32, "width": 32}, min_size=4)
    transformers.JanusProcessor(images, words, chat_template=TEMPLATE, num_image_tokens=4).save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    """A LLaVA, without a chat template."""
    words = tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(**small, image_size=32, patch_size=16, projection_dim=16)
    torch.manual_seed(0)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text(len(words)), image_token_index=3)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.LlavaProcessor(
        images, words, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(folder)
    return folder
