"""The rollout's server, driven in this process with a tiny model and without Ray or verl."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer_ext.assets.tiny_qwen2 import make_model
from trainer_ext.rollout_server import TransformersServer, from_wire, release_weights, to_wire

CONFIG = SimpleNamespace(dtype="float32", seed=0, prompt_length=8, response_length=5, max_num_seqs=4)
MODEL = make_model(seed=0)


@dataclass
class Answer:
    token_ids: list[int]
    log_probs: list[float]
    stop_reason: str
    extra_fields: dict[str, Any]


async def _value(value: Any) -> Any:
    return value


def references() -> list[Any]:
    return [_value(to_wire(name, tensor)) for name, tensor in MODEL.state_dict().items()]


def make_server(config: Any = CONFIG) -> TransformersServer:
    tokenizer = SimpleNamespace(eos_token_id=2, pad_token_id=0)
    model_config = SimpleNamespace(hf_config=MODEL.config, tokenizer=tokenizer)
    return TransformersServer(config, model_config, "cpu", lambda value: value, Answer)


def ask(server: TransformersServer, prompts: Sequence[Sequence[int]], **params: Any) -> list[Answer]:
    async def run() -> list[Answer]:
        await server.update_weights(references(), global_steps=1)
        return await asyncio.gather(*(server.generate(list(prompt), params) for prompt in prompts))

    return asyncio.run(run())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_cross_the_wire_bit_by_bit(dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 4).to(dtype).T  # not contiguous
    name, copy = from_wire(to_wire("layer.weight", tensor))
    assert name == "layer.weight"
    assert copy.dtype == dtype
    assert torch.equal(copy, tensor)


def test_a_step_repeats_whatever_the_order_of_arrival() -> None:
    prompts = [[5, 6], [7, 8, 9], [5, 6], [11]]
    forward = [answer.token_ids for answer in ask(make_server(), prompts)]
    backward = [answer.token_ids for answer in ask(make_server(), prompts[::-1])][::-1]
    assert sorted([forward[0], forward[2]]) == sorted([backward[0], backward[2]])
    assert (forward[1], forward[3]) == (backward[1], backward[3])


def test_samples_of_one_prompt_differ_and_other_seeds_differ() -> None:
    first, second = (answer.token_ids for answer in ask(make_server(), [[5, 6], [5, 6]]))
    assert first != second
    other = SimpleNamespace(**{**vars(CONFIG), "seed": 1})
    assert ask(make_server(other), [[5, 6]])[0].token_ids != first


def test_more_requests_than_a_batch_holds_are_all_answered() -> None:
    answers = ask(make_server(), [[index + 3] for index in range(10)])
    assert all(1 <= len(answer.token_ids) <= 5 for answer in answers)
    assert {answer.extra_fields["global_steps"] for answer in answers} == {1}


def test_a_long_prompt_shortens_the_response_to_what_is_left() -> None:
    config = SimpleNamespace(**{**vars(CONFIG), "prompt_length": 4})
    (answer,) = ask(make_server(config), [list(range(3, 10))])
    assert len(answer.token_ids) <= 2


def test_a_failing_batch_reaches_every_caller() -> None:
    server = make_server()  # no weights yet: the parameters have no memory

    async def run() -> list[Any]:
        return await asyncio.gather(*(server.generate([5], {}) for _ in range(2)), return_exceptions=True)

    assert all(isinstance(answer, Exception) for answer in asyncio.run(run()))


def test_missing_weights_are_named() -> None:
    server = make_server()
    some = [_value(to_wire("lm_head.weight", MODEL.state_dict()["lm_head.weight"]))]
    with pytest.raises(RuntimeError, match=r"sent no weights for model\.embed_tokens\.weight"):
        asyncio.run(server.update_weights(some))


def test_weights_can_be_released_and_taken_again() -> None:
    server = make_server()
    first = ask(server, [[5, 6]])[0].token_ids
    release_weights(server._model)
    assert all(parameter.is_meta for parameter in server._model.parameters())
    assert ask(server, [[5, 6]])[0].token_ids == first
