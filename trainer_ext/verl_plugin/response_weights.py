"""What the loss of an update multiplies the log-probabilities of a response by, read off its own gradient.

The gradient that reaches the `log_probs` of a forward pass is, for each token, its weight in the loss, whatever advantage,
aggregation, loss scale and number of ranks went into it; and it is there before any module's gradient is. So a captured
output gradient is that of the loss times `wanted / weight`, one number a response.

The weights of a response are equal only where the ratio of new to old probability is 1 to the last digit. Recomputed, old
log-probabilities differ from those of the update by rounding, in bfloat16 by per cents. Therefore the loss is given the
log-probabilities of this very pass, detached, as the old ones. That is what the policy of an update's first mini-batch is by
definition, and what verl itself did whenever an update was one step (`on_policy` of its former dp_actor).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from trainer_ext.influence.storage import on_device

LossFunction = Callable[..., tuple[Tensor, dict[str, Any]]]

TOLERANCE = 1e-4
"""Largest relative difference of the weights of one response: what scores may be off by."""


@dataclass(frozen=True, eq=False)
class PassTokens:
    """Where the response tokens of B sequences lie among the log-probabilities of a pass, end to end; all on the CPU."""

    place: Tensor
    """int64 [M], of every response token."""
    response: Tensor
    """int64 [M], the sequence that each belongs to, ascending."""
    written: Tensor
    """bool [M], whether the model wrote it."""
    lengths: Sequence[int]
    """Response tokens of each sequence, M together."""

    @classmethod
    def of(cls, lengths: Tensor, response_mask: Tensor) -> PassTokens:
        """From the lengths of whole sequences, int64 [B], and the jagged mask [B, n] of their responses."""
        responses = response_mask.offsets().diff().cpu()
        end = lengths.cumsum(0)
        owner = torch.arange(len(lengths)).repeat_interleave(responses)
        within = torch.arange(len(owner)) - (responses.cumsum(0) - responses)[owner]
        first = end - responses - 1  # a token's log-probability stands where the token before it does
        return cls(first[owner] + within, owner, response_mask.values().cpu().bool(), responses.tolist())


class ResponseWeights:
    """Reads the weights of every micro-batch's responses, and hands `wanted / weight` to whoever captures."""

    def __init__(self) -> None:
        self._found: list[Tensor] = []

    def read_off(
        self,
        loss_function: LossFunction,
        tokens: PassTokens,
        wanted: Tensor,
        weighty: Tensor,
        hand_over: Callable[[Tensor], None],
    ) -> LossFunction:
        """A loss function for one forward pass, which does what the given one does with a ratio of 1.

        Args:
            tokens: of the micro-batch that the pass is for.
            wanted: [B] on the CPU, what each response's log-probabilities should have been multiplied by.
            weighty: bool [B] on the CPU, the responses that must have a weight.
            hand_over: is given `wanted / weight` [B] on the device of the pass, 0 where the weight is 0, at the beginning of
                its backward.
        """

        def loss(model_output: Mapping[str, Any], data: TensorDict, **others: Any) -> tuple[Tensor, dict[str, Any]]:
            log_probs = model_output["log_probs"]
            values = log_probs.values()
            place = on_device(tokens.place, values.device)
            reading = _Reading(tokens, wanted, weighty, place)
            values.register_hook(lambda gradient: hand_over(self._read(gradient, reading)))
            hooked = torch.nested.nested_tensor_from_jagged(values, log_probs.offsets())
            data = data.clone(recurse=False)
            data["old_log_probs"] = _jagged(values.detach()[place], data["response_mask"], tokens.lengths)
            return loss_function(model_output={**model_output, "log_probs": hooked}, data=data, **others)

        return loss

    def _read(self, gradient: Tensor, reading: _Reading) -> Tensor:
        scale, spread = reading.scale_of(gradient)
        self._found.append(spread)
        return scale

    def check(self) -> None:
        """Make sure that what was read was one weight a response; forgets it. Waits for the device: call it after the passes.

        Raises:
            RuntimeError: it was not.
        """
        found, self._found = self._found, []
        largest = float(torch.stack(found).amax()) if found else 0.0
        if not largest <= TOLERANCE:
            raise RuntimeError(
                "influence.capture: the loss does not weigh all tokens of a response alike (differences reach "
                f"{largest:.1e} of the weight, {TOLERANCE:.0e} is allowed; inf: some have no weight), so that its gradient "
                "is not that of the log-probability; set influence.capture=separate"
            )


class _Reading:
    """Indices of one pass on its device, sent while the forward pass runs."""

    def __init__(self, tokens: PassTokens, wanted: Tensor, weighty: Tensor, place: Tensor) -> None:
        device = place.device
        written = tokens.written.nonzero().squeeze(-1)
        owner = tokens.response[written]
        weighty = weighty & (owner.bincount(minlength=len(tokens.lengths)) > 0)  # without a token there is none to read
        first = torch.searchsorted(owner, torch.arange(len(tokens.lengths))).clamp(max=max(len(owner) - 1, 0))
        self._written, self._owner, self._first, self._wanted, self._weighty = (
            on_device(values, device) for values in (tokens.place[written], owner, first, wanted.float(), weighty)
        )

    def scale_of(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """(wanted / weight [B], the largest relative difference within a response), on the device and without waiting.

        Where a weight is missing, the difference is infinite.
        """
        if not len(self._written):
            return torch.zeros_like(self._wanted), self._wanted.new_zeros(())
        weights = gradient[self._written].float()
        weight = weights[self._first]
        none = weight == 0
        scale = (self._wanted / weight.masked_fill(none, 1)).masked_fill(none, 0)
        of_token = weight[self._owner]
        spread = (weights - of_token).abs() / of_token.abs().masked_fill(of_token == 0, 1)
        return scale, spread.amax().masked_fill((none & self._weighty).any(), torch.inf)


def _jagged(values: Tensor, like: Tensor, lengths: Sequence[int]) -> Tensor:
    """Values [M] with the offsets of another jagged tensor; lengths are told, so that nobody asks the device for them."""
    return torch.nested.nested_tensor_from_jagged(
        values, like.offsets(), min_seqlen=min(lengths), max_seqlen=max(lengths)
    )
