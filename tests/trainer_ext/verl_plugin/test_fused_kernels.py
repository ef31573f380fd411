"""The way of the profile h200x1 through verl: packed sequences, micro-batches by tokens, log-probabilities without logits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from tests.trainer_ext.verl_plugin.engine_world import Rows, make_batch, make_config, request, traced, worker_of
from trainer_ext.assets import qwen2_shape

ROWS = Rows(
    [
        ("a", [5, 6, 7, 8], [50, 51, 52], 1.0, 0.9),
        ("a", [5, 6, 7, 8], [60, 61, 62, 63, 64], 0.0, -1.1),
        ("b", [30, 31], [71, 72, 73, 74], 1.0, 1.3),
        ("b", [30, 31], [75], 0.0, -0.6),
    ]
)
PROFILE = ("use_fused_kernels=true", "use_remove_padding=true")
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 320}


@pytest.fixture(autouse=True)
def _class_as_it_was() -> Iterator[None]:
    """verl changes the model's class for all of the process; other tests make models of it."""
    forward = Qwen2ForCausalLM.forward
    yield
    Qwen2ForCausalLM.forward = forward


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied embeddings, as in Qwen2.5-1.5B: without them verl's fused kernels meet a sharded head."""
    folder: Path = tmp_path_factory.mktemp("model")
    config = qwen2_shape.make_config(2, **SMALL)
    assert config.tie_word_embeddings
    qwen2_shape.save(qwen2_shape.make_model(config, seed=0).float(), folder)
    return folder


def scores(model: Path, *model_overrides: str, **settings: object) -> Tensor:
    config = make_config(model, *(f"actor_rollout_ref.model.{override}" for override in model_overrides))
    batch = make_batch(ROWS, [torch.full((len(r),), -5.7) for r in ROWS.responses], **settings)
    with worker_of(config) as worker:
        found, _, _ = traced(worker, batch, request(projection_dim_factor=8))
    return found.values()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_padded_sequences_and_whole_logits(model_folder: Path) -> None:
    plain = scores(model_folder, micro_batch_size_per_gpu=4)
    fused = scores(model_folder, *PROFILE, use_dynamic_bsz=True, max_token_len_per_gpu=16)
    assert not plain.isnan().any()
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
