"""The process behind the rollout `replay`: it answers every request at once, and holds no model.

A Ray actor; whoever holds its handle imports this module, so it imports nothing heavy. Its settings lie in
`actor_rollout_ref.rollout.custom.replay`:

======  ==============================================================================================================
length  tokens of a response: a number, or [shortest, longest] to draw between; default: the response length
file    recorded responses instead: .parquet, .jsonl, or a folder of .jsonl files (`trainer_ext.replay`)
======  ==============================================================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer_ext.replay import Lengths, RecordedResponses, read_rows, synthetic_response
from trainer_ext.seeds import response_seed
from trainer_ext.server_controls import ServerControls

SETTINGS = ("length", "file")


class ReplayServer(ServerControls):
    """Token ids in, token ids out.

    Args:
        config, model_config: verl's `actor_rollout_ref.rollout` and `.model`.
        to_dataclass: makes the configs verl's own types.
        answer: type of an answer, verl's TokenOutput; handed in, so that this module needs no verl.

    Raises:
        ValueError: an unknown setting, a length out of range, a file that holds no responses, or log-probabilities asked for.
    """

    def __init__(self, config: Any, model_config: Any, to_dataclass: Callable[[Any], Any], answer: type) -> None:
        self._config, self._answer = to_dataclass(config), answer
        self._tokenizer = to_dataclass(model_config).tokenizer
        if self._config.calculate_log_probs:
            raise ValueError(
                "rollout replay: no model wrote these tokens, so nobody knows their log-probabilities; set "
                "actor_rollout_ref.rollout.calculate_log_probs=false"
            )
        settings = replay_settings(self._config.custom)
        self._lengths = Lengths.parse(settings.get("length"), self._config.response_length)
        self._vocabulary = plain_tokens(self._tokenizer)
        self._recorded = None
        if settings.get("file") is not None:
            self._recorded = RecordedResponses(read_rows(Path(settings["file"])), self._encode)
        self._global_steps = 0
        self._asked = itertools.count()

    async def set_global_steps(self, global_steps: int) -> None:
        """Steps that the weights, which this rollout does not need, have been through."""
        self._global_steps = global_steps

    async def generate(self, prompt_ids: Sequence[int], sampling_params: Mapping[str, Any], **_: Any) -> Any:
        """A response to one prompt. It follows from the request's `seed`; without one, from the order of arrival."""
        step = self._global_steps + 1
        if self._recorded is None:
            seed = sampling_params.get("seed")
            if seed is None:
                seed = response_seed(self._config.seed, step, repr(list(prompt_ids)), next(self._asked))
            tokens = synthetic_response(seed, self._lengths, self._vocabulary)
        else:
            text = self._tokenizer.decode(list(prompt_ids), skip_special_tokens=True)
            tokens = self._recorded.take(step, prompt_ids, text)
        return self._answer(
            token_ids=tokens[: self._config.response_length],
            stop_reason="completed",
            extra_fields={"global_steps": self._global_steps},
        )

    def _encode(self, text: str) -> list[int]:
        return [*self._tokenizer.encode(text, add_special_tokens=False), self._tokenizer.eos_token_id]


def replay_settings(custom: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The `replay` section of `rollout.custom`.

    Raises:
        ValueError: an unknown key.
    """
    settings: Mapping[str, Any] = dict((custom or {}).get("replay") or {})
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(f"rollout.custom.replay: no setting {', '.join(unknown)}; there are {', '.join(SETTINGS)}")
    return settings


def plain_tokens(tokenizer: Any) -> list[int]:
    """Every id that the tokenizer can decode, special tokens aside: a response of them has a text to be scored."""
    special = set(tokenizer.all_special_ids)
    return [token for token in range(len(tokenizer)) if token not in special]
