"""Qwen2.5-1.5B's exact shape with random weights: what a step costs does not depend on what a model knows.

Any number of layers, so that the same code runs small. The tokenizer is the byte-level one of `tiny_qwen2`, whose ids lie
within the vocabulary of 151,936; the weights follow from the seed and each parameter's name, whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer_ext.assets.tiny_qwen2 import make_tokenizer

LAYERS = 28
# from the config.json of Qwen2.5-1.5B
SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
}
ROPE_THETA = 1e6


def make_config(layers: int, **changes: Any) -> Any:
    """A `Qwen2Config`.

    Args:
        layers: of the model; the published one has 28.
        changes: fields that differ from the published model's.

    Raises:
        ValueError: fewer than one layer.
    """
    from transformers import Qwen2Config

    if layers < 1:
        raise ValueError(f"--layers: must be 1 or more, got {layers}")
    tokenizer = make_tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
    return Qwen2Config(num_hidden_layers=layers, rope_parameters=rope, **{**SHAPE, **ids, **changes})


def make_model(config: Any, seed: int) -> Any:
    """A bfloat16 `Qwen2ForCausalLM`: matrices normal, biases zero, norms one. The global generator stays as it was."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, GenerationConfig

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    named = dict(model.named_parameters())
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # torch draws on one thread and lets others draw meanwhile
        drawn = threads.map(lambda name: _drawn(name, named[name], config.initializer_range, seed), named)
        model.load_state_dict(dict(zip(named, drawn, strict=True)), strict=False, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(pad_token_id=config.pad_token_id, eos_token_id=config.eos_token_id)
    return model


def make(folder: Path, *, layers: int, seed: int) -> None:
    """Write model (safetensors) and tokenizer."""
    save(make_model(make_config(layers), seed), folder)


def save(model: Any, folder: Path) -> None:
    """The model, with the tokenizer that goes with it."""
    make_tokenizer().save_pretrained(folder)
    model.save_pretrained(folder)


def _drawn(name: str, like: Any, scale: float, seed: int) -> Any:
    import torch

    tensor = torch.empty(like.shape, dtype=like.dtype)
    if tensor.dim() == 1:
        return tensor.fill_(0.0 if name.endswith("bias") else 1.0)
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return tensor.normal_(0.0, scale, generator=generator)
