"""Shapes of models by name and by their own config.json."""

from __future__ import annotations

import pytest

from orchestrator.preflight.models import KNOWN, known_shape, model_name, shape_from_config


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5b"),
        ("Qwen/Qwen2.5-Math-1.5B", "qwen2.5-1.5b"),
        ("/models/Qwen2.5-1.5B/", "qwen2.5-1.5b"),
        ("{root}/assets/smollm2-135m-instruct", "smollm2-135m"),
        ("Qwen3-4B-Instruct-2507", "qwen3-4b"),
    ],
)
def test_variants_of_a_model_share_its_shape(path: str, name: str) -> None:
    assert model_name(path) == name
    assert known_shape(path) == KNOWN[name]


SIZES = {"qwen2.5-1.5b": 1.54, "qwen2.5-7b": 7.6, "qwen3-8b": 8.2, "smollm2-135m": 0.1345, "llama-3.1-8b": 8.03}


@pytest.mark.parametrize(("name", "billions"), SIZES.items())
def test_parameters_are_counted_to_a_hundredth(name: str, billions: float) -> None:
    assert KNOWN[name].parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_a_models_own_config_gives_its_shape() -> None:
    config = {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
    assert shape_from_config(config) == KNOWN["qwen2.5-0.5b"]


@pytest.mark.parametrize("config", [{}, {"hidden_size": "wide"}, {"hidden_size": 8, "num_attention_heads": 0}])
def test_another_kind_of_model_has_no_shape_here(config: dict[str, object]) -> None:
    assert shape_from_config(config) is None
    assert known_shape("somebody/else") is None
