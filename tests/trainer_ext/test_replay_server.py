"""The server of the rollout `replay`, driven in this process without Ray or verl."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer_ext.assets.tiny_qwen2 import make_tokenizer
from trainer_ext.replay import NothingRecorded
from trainer_ext.replay_server import ReplayServer

TOKENIZER = make_tokenizer()
CONFIG = {"seed": 0, "response_length": 8, "calculate_log_probs": False}


@dataclass
class Answer:
    token_ids: list[int]
    stop_reason: str
    extra_fields: dict[str, Any]


def make_server(**settings: Any) -> ReplayServer:
    return server_of(SimpleNamespace(**CONFIG, custom={"replay": settings} if settings else None))


def server_of(config: Any) -> ReplayServer:
    return ReplayServer(config, SimpleNamespace(tokenizer=TOKENIZER), lambda value: value, Answer)


def ask(server: ReplayServer, prompt: list[int], **params: Any) -> Answer:
    answer: Answer = asyncio.run(server.generate(prompt, params, request_id="r"))
    return answer


def test_without_settings_every_response_is_as_long_as_it_may_be() -> None:
    assert len(ask(make_server(), [5]).token_ids) == 8


def test_a_response_follows_from_the_seed_of_its_request() -> None:
    first, second = make_server(length=[2, 8]), make_server(length=[2, 8])
    answers = [ask(first, [5], seed=seed).token_ids for seed in range(9)]
    assert answers == [ask(second, [5], seed=seed).token_ids for seed in range(9)]
    assert len({tuple(answer) for answer in answers}) == 9


def test_requests_without_a_seed_get_different_responses() -> None:
    server = make_server(length=8)
    assert ask(server, [5]).token_ids != ask(server, [5]).token_ids


def test_every_response_has_a_text_and_no_special_token() -> None:
    tokens = ask(make_server(length=8), [5], seed=1).token_ids
    assert not set(tokens) & set(TOKENIZER.all_special_ids)
    assert TOKENIZER.decode(tokens) == TOKENIZER.decode(tokens, skip_special_tokens=True) != ""


def test_answers_carry_the_step_of_the_weights() -> None:
    server = make_server()
    asyncio.run(server.set_global_steps(3))
    assert ask(server, [5]).extra_fields == {"global_steps": 3}


def test_what_a_run_dumped_is_replayed_step_by_step(tmp_path: Path) -> None:
    prompt = TOKENIZER.encode("2 + 2")
    rows = [{"input": "2 + 2", "output": "four", "step": 2}, {"input": "2 + 2", "output": "a long answer", "step": 2}]
    (tmp_path / "2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = make_server(file=str(tmp_path))
    with pytest.raises(NothingRecorded, match=r"in step 1: '2 \+ 2'"):
        ask(server, prompt)
    asyncio.run(server.set_global_steps(1))
    assert ask(server, prompt).token_ids == [*TOKENIZER.encode("four"), TOKENIZER.eos_token_id]
    assert TOKENIZER.decode(ask(server, prompt).token_ids) == "a long a", "no longer than a response may be"


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"rollout\.custom\.replay: no setting lenght; there are length, file"):
        make_server(lenght=4)


def test_log_probabilities_that_nobody_knows_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"set actor_rollout_ref\.rollout\.calculate_log_probs=false"):
        server_of(SimpleNamespace(**{**CONFIG, "calculate_log_probs": True}, custom=None))
