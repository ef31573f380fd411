"""Token influence written down as it is defined, and no further: the yardstick for the engine's routes.

Like the public reference it writes every token's gradient out in float32, sums H over them, factors it, solves for one
right-hand side a token, and only then takes dot products with the responses. It knows one contrast, that of the
benchmark's cases: means, the own response left out (and the mean over the rest, where H is inverted).

Symbols, per group of a scope: G [T, D] gradients of tokens, g [R, D] of responses, s_r = +1/n_accepted or
-1/n_rejected, lambda = 0.1 tr(H) / D or `reg_lambda`.

Formulas
    H          G^T G, or g^T g with hessian_source=response; identity mode: I
    S          (H + lambda I)^-1 G^T                  [D, T]
    M          g S                                    [R, T]
    score_t    sum over r other than r(t) of s_r M_rt, s of r(t)'s own class times n / (n - 1) where H is inverted
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses

CHUNK_BYTES = 4 * 2**30
"""Most bytes of token gradients that are written out at once, as in the reference; the solve holds as much again."""


def plain_scores(
    factors: ModuleFactors, responses: Responses, config: InfluenceConfig, *, chunk_bytes: int = CHUNK_BYTES
) -> Tensor:
    """Scores [T] float32 of one module, NaN in a group without contrast.

    Raises:
        ValueError: rounded factors, or a config that this does not implement.
    """
    _require_supported(factors, config)
    scores = torch.full((factors.tokens,), torch.nan, device=factors.inputs.device)
    labels = responses.group if config.scope == "per_prompt" else torch.zeros_like(responses.group)
    with _full_float32():
        for label in labels.unique():
            members = (labels == label).nonzero().flatten()
            omega = _contrast(responses.accepted[members], renormalise=config.hessian_mode == "inverse")
            rank = torch.full((responses.count,), -1, device=members.device)
            rank[members] = torch.arange(len(members), device=members.device)
            tokens = (rank[factors.response] >= 0).nonzero().flatten()
            if omega is not None and len(tokens):
                group = _Tokens(factors, tokens, rank[factors.response[tokens]], chunk_bytes)
                _score_group(group, omega, config, scores)
    return scores


@dataclass(frozen=True, eq=False)
class _Tokens:
    """A group's tokens, their gradients written out chunk by chunk."""

    factors: ModuleFactors
    tokens: Tensor
    """int64 [T_g], rows of the factors."""
    rank: Tensor
    """int64 [T_g], row of the group's responses."""
    chunk_bytes: int

    @property
    def dim(self) -> int:
        return self.factors.k_in * self.factors.k_out

    def chunks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(tokens [c], rank [c], G [c, D]) of consecutive tokens."""
        size = max(1, self.chunk_bytes // (4 * self.dim))
        for tokens, rank in zip(self.tokens.split(size), self.rank.split(size), strict=True):
            u, v = self.factors.inputs[tokens].float(), self.factors.output_grads[tokens].float()
            yield tokens, rank, (v[:, :, None] * u[:, None, :]).flatten(1)


def _score_group(group: _Tokens, omega: Tensor, config: InfluenceConfig, scores: Tensor) -> None:
    """Write the scores of one group; `omega` [R, R]."""
    by_token = config.hessian_mode == "inverse" and config.hessian_source == "token"
    gradients = scores.new_zeros(len(omega), group.dim)
    hessian = scores.new_zeros(group.dim, group.dim) if config.hessian_mode == "inverse" else None
    for _, rank, rows in group.chunks():
        gradients.addmm_(one_hot(rank, len(omega)).T.to(rows.dtype), rows)
        if hessian is not None and by_token:
            hessian.addmm_(rows.T, rows)
        del rows  # or two chunks are held while the next one is written out
    factor = None
    if hessian is not None:
        if not by_token:
            hessian.addmm_(gradients.T, gradients)
        damping = config.reg_lambda if config.reg_lambda > 0 else 0.1 * float(hessian.diagonal().mean())
        hessian.diagonal().add_(damping)
        factor = torch.linalg.cholesky(hessian)
    del hessian
    for tokens, rank, rows in group.chunks():
        solved = rows.T if factor is None else torch.cholesky_solve(rows.T, factor)
        scores[tokens] = (omega[rank] * (gradients @ solved).T).sum(dim=1)
        del rows, solved


def _contrast(accepted: Tensor, *, renormalise: bool) -> Tensor | None:
    """Omega [R, R] float32, row r for the tokens of response r; None where all are accepted or none is."""
    n_accepted = int(accepted.sum())
    n_rejected = len(accepted) - n_accepted
    if 0 in (n_accepted, n_rejected):
        return None
    size = torch.where(accepted, float(n_accepted), float(n_rejected))
    omega = (torch.where(accepted, 1.0, -1.0) / size).repeat(len(accepted), 1)
    if renormalise:
        own_class = accepted[:, None] == accepted[None, :]
        omega = torch.where(own_class, omega * size / (size - 1).clamp(min=1), omega)
    return omega.fill_diagonal_(0)


def _require_supported(factors: ModuleFactors, config: InfluenceConfig) -> None:
    if factors.exponent is not None:
        raise ValueError("factors: the plain implementation takes unrounded rows, these carry exponents")
    wanted = {
        "contrastive_agg": "mean",
        "exclude_self_response": True,
        "leave_one_out": "auto",
        "true_loo": False,
        "token_unit_norm": False,
    }
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(f"{name}: the plain implementation has {value!r} alone, got {getattr(config, name)!r}")
    if config.scope == "global":
        raise ValueError("scope: the plain implementation knows one rank, use per_prompt or all_selected")


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products in true float32: TF32 would be another algorithm."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
