"""Ties the gradient capture to verl's training engine: which tokens of which response a forward pass holds.

Rows of different responses never mix, because every loss used here is a sum over responses; so a micro-batch may hold as many
of them as verl is set to put in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import no_padding_2_padding

from trainer_ext.influence import InfluenceConfig, LinearCapture, ModuleFactors
from trainer_ext.verl_plugin.responses import leading_response_tokens, predicting_positions

ROW = "influence_row"
"""int64 [B]: `responses.row_numbers`; verl splits, shuffles and sorts batches, and takes this column along."""

LossFunction = Callable[..., tuple[Tensor, dict[str, Any]]]


def log_prob_objective(weighted: bool) -> LossFunction:
    """A loss for verl's engine: minus the sum of the response tokens' log-probabilities, each times its advantage or 1."""

    def objective(model_output: Mapping[str, Tensor], data: TensorDict, **_: Any) -> tuple[Tensor, dict[str, Any]]:
        log_probs = no_padding_2_padding(model_output["log_probs"], data)
        weights = data["response_mask"].to_padded_tensor(0).to(log_probs.dtype)
        if weighted:
            weights = weights * data["advantages"].to_padded_tensor(0)
        return -(log_probs * weights).sum(), {}

    return objective


@dataclass(frozen=True)
class Captured:
    """What a tap brought: T tokens, the same in every module."""

    modules: dict[str, ModuleFactors]
    response: Tensor
    """int64 [T] on the CPU, as in `ROW`."""
    token: Tensor
    """int64 [T] on the CPU, index within the response."""


class Tap:
    """Selects and captures the response tokens of whatever passes an engine runs while it is attached.

    A response is captured once, in the first pass that it appears in: later epochs of an update see other weights.

    Raises:
        ValueError: the engine splits sequences over ranks, or the config names no module.
    """

    def __init__(self, engine: Any, config: InfluenceConfig) -> None:
        if getattr(engine, "ulysses_sequence_parallel_size", 1) > 1:
            raise ValueError("influence: a sequence must lie on one rank; set ulysses_sequence_parallel_size=1")
        self._engine, self._config = engine, config
        self._capture = LinearCapture(engine.module, config)
        self._seen: set[int] = set()
        self._tokens: list[Tensor] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While open, the engine's forward steps announce their tokens to the capture first."""
        forward_step = self._engine.forward_step

        def announce(micro_batch: TensorDict, loss_function: LossFunction | None, forward_only: bool) -> Any:
            if not forward_only:
                self._select(micro_batch)
            return forward_step(micro_batch, loss_function=loss_function, forward_only=forward_only)

        self._seen, self._tokens = set(), []
        self._engine.forward_step = announce
        try:
            with self._capture:
                yield
        finally:
            del self._engine.forward_step

    def pop(self) -> Captured:
        """Everything captured since it was attached; the tap forgets it."""
        modules = self._capture.pop()
        response = next(iter(modules.values())).response.cpu()
        return Captured(modules, response, torch.cat([torch.empty(0, dtype=torch.int64), *self._tokens]))

    def _select(self, micro_batch: TensorDict) -> None:
        rows = micro_batch[ROW].flatten().tolist()
        mask = micro_batch["response_mask"].cpu()
        tokens = leading_response_tokens(mask, self._config.max_tokens_per_response)
        tokens = [chosen[:0] if row in self._seen else chosen for row, chosen in zip(rows, tokens, strict=True)]
        self._seen.update(rows)
        positions = predicting_positions(
            micro_batch["input_ids"].offsets().diff().cpu(),
            mask.offsets().diff(),
            tokens,
            packed=tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True),
        )
        response = torch.tensor(rows).repeat_interleave(torch.tensor([len(chosen) for chosen in tokens]))
        self._tokens.append(torch.cat(tokens))
        self._capture.select(positions, response)
