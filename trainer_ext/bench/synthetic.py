"""Synthetic factors that are as hard as real ones: spread in every direction in which a real batch is spread.

Symbols, per linear module (z: standard normal, drawn by a seeded generator of the device itself)
    u_t    (m + a_r(t) + S_u z_t) Q_u          inputs
    v_t    n_t (b_r(t) + S_v z_t) Q_v          output gradients
    S      diagonal, S_ii^2 proportional to i^-alpha, trace 1: a power law
    m      one fixed vector: the mean activation that all tokens of a real model share
    a, b   one vector a response: what its tokens have in common
    n_t    lognormal token norm: a few tokens hold most of tr H
    Q      orthogonal, so that no coordinate is special

Lengths of responses are lognormal too and sum to T exactly. Tokens lie in the order in which a trainer would hand them
over: together by response, the responses in no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer_ext.influence import ModuleFactors, Responses
from trainer_ext.influence.storage import half_output_grads, half_rows

LENGTH_SIGMA = 0.5
INPUT_ALPHA, GRAD_ALPHA = 1.0, 0.5
MEAN_SHARE = 0.5
"""Share of an input's energy in the common mean m; of the rest, `COMMON_SHARE` is in a."""
COMMON_SHARE = 0.1
"""Share of a row's energy, the mean aside, that the tokens of one response have in common."""
NORM_SIGMA = 1.25
INPUT_SCALE, GRAD_SCALE = 8.0, 1e-5
"""Root mean square length of u and median length of v: the second is below what float16 holds without a scale."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What all modules of a batch share."""

    responses: Responses
    response: Tensor
    """int64 [T], on the device: row of `responses` of each token."""
    lengths: tuple[int, ...]
    """Tokens of each response; they sum to T."""


def response_lengths(tokens: int, responses: int, generator: torch.Generator) -> list[int]:
    """Lognormal lengths that sum to `tokens`; none is zero where there are tokens enough.

    Raises:
        ValueError: no responses, or negative tokens.
    """
    if responses < 1 or tokens < 0:
        raise ValueError(f"lengths need 1 response or more and no negative tokens, got {responses} and {tokens}")
    floor = 1 if tokens >= responses else 0
    weights = (torch.randn(responses, generator=generator, dtype=torch.float64) * LENGTH_SIGMA).exp()
    share = weights / weights.sum() * (tokens - floor * responses)
    lengths = share.floor().long() + floor
    # what rounding down left over goes to the largest remainders, one token each
    lengths[(share - share.floor()).argsort(descending=True)[: tokens - int(lengths.sum())]] += 1
    return [int(length) for length in lengths]


def make_responses(prompts: int, per_prompt: int, generator: torch.Generator) -> Responses:
    """About half of each prompt's responses accepted, at least one on each side; advantages normalised in a prompt.

    Raises:
        ValueError: no prompt, or fewer than two responses a prompt (nothing to contrast).
    """
    if prompts < 1 or per_prompt < 2:
        raise ValueError(f"--prompts must be 1 or more and --per-prompt 2 or more, got {prompts} and {per_prompt}")
    accepted = torch.zeros(prompts, per_prompt, dtype=torch.bool)
    for row in accepted:
        off_half = int(torch.randint(-1, 2, (1,), generator=generator))
        count = min(max(per_prompt // 2 + off_half, 1), per_prompt - 1)
        row[torch.randperm(per_prompt, generator=generator)[:count]] = True
    reward = accepted.double()
    advantage = (reward - reward.mean(dim=1, keepdim=True)) / reward.std(dim=1, keepdim=True)
    return Responses(
        group=torch.arange(prompts).repeat_interleave(per_prompt),
        accepted=accepted.flatten(),
        advantage=advantage.flatten(),
    )


def make_batch(tokens: int, prompts: int, per_prompt: int, *, seed: int, device: torch.device) -> Batch:
    """Responses, lengths and the order of tokens; the same numbers on every device.

    Raises:
        ValueError: see `make_responses` and `response_lengths`.
    """
    generator = torch.Generator().manual_seed(seed)
    responses = make_responses(prompts, per_prompt, generator)
    lengths = torch.tensor(response_lengths(tokens, responses.count, generator))
    order = torch.randperm(responses.count, generator=generator)
    on_device = Responses(responses.group.to(device), responses.accepted.to(device), responses.advantage.to(device))
    return Batch(on_device, order.repeat_interleave(lengths[order]).to(device), tuple(lengths.tolist()))


def exact_factors(batch: Batch, k_in: int, k_out: int, *, seed: int) -> ModuleFactors:
    """Unrounded float32 factors of one module; device and seed decide the numbers."""
    device = batch.response.device
    generator = torch.Generator(device=device).manual_seed(seed)
    inputs = _spread_rows(batch, k_in, INPUT_ALPHA, generator)
    mean = _unit(torch.randn(k_in, generator=generator, device=device))
    inputs = inputs.mul_(INPUT_SCALE * (1 - MEAN_SHARE) ** 0.5).add_(mean, alpha=INPUT_SCALE * MEAN_SHARE**0.5)
    output_grads = _spread_rows(batch, k_out, GRAD_ALPHA, generator)
    norms = torch.randn(len(batch.response), 1, generator=generator, device=device).mul_(NORM_SIGMA).exp_()
    return ModuleFactors(inputs, output_grads.mul_(norms.mul_(GRAD_SCALE)), batch.response)


def stored_factors(exact: ModuleFactors, precision: str) -> ModuleFactors:
    """The form in which an engine of this precision keeps the factors: float16 with a power of two a token for `fast`,
    float64 for `fp64`, else as they are."""
    if precision == "fp64":
        return ModuleFactors(exact.inputs.double(), exact.output_grads.double(), exact.response)
    if precision != "fast":
        return exact
    inputs, input_exponent = half_rows(exact.inputs)
    output_grads, exponent = half_output_grads(exact.output_grads, input_exponent)
    return ModuleFactors(inputs, output_grads, exact.response, exponent)


def _spread_rows(batch: Batch, width: int, alpha: float, generator: torch.Generator) -> Tensor:
    """[T, width] float32 of unit root mean square length: a power law, and a part that a response's tokens share."""
    device = batch.response.device
    scale = _unit(torch.arange(1, width + 1, device=device, dtype=torch.float32).pow_(-alpha / 2))
    common = torch.randn(batch.responses.count, width, generator=generator, device=device).mul_(scale)
    rows = torch.randn(len(batch.response), width, generator=generator, device=device)
    rows.mul_(scale).mul_((1 - COMMON_SHARE) ** 0.5)
    rows.add_(common[batch.response], alpha=COMMON_SHARE**0.5)
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, device=device))
    return rows @ rotation


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()
