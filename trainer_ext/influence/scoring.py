"""Token influence scores: the definition, and the path from factors to scores.

Symbols, per linear module and group of responses
    u_t, v_t    projected input [k_in] and projected output gradient [k_out] of token t
    g_t         v_t u_t^T, the token's gradient; D = k_in k_out
    g_r         sum of g_t over the tokens of response r
    Omega       [n, R] weights of the responses in each direction (`contrast.py`)
    H           sum of x x^T over tokens or responses, plus lambda I (`curvature.py`); identity mode: I

Formulas
    d           Omega g            directions, one per response where the own one is excluded, else one for all
    W           d H^-1             (`solve.py`)
    score_t     <g_t, W_r(t)> = v_t^T W_r(t) u_t

A positive score pulls toward the accepted side. For every response, the sum of its scores is d_r^T H^-1 g_r. Tokens of
a group without contrast are NaN. Scores add over modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.contrast import contrast_matrix, group_members, response_weights
from trainer_ext.influence.curvature import DenseRows, GradientRows, TokenRows, damping
from trainer_ext.influence.factors import ModuleFactors, Responses, require_known_responses
from trainer_ext.influence.solve import DampedSystem, buffer_bytes, choose_route, solve
from trainer_ext.influence.timing import Phase, PhaseTimer

_DTYPES = {"fp64": torch.float64, "fp32": torch.float32}
_IDENTITY = "identity"


@dataclass(frozen=True, eq=False)
class ModuleResult:
    """Scores of one module."""

    scores: Tensor
    """[T] in the order of the factors, on their device; float32, or float64 with precision fp64. NaN: no contrast."""
    route: str
    """identity, direct, dual, direct+dual (groups differ), or none (no group has a contrast and a token)."""
    residual: float | None
    """Largest |W H - d| / |d| over groups and right-hand sides; None where nothing was solved."""
    timing: dict[Phase, float]
    """Seconds by phase."""
    peak_bytes: int
    """Most bytes beyond the factors held at once, counted from shapes."""


@dataclass(frozen=True, eq=False)
class BatchResult:
    """Scores summed over modules, and what was done for each."""

    scores: Tensor
    """[T], as in `ModuleResult`; summed in float64."""
    routes: dict[str, str]
    residuals: dict[str, float | None]
    dims: dict[str, tuple[int, int]]
    """(k_in, k_out) by module."""
    timing: dict[Phase, float]
    """Seconds by phase, all modules together."""
    peak_bytes: int
    """The largest module's."""


def score_module(
    factors: ModuleFactors,
    responses: Responses,
    config: InfluenceConfig,
    *,
    device: torch.device | str | None = None,
    profile: bool = False,
) -> ModuleResult:
    """Score every token of one linear module.

    Args:
        factors: T tokens in any order; a response may have none (it still counts in a mean).
        responses: R rows that `factors.response` points into.
        config: which score, and by which route.
        device: where to compute; None: where the factors are. Scores return to the device of the factors.
        profile: wait for a GPU at both ends of each phase, so that the timing says where its time went.

    Raises:
        ValueError: a token of an unknown response, or a `reg_lambda` too small to solve with.
    """
    require_known_responses(factors, responses)
    device = torch.device(device or factors.inputs.device)
    timer = PhaseTimer.profiling(device) if profile else PhaseTimer()
    scores = torch.full((factors.tokens,), torch.nan, dtype=_DTYPES[config.precision], device=factors.inputs.device)
    solved = []
    for members in group_members(responses.group, config):
        weights = response_weights(responses.accepted[members], responses.advantage[members], config)
        if weights is None:
            continue
        with timer.phase("grad_staging"):
            group = _stage(factors, responses, members, weights, config, device)
        if len(group.tokens):
            result = _score_group(group, config, timer)
            solved.append(result)
            with timer.phase("score_aggregation"):
                scores[group.tokens] = result.scores.to(scores.device)
    return ModuleResult(
        scores=scores,
        route="+".join(sorted({s.route for s in solved})) or "none",
        residual=max((s.residual for s in solved if s.residual is not None), default=None),
        timing=timer.read(),
        peak_bytes=max((s.peak_bytes for s in solved), default=0),
    )


def score_batch(
    modules: Mapping[str, ModuleFactors],
    responses: Responses,
    config: InfluenceConfig,
    *,
    device: torch.device | str | None = None,
    profile: bool = False,
) -> BatchResult:
    """Score every token over all modules, one module at a time; arguments as in `score_module`.

    Raises:
        ValueError: no module, modules with different tokens, or an error of `score_module` with the module's name.
    """
    first = _shared_response(modules)
    timer = PhaseTimer()
    total = torch.zeros(len(first), dtype=torch.float64, device=first.device)
    routes: dict[str, str] = {}
    residuals: dict[str, float | None] = {}
    peak_bytes = 0
    for name, factors in modules.items():
        try:
            result = score_module(factors, responses, config, device=device, profile=profile)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        with timer.phase("score_aggregation"):
            total += result.scores
        timer.add(result.timing)
        routes[name], residuals[name] = result.route, result.residual
        peak_bytes = max(peak_bytes, result.peak_bytes)
    return BatchResult(
        scores=total.to(_DTYPES[config.precision]),
        routes=routes,
        residuals=residuals,
        dims={name: (factors.k_in, factors.k_out) for name, factors in modules.items()},
        timing=timer.read(),
        peak_bytes=peak_bytes,
    )


def response_gradients(inputs: Tensor, output_grads: Tensor, sizes: list[int]) -> Tensor:
    """g [R, D] from tokens sorted by response.

    Args:
        inputs, output_grads: u [T, k_in] and v [T, k_out].
        sizes: tokens of each of the R responses; they sum to T.
    """
    segments = zip(output_grads.split(sizes), inputs.split(sizes), strict=True)
    return torch.stack([(v.T @ u).flatten() for v, u in segments])


def token_scores(inputs: Tensor, output_grads: Tensor, sizes: list[int], directions: Tensor) -> Tensor:
    """score_t = v_t^T W u_t [T], W being the response's own direction, or the only one.

    Args:
        inputs, output_grads, sizes: as in `response_gradients`.
        directions: W [R, D] or [1, D].
    """
    shape = (output_grads.shape[1], inputs.shape[1])
    matrices = directions.unflatten(1, shape).expand(len(sizes), *shape)
    segments = zip(output_grads.split(sizes), matrices, inputs.split(sizes), strict=True)
    return torch.cat([((v @ w) * u).sum(dim=1) for v, w, u in segments])


@dataclass(frozen=True, eq=False)
class _Group:
    """One group's tokens, sorted by response, in the type and on the device of the computation."""

    tokens: Tensor
    """int64 [T_g], rows of the factors, on their device."""
    sizes: list[int]
    """Tokens of each response of the group."""
    inputs: Tensor
    output_grads: Tensor
    omega: Tensor


@dataclass(frozen=True, eq=False)
class _Solved:
    scores: Tensor
    route: str
    residual: float | None
    peak_bytes: int


def _stage(
    factors: ModuleFactors,
    responses: Responses,
    members: Tensor,
    weights: Tensor,
    config: InfluenceConfig,
    device: torch.device,
) -> _Group:
    home, dtype = factors.response.device, _DTYPES[config.precision]
    rank = torch.full((responses.count,), -1, dtype=torch.int64, device=home)
    rank[members.to(home)] = torch.arange(len(members), device=home)
    token_rank = rank[factors.response]
    tokens = (token_rank >= 0).nonzero().flatten()
    tokens = tokens[token_rank[tokens].argsort(stable=True)]
    return _Group(
        tokens=tokens,
        sizes=token_rank[tokens].bincount(minlength=len(members)).tolist(),
        inputs=factors.inputs[tokens].to(device, dtype),
        output_grads=factors.output_grads[tokens].to(device, dtype),
        omega=contrast_matrix(weights, responses.accepted[members], config).to(device, dtype),
    )


def _score_group(group: _Group, config: InfluenceConfig, timer: PhaseTimer) -> _Solved:
    with timer.phase("grad_staging"):
        gradients = response_gradients(group.inputs, group.output_grads, group.sizes)
    with timer.phase("hessian_solve"):
        directions, route, residual, solve_bytes = _directions(group, gradients, config)
    with timer.phase("token_scoring"):
        scores = token_scores(group.inputs, group.output_grads, group.sizes, directions)
    staged = (group.inputs, group.output_grads, group.omega, gradients)
    return _Solved(scores, route, residual, solve_bytes + sum(tensor.nbytes for tensor in staged))


def _directions(group: _Group, gradients: Tensor, config: InfluenceConfig) -> tuple[Tensor, str, float | None, int]:
    """W [n, D], its route, residual, and the bytes that finding it took."""
    directions = group.omega @ gradients
    if config.hessian_mode == "identity":
        return directions, _IDENTITY, None, directions.nbytes
    rows: GradientRows
    if config.hessian_source == "response":
        rows, coefficients = DenseRows(gradients), group.omega
    else:
        counts = torch.tensor(group.sizes, device=group.omega.device)
        rows, coefficients = TokenRows(group.inputs, group.output_grads), group.omega.repeat_interleave(counts, dim=1)
    route = choose_route(rows, config)
    system = DampedSystem(rows, damping(rows, config.reg_lambda), coefficients, directions)
    solution, residual = solve(system, route)
    return solution, route, residual, buffer_bytes(route, rows, len(directions))


def _shared_response(modules: Mapping[str, ModuleFactors]) -> Tensor:
    """The `response` that all modules share."""
    if not modules:
        raise ValueError("modules: nothing to score, no module was captured")
    first = next(iter(modules.values()))
    for name, factors in modules.items():
        if factors.response is not first.response and not torch.equal(factors.response, first.response):
            raise ValueError(
                f"{name}: its tokens differ from those of {next(iter(modules))}; scores add only over the same tokens"
            )
    return first.response
