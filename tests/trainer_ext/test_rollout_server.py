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

CONFIG = SimpleNamespace(dtype="float32", prompt_length=8, response_length=5, max_num_seqs=4)
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


def ask(
    server: TransformersServer, prompts: Sequence[Sequence[int]], seeds: Sequence[int | None] | None = None
) -> list[Answer]:
    each = seeds if seeds is not None else range(len(prompts))

    async def run() -> list[Answer]:
        await server.update_weights(references(), global_steps=1)
        requests = zip(prompts, each, strict=True)
        return await asyncio.gather(*(server.generate(list(prompt), {"seed": seed}) for prompt, seed in requests))

    return asyncio.run(run())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_cross_the_wire_bit_by_bit(dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 4).to(dtype).T  # not contiguous
    name, copy = from_wire(to_wire("layer.weight", tensor))
    assert name == "layer.weight"
    assert copy.dtype == dtype
    assert torch.equal(copy, tensor)


def test_a_step_repeats_whatever_the_order_of_arrival_and_whoever_shares_the_batch() -> None:
    prompts, seeds = [[5, 6], [7, 8, 9], [5, 6], [11], [12, 13]], [1, 2, 3, 4, 5]  # two batches, of others each time
    forward = [answer.token_ids for answer in ask(make_server(), prompts, seeds)]
    backward = [answer.token_ids for answer in ask(make_server(), prompts[::-1], seeds[::-1])][::-1]
    alone = [ask(make_server(), [prompt], [seed])[0].token_ids for prompt, seed in zip(prompts, seeds, strict=True)]
    assert forward == backward == alone


def test_responses_of_one_prompt_differ_by_their_seeds() -> None:
    first, second, again = (answer.token_ids for answer in ask(make_server(), [[5, 6]] * 3, [1, 2, 1]))
    assert first != second
    assert first == again


def test_a_request_without_a_seed_draws_anew() -> None:
    answers = ask(make_server(), [[5, 6]] * 4, [None] * 4)
    assert len({tuple(answer.token_ids) for answer in answers}) > 1


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
