"""Ties the gradient capture to verl's training engine: which tokens of which response a forward pass holds.

Rows of different responses never mix, because every loss used here is a sum over responses; so a micro-batch may hold as many
of them as verl is set to put in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import no_padding_2_padding

from trainer_ext.influence import InfluenceConfig, LinearCapture, StoredFactors
from trainer_ext.influence.storage import on_device
from trainer_ext.verl_plugin.capture_mode import without_weight
from trainer_ext.verl_plugin.counters import SELECTED_TOKENS, DebugCounters
from trainer_ext.verl_plugin.engine_methods import replaced
from trainer_ext.verl_plugin.response_weights import LossFunction, PassTokens, ResponseWeights
from trainer_ext.verl_plugin.responses import first_tokens, leading_response_tokens, predicting_positions

ROW = "influence_row"
"""int64 [B]: `responses.row_numbers`; verl splits, shuffles and sorts batches, and takes this column along. Rows of -1 are not
captured."""


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

    modules: StoredFactors
    """To be read once, one module at a time."""
    response: Tensor
    """int64 [T] on the CPU, as in `ROW`."""
    token: Tensor
    """int64 [T] on the CPU, index within the response."""
    unprojected: StoredFactors | None = None
    """Of the one module that was captured as it is too."""


class Tap:
    """Selects and captures the response tokens of whatever passes an engine runs while it is attached.

    A response is captured once, in the first pass that it appears in: later epochs of an update see other weights.

    Args:
        counters: where captured tokens are counted.
        unprojected: the name of one module, or the end of it, that is captured without projection beside the others.

    Raises:
        ValueError: the engine splits sequences over ranks, or the config names no module, or `unprojected` not one of them.
    """

    def __init__(
        self, engine: Any, config: InfluenceConfig, counters: DebugCounters, unprojected: str | None = None
    ) -> None:
        if getattr(engine, "ulysses_sequence_parallel_size", 1) > 1:
            raise ValueError("influence: a sequence must lie on one rank; set ulysses_sequence_parallel_size=1")
        self._engine, self._config, self._counters = engine, config, counters
        self._captures = [LinearCapture(engine.module, config)]
        if unprojected is not None:
            self._captures.append(self._unprojected(engine.module, unprojected))
        self._seen: set[int] = set()
        self._tokens: list[Tensor] = []
        self._weights = ResponseWeights()
        self._of_log_probs = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While open, the engine's forward steps announce their tokens to the capture first."""
        forward_step = self._engine.forward_step

        def announce(micro_batch: TensorDict, loss_function: LossFunction | None, forward_only: bool) -> Any:
            if not forward_only:
                owner = self._select(micro_batch)
                if self._of_log_probs and loss_function is not None and len(owner):
                    loss_function = self._reading_weights(loss_function, micro_batch, owner)
            return forward_step(micro_batch, loss_function=loss_function, forward_only=forward_only)

        self._seen, self._tokens = set(), []
        with replaced(self._engine, "forward_step", announce), ExitStack() as hooks:
            for capture in self._captures:
                hooks.enter_context(capture)
            yield

    @contextmanager
    def of_log_probs(self) -> Iterator[None]:
        """While open, passes of a training loss are captured as if their loss were that of `log_prob_objective`."""
        self._of_log_probs = True
        try:
            yield
        finally:
            self._of_log_probs = False

    def take(self) -> Captured:
        """Everything captured since it was attached; the tap forgets it.

        Raises:
            RuntimeError: a loss that was captured as log-probabilities was none (`ResponseWeights.check`).
        """
        self._weights.check()
        modules, *unprojected = [capture.take() for capture in self._captures]
        token = torch.cat([torch.empty(0, dtype=torch.int64), *self._tokens])
        return Captured(modules, modules.response.cpu(), token, *unprojected)

    def _unprojected(self, model: nn.Module, name: str) -> LinearCapture:
        known = [module for module in self._captures[0].projections if module.endswith(name)]
        if len(known) != 1:
            raise ValueError(
                f"influence.unprojected_module={name}: ends the names of {len(known)} captured modules, and must be one's; "
                f"a name is {next(iter(self._captures[0].projections))}"
            )
        as_it_is = replace(self._config, target_modules=tuple(known), projection_dim_factor=1, max_hessian_dim=-1)
        return LinearCapture(model, as_it_is)

    def _select(self, micro_batch: TensorDict) -> Tensor:
        """Announce the tokens of a micro-batch; int64 [n], the sequence in it that each belongs to."""
        rows = micro_batch[ROW].flatten().tolist()
        mask = micro_batch["response_mask"].cpu()
        tokens = leading_response_tokens(mask, self._config.max_tokens_per_response)
        known = [row < 0 or row in self._seen for row in rows]
        tokens = [chosen[:0] if skip else chosen for skip, chosen in zip(known, tokens, strict=True)]
        self._seen.update(rows)
        positions = predicting_positions(
            micro_batch["input_ids"].offsets().diff().cpu(),
            mask.offsets().diff(),
            tokens,
            packed=tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True),
        )
        owner = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(chosen) for chosen in tokens]))
        self._tokens.append(torch.cat(tokens))
        self._counters.add(SELECTED_TOKENS, len(positions))
        for capture in self._captures:
            capture.select(positions, torch.tensor(rows)[owner])
        return owner

    def _reading_weights(self, loss_function: LossFunction, micro_batch: TensorDict, owner: Tensor) -> LossFunction:
        """The loss, which hands its weights to the capture: output gradients become those of the log-probabilities."""
        advantage = first_tokens(micro_batch["advantages"]).float().cpu()
        wanted = -advantage if self._config.output_function == "log_prob_advantage" else -torch.ones_like(advantage)
        tokens = PassTokens.of(micro_batch["input_ids"].offsets().diff().cpu(), micro_batch["response_mask"])
        return self._weights.read_off(
            loss_function,
            tokens,
            wanted,
            ~without_weight(advantage),
            lambda scale: self._weigh(scale[on_device(owner, scale.device)]),
        )

    def _weigh(self, weights: Tensor) -> None:
        for capture in self._captures:
            capture.weigh(weights)
