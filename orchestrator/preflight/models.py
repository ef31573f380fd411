"""Shapes of decoders (grouped-query attention, gated MLP): from config.json, or by name from a small table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """Widths and counts as config.json names them."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = True
    """The output layer shares the embedding's weights."""

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(in, out) of the linear modules of one layer, by name."""
        attention, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, attention),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (attention, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def layer_parameters(self) -> int:
        """Of one layer; norms and biases are left out, a thousandth."""
        return sum(rows * columns for rows, columns in self.linears.values())

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.layers * self.layer_parameters + self.embedding_parameters


# from each model's config.json
KNOWN: Mapping[str, ModelShape] = {
    "qwen2.5-0.5b": ModelShape(896, 4864, 24, 14, 2, 64, 151_936),
    "qwen2.5-1.5b": ModelShape(1536, 8960, 28, 12, 2, 128, 151_936),
    "qwen2.5-3b": ModelShape(2048, 11_008, 36, 16, 2, 128, 151_936),
    "qwen2.5-7b": ModelShape(3584, 18_944, 28, 28, 4, 128, 152_064, tied=False),
    "qwen3-0.6b": ModelShape(1024, 3072, 28, 16, 8, 128, 151_936),
    "qwen3-1.7b": ModelShape(2048, 6144, 28, 16, 8, 128, 151_936),
    "qwen3-4b": ModelShape(2560, 9728, 36, 32, 8, 128, 151_936),
    "qwen3-8b": ModelShape(4096, 12_288, 36, 32, 8, 128, 151_936, tied=False),
    "llama-3.2-1b": ModelShape(2048, 8192, 16, 32, 8, 64, 128_256),
    "llama-3.1-8b": ModelShape(4096, 14_336, 32, 32, 8, 128, 128_256, tied=False),
    "smollm2-135m": ModelShape(576, 1536, 30, 9, 3, 64, 49_152),
    "smollm2-360m": ModelShape(960, 2560, 32, 15, 5, 64, 49_152),
}

_VARIANT = re.compile(r"-(?:instruct|base|chat|it|math|coder|\d{4})\b")
"""What a name may add that changes no shape."""


def model_name(path: str) -> str:
    """`Qwen/Qwen2.5-Math-1.5B-Instruct` and `/models/qwen2.5-1.5b` are both `qwen2.5-1.5b`."""
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2].lower().replace("_", "-")
    return _VARIANT.sub("", last)


def known_shape(path: str) -> ModelShape | None:
    """By the last part of a model's path or name."""
    return KNOWN.get(model_name(path))


def shape_from_config(config: Mapping[str, Any]) -> ModelShape | None:
    """From a model's config.json; None where it describes another kind of model."""
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return ModelShape(
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocab=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", True)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
