"""A two-layer Qwen2 with seeded random weights and a byte-level tokenizer: everything real but the knowledge.

It trains a step in well under a second on a CPU, so the smoke sweep can prove the whole chain. The tokenizer has to be
byte-level BPE: transformers 5 reads every folder with model_type qwen2 as a Qwen2Tokenizer, and verl's agent loop requires
that a newline and the turn markers are one token each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> Any:
    """One token per byte plus three markers; no merges."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    symbols = [END_OF_TEXT, START_OF_TURN, END_OF_TURN, *sorted(ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(
        vocab={symbol: index for index, symbol in enumerate(symbols)},
        merges=[],
        unk_token=END_OF_TEXT,
        bos_token=None,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START_OF_TURN, END_OF_TURN],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(seed: int, width: int = 64) -> Any:
    """107 thousand float32 parameters; equal seeds give equal weights, and the global generator stays as it was.

    Args:
        width: of the hidden states, a multiple of 8; the MLP is twice as wide.
    """
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config).float()
    model.generation_config = GenerationConfig(**ids)
    return model


def make(folder: Path, seed: int, width: int = 64) -> None:
    """Write model and tokenizer."""
    make_tokenizer().save_pretrained(folder)
    make_model(seed, width).save_pretrained(folder)
