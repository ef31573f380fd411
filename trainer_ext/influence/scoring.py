"""Token influence scores: the definition, and the path from factors to scores.

Symbols, per linear module and group of responses
    u_t, v_t    projected input [k_in] and projected output gradient [k_out] of token t
    g_t         v_t u_t^T, the token's gradient; D = k_in k_out
    g_r         sum of g_t over the tokens of response r
    Omega       [n, R] weights of the responses in each direction (`contrast.py`)
    H           sum of x x^T over tokens or responses, plus lambda I (`curvature.py`); identity mode: I

Formulas
    d           Omega g            directions, one per response where the own one is excluded, else one for all
    W           d H^-1             (`solve.py`); true leave-one-out: d_r H_-r^-1
    score_t     <g_t, W_r(t)> = v_t^T W_r(t) u_t
    unit norm   identity: with g_t / |g_t| for every g_t; inverse: score_t / sqrt(g_t^T H^-1 g_t)

A positive score pulls toward the accepted side. For every response, the sum of its scores is d_r^T H^-1 g_r. Tokens of
a group without contrast are NaN. Scores add over modules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.cost import measured_rates
from trainer_ext.influence.factors import ModuleFactors, Responses, require_known_responses
from trainer_ext.influence.layout import Layout, layout_of
from trainer_ext.influence.modules import Module, ModuleScorer, waiting_bytes
from trainer_ext.influence.precision import Precision, resolve, score_dtype
from trainer_ext.influence.timing import Phase, PhaseTimer
from trainer_ext.influence.workspace import workspace_bytes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ModuleResult:
    """Scores of one module."""

    scores: Tensor
    """[T] in the order of the factors, on their device; float32, or float64 with precision fp64. NaN: no contrast."""
    route: str
    """identity, direct, dual, pcg, some of them joined by + (groups differ), or none (no group has a contrast and a
    token)."""
    residual: float | None
    """Largest |W H - d| / |d| over groups and right-hand sides, or of a group an estimate of its root mean square
    (`certificate.py`); None where nothing was solved."""
    timing: dict[Phase, float]
    """Seconds by phase, of the device's own work."""
    peak_bytes: int
    """Most bytes beyond the factors held at once, counted from shapes (`workspace.py`)."""


@dataclass(frozen=True)
class RouteRecord:
    """A choice of the cost model, and how it turned out."""

    module: str
    route: str
    predicted_seconds: float
    seconds: float


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
    choices: list[RouteRecord]
    """Of the modules whose route was chosen and not given."""


class Modules(Protocol):
    """Factors by module name: a dict, or a store that brings them to the device one by one."""

    def items(self) -> Iterable[tuple[str, ModuleFactors]]:
        """Name and factors; asked for once."""

    def __len__(self) -> int: ...


@runtime_checkable
class _CheckedInTheEnd(Protocol):
    """Modules whose values are looked at once all of them were read."""

    def require_finite(self) -> None: ...


def require_finite(modules: Mapping[str, ModuleFactors] | Modules) -> None:
    """After an error: where a value is not finite that was not looked at yet, that is the cause, whatever it led to.

    Raises:
        ValueError: there is one; with the module's name.
    """
    if isinstance(modules, _CheckedInTheEnd):
        modules.require_finite()


def score_module(
    factors: ModuleFactors,
    responses: Responses,
    config: InfluenceConfig,
    *,
    device: torch.device | str | None = None,
) -> ModuleResult:
    """Score every token of one module.

    Args:
        factors: T tokens in any order; a response may have none (it still counts in a mean).
        responses: R rows that `factors.response` points into.
        config: which score, and by which route.
        device: where to compute; None: where the factors are. Scores return to the device of the factors.

    Raises:
        ValueError: a token of an unknown response, or a `reg_lambda` too small to solve with.
    """
    result = score_batch({_ONLY: factors}, responses, config, device=device)
    return ModuleResult(
        scores=result.scores,
        route=result.routes[_ONLY],
        residual=result.residuals[_ONLY],
        timing=result.timing,
        peak_bytes=result.peak_bytes,
    )


def score_batch(
    modules: Mapping[str, ModuleFactors] | Modules,
    responses: Responses,
    config: InfluenceConfig,
    *,
    device: torch.device | str | None = None,
) -> BatchResult:
    """Score every token over all modules, one module at a time; arguments as in `score_module`.

    With `auto`, the choices, what was predicted and what it took are logged at INFO.

    Raises:
        ValueError: no module, modules with different tokens, or an error of `score_module` with the module's name.
    """
    if config.scope == "global" and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise ValueError("scope: global over several ranks is scored by all of them together: `score_batch_over_ranks`")
    if not len(modules):
        raise ValueError("modules: nothing to score, no module was captured")
    waiting = waiting_bytes(modules)
    source = iter(modules.items())
    name, factors = next(source)
    try:
        batch = _Batch(name, factors, responses, config, device, waiting)
        result = batch.score(chain([(name, factors)], source))
    except (ValueError, torch.linalg.LinAlgError):
        require_finite(modules)
        raise
    log_choices(result)
    return result


_ONLY = ""
"""Name of the module of `score_module`, which no message needs."""


class _Batch:
    """What the modules of a batch have in common."""

    def __init__(
        self,
        name: str,
        factors: ModuleFactors,
        responses: Responses,
        config: InfluenceConfig,
        device: torch.device | str | None,
        waiting: float,
    ) -> None:
        try:
            require_known_responses(factors, responses)
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if name else str(error)) from error
        self._first, self._response, self._config = name, factors.response, config
        self._device = torch.device(device) if device is not None else factors.inputs.device
        self._precision: Precision = resolve(config.precision, self._device)
        self._layout: Layout = layout_of(factors.response, responses, config, self._device)
        self._waiting = waiting
        self._dims: dict[str, tuple[int, int]] = {}

    def score(self, items: Iterable[tuple[str, ModuleFactors]]) -> BatchResult:
        if self._config.solver == "auto" and self._config.hessian_mode == "inverse":
            measured_rates(self._device, self._precision)  # before the first phase is timed
        timer = PhaseTimer.on(self._device)
        scorer = ModuleScorer(self._layout, self._config, self._precision, timer, waiting_bytes=self._waiting)
        total = torch.zeros(self._layout.rows, dtype=torch.float64, device=self._device)
        done: dict[str, Module] = {}
        for module in self._finished(scorer, items):
            with timer.phase("score_aggregation"):
                total += module.scores
            module.release()
            done[module.name] = module
        known = {name: done.get(name) for name in self._dims}
        return BatchResult(
            scores=self._in_order(total),
            routes={name: module.route if module else "none" for name, module in known.items()},
            residuals={name: max(module.residuals, default=None) if module else None for name, module in known.items()},
            dims=self._dims,
            timing=timer.read(),
            peak_bytes=max(self._workspace(name, module) for name, module in known.items()),
            choices=[record for name in self._dims if name in done for record in _records(done[name])],
        )

    def _finished(self, scorer: ModuleScorer, items: Iterable[tuple[str, ModuleFactors]]) -> Iterator[Module]:
        for name, factors in items:
            self._dims[name] = (factors.k_in, factors.k_out)
            try:
                if factors.response is not self._response and not torch.equal(factors.response, self._response):
                    raise ValueError(
                        f"its tokens differ from those of {self._first}; scores add only over the same tokens"
                    )
                if self._layout.groups:
                    yield from scorer.push(name, factors)
            except ValueError as error:
                raise ValueError(f"{name}: {error}" if name else str(error)) from error
            del factors  # the next one may be brought while this name is still bound
        yield from scorer.finish()

    def _in_order(self, total: Tensor) -> Tensor:
        """[T] in the order of the factors and on their device."""
        home = self._response.device
        typed = total.to(score_dtype(self._precision))
        if self._layout.order is None:
            return torch.where(self._layout.owner >= 0, typed, torch.nan).to(home)
        out = torch.full((len(self._response),), torch.nan, dtype=typed.dtype, device=home)
        out[self._layout.order.to(home)] = typed.to(home)
        return out

    def _workspace(self, name: str, module: Module | None) -> int:
        if module is None:
            return 0
        return workspace_bytes(self._dims[name], self._layout, module.routes, self._config, self._precision)


def _records(module: Module) -> list[RouteRecord]:
    if not module.choices:
        return []
    predicted = sum(choice.predicted[choice.route] for choice in module.choices)
    spent = sum(share * span.seconds for span, share in module.spans)
    return [RouteRecord(module.name, module.route, predicted, spent)]


def log_choices(result: BatchResult) -> None:
    """One line for each route and size of module."""
    rows: dict[tuple[str, int], list[RouteRecord]] = {}
    for record in result.choices:
        k_in, k_out = result.dims[record.module]
        rows.setdefault((record.route, k_in * k_out), []).append(record)
    for (route, dim), records in rows.items():
        _log.info(
            "route %s for %d modules of D=%d: predicted %.3g s, took %.3g s",
            route,
            len(records),
            dim,
            sum(record.predicted_seconds for record in records),
            sum(record.seconds for record in records),
        )
