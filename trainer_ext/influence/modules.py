"""Modules of a batch one after another, from factors to scores; those whose systems are pooled come out later.

A module is staged (rows, response gradients, a system for each group); systems are solved at once or put into the pool
of their size; a full pool is solved and its answers are judged against the rows, beside the sums of the modules that
follow, since that is a chain of small steps. When the next pool of its size is full, or nothing is left, answers that
fall short are refined, and modules whose groups are all solved are scored. Waiting modules hold sums, right-hand sides and
their factors, not staged rows: rows are staged again. Where factors come from the host, because the device has no room for
all of them, many large ones do not wait together (`WAITING_BYTES`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from trainer_ext.influence.certificate import probed_residuals
from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.cost import Choice
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.direct import Attempt, Pool, solve_dense
from trainer_ext.influence.factorisation import BlockedFactor, DenseFactor, DualFactor
from trainer_ext.influence.factors import ModuleFactors
from trainer_ext.influence.layout import Layout
from trainer_ext.influence.precision import Precision, tolerance
from trainer_ext.influence.quadratic import through_gram, through_inverse
from trainer_ext.influence.response_source import MOST_RESPONSES, by_group, solve_response_source
from trainer_ext.influence.segments import response_gradients, token_scores
from trainer_ext.influence.solve import Route, Solution, refined, solve_dual, solve_pcg
from trainer_ext.influence.staging import Staged, staged
from trainer_ext.influence.storage import StoredFactors
from trainer_ext.influence.streams import SecondStream
from trainer_ext.influence.systems import GroupSystem, direction_rows, group_rows, group_systems, routes_of
from trainer_ext.influence.timing import PhaseTimer, Span

PROBED_TOLERANCE = 1e-4
"""Smallest tolerance that a probed residual may certify."""
EXACT_LENGTHS = 1e-5
"""Tolerance below which lengths of tokens need more than the tensor cores' factor."""
WAITING_BYTES = 0.5e9
"""Most bytes of factors of the modules that wait in one pool, beyond two modules."""
IDENTITY = "identity"


def waiting_bytes(source: object) -> float:
    """Most bytes of factors that may wait in one pool, given where they come from: any, if all of them have their place
    already."""
    in_place = isinstance(source, Mapping) or (
        isinstance(source, StoredFactors) and not source.held_bytes(on_host=True)
    )
    return math.inf if in_place else WAITING_BYTES


@dataclass(eq=False)
class Module:
    """One module on its way."""

    name: str
    factors: ModuleFactors | None
    systems: list[GroupSystem] = field(default_factory=list)
    """By group; none with identity."""
    routes: Sequence[Route] = ()
    choices: list[Choice] = field(default_factory=list)
    directions: dict[int, Tensor] = field(default_factory=dict)
    """W, float64 [n, D], of each group that is solved."""
    residuals: list[float] = field(default_factory=list)
    lengths: Tensor | None = None
    """sqrt(g_t^T H^-1 g_t), float64 [T'], with `token_unit_norm`; one where it is zero or unknown."""
    spans: list[tuple[Span, float]] = field(default_factory=list)
    """Times spent on systems, and this module's share of each."""
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    """float64 [T'] once finished."""

    def release(self) -> None:
        """Keep what is reported, let go of what takes memory."""
        self.factors, self.scores, self.systems = None, torch.empty(0), []

    @property
    def route(self) -> str:
        """identity, or the routes of its groups."""
        return "+".join(sorted(set(self.routes))) or IDENTITY


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A system in a pool."""

    module: Module
    group: int


@dataclass(frozen=True, eq=False)
class _Launched:
    """A pool that is being solved."""

    pool: Pool
    waiting: list[_Waiting]
    attempt: Attempt
    residuals: Tensor
    """float64 [systems]; infinite where only the refinement can tell."""
    span: Span


class ModuleScorer:
    """Scores modules that share a layout.

    Args:
        timer: gets the time of every phase.
        waiting_bytes: most bytes of factors of the modules that wait in one pool, beyond two modules.
    """

    def __init__(
        self,
        layout: Layout,
        config: InfluenceConfig,
        precision: Precision,
        timer: PhaseTimer,
        *,
        waiting_bytes: float,
    ) -> None:
        self._layout, self._config, self._precision, self._timer = layout, config, precision, timer
        self._waiting_bytes = waiting_bytes
        self._tolerance = tolerance(config, precision)
        self._direction_rows = direction_rows(layout.groups)
        self._pools: dict[tuple[int, int], tuple[Pool, list[_Waiting]]] = {}
        self._launched: dict[tuple[int, int], _Launched] = {}
        self._second = SecondStream(layout.device, "solutions")

    def push(self, name: str, factors: ModuleFactors) -> Iterator[Module]:
        """Take a module; yields those that are finished by it."""
        module = Module(name, factors)
        with self._timer.phase("grad_staging"):
            rows = staged(factors, self._layout, self._config, self._precision)
            gradients = response_gradients(rows.rows, self._layout)
        if self._config.hessian_mode == "identity":
            with self._timer.phase("hessian_solve"):
                module.directions = by_group(self._layout.weights @ gradients, self._layout)
        elif self._all_at_once:
            with self._timer.phase("hessian_solve") as span:
                solved, residual = solve_response_source(rows, gradients, self._layout, self._config)
                module.directions, module.residuals = by_group(solved, self._layout), [residual]
                module.routes = ["dual"]
            module.spans.append((span, 1.0))
        else:
            with self._timer.phase("hessian_solve") as span:
                by_token = self._config.hessian_source == "token"
                norms = rows.rows.square_norms() if by_token else gradients.square().sum(dim=1)
                module.systems = group_systems(rows, gradients, norms, self._layout, self._config)
                module.routes, module.choices = routes_of(
                    module.systems, rows.rows.sides, self._config, self._precision
                )
            module.spans.append((span, 1.0))
            for number in range(len(module.systems)):
                yield from self._take(module, number, rows, norms)
        if len(module.directions) == len(self._layout.groups):
            yield self._scored(module, rows)

    def finish(self) -> Iterator[Module]:
        """Yield those that still wait."""
        for sides in list(self._pools):
            yield from self._drained(sides)
        for sides in list(self._launched):
            yield from self._settled(sides)

    @property
    def _all_at_once(self) -> bool:
        """Whether the responses' own Gram matrix solves all groups in one go."""
        small = len(self._layout.spans) <= MOST_RESPONSES
        given = self._config.solver in ("auto", "dual") and not self._config.token_unit_norm
        return self._config.hessian_source == "response" and small and given

    def _take(self, module: Module, number: int, rows: Staged, norms: Tensor) -> Iterator[Module]:
        """Solve one system, or put it into a pool; yields modules that an emptied pool finished."""
        system = module.systems[number]
        pooled = module.routes[number] == "direct" and rows.half is not None and system.dense is None
        if not pooled or (self._config.token_unit_norm and self._tolerance < EXACT_LENGTHS):
            with self._timer.phase("hessian_solve") as span:
                self._keep(module, number, self._solved(system, module.routes[number], rows), rows)
            module.spans.append((span, 1.0))
            return
        sides = rows.rows.sides
        if sides in self._pools and not self._fits(*self._pools[sides], module):
            yield from self._drained(sides)
        with self._timer.phase("hessian_solve") as span:
            if sides not in self._pools:
                self._pools[sides] = Pool.of(sides, self._layout.device, len(self._layout.groups)), []
            pool, waiting = self._pools[sides]
            assert rows.half is not None
            half = group_rows(rows.half, system.group)
            pool.add(half, norms[system.group.tokens], system.damping, system.directions)
            waiting.append(_Waiting(module, number))
        module.spans.append((span, 1.0))

    def _fits(self, pool: Pool, waiting: Sequence[_Waiting], module: Module) -> bool:
        """Whether a pool has room for one more system, of this module."""
        together = {module, *(one.module for one in waiting)}
        held = sum(one.factors.nbytes for one in together if one.factors is not None)
        return pool.room > 0 and (len(together) <= 2 or held <= self._waiting_bytes)

    def _solved(self, system: GroupSystem, route: Route, rows: Staged) -> Solution:
        damped = system.over(rows.rows)
        if route == "dual":
            return solve_dual(damped, self._tolerance)
        if route == "pcg":
            return solve_pcg(damped, self._tolerance)
        return solve_dense(damped, self._tolerance)

    def _drained(self, sides: tuple[int, int]) -> Iterator[Module]:
        """Have a pool solved; yields the modules that the last one of its size finished."""
        yield from self._settled(sides)
        pool, waiting = self._pools.pop(sides)
        with self._second.beside():
            span = Span.on(self._layout.device)
            attempt = pool.attempt()
            residuals = self._judged(waiting, attempt)
            span.close()
        self._launched[sides] = _Launched(pool, waiting, attempt, residuals, span)

    def _settled(self, sides: tuple[int, int]) -> Iterator[Module]:
        """Yield the modules that the pool being solved, if there is one, finishes."""
        launched = self._launched.pop(sides, None)
        if launched is None:
            return
        waiting = launched.waiting
        with self._timer.phase("hessian_solve"):
            answers = launched.attempt.answers
            with self._second.reading():
                usable, residuals = all(launched.attempt.usable.tolist()), launched.residuals.tolist()
            if not usable:  # takes memory anew, of which the caller's stream may still be reading some
                with self._second.beside():
                    answers, residuals = launched.pool.solve(launched.attempt), [torch.inf] * len(waiting)
            self._second.join()
            for one, (w, factor), residual in zip(waiting, answers, residuals, strict=True):
                self._settle(one, w, factor, residual)
        done = []
        for one in waiting:
            one.module.spans.append((launched.span, 1 / len(waiting)))
            if len(one.module.directions) == len(one.module.systems) and one.module not in done:
                done.append(one.module)
        for module in done:
            yield self._scored(module, self._staged(module))

    def _judged(self, waiting: Sequence[_Waiting], attempt: Attempt) -> Tensor:
        """Residuals of a pool's answers, float64 [systems]."""
        if self._config.true_loo or self._precision != "fast" or self._tolerance < PROBED_TOLERANCE:
            return attempt.usable.new_full((len(waiting),), torch.inf, dtype=torch.float64)
        found = []
        answers = [w for w, _ in attempt.answers]
        for module, some in groupby(zip(waiting, answers, strict=True), key=lambda pair: pair[0].module):
            rows = self._staged(module).rows
            systems = {one.group: (module.systems[one.group], answer) for one, answer in some}
            found.append(probed_residuals(rows, self._layout, systems))
        return torch.cat(found)

    def _settle(self, one: _Waiting, answer: Tensor, factor: BlockedFactor, residual: float) -> None:
        solution = Solution(answer, residual, factor)
        rows = None
        if not residual <= self._tolerance:
            rows = self._staged(one.module)
            system = one.module.systems[one.group].over(rows.rows)
            solution = refined(system, answer, factor, self._tolerance)
        self._keep(one.module, one.group, solution, rows)

    def _keep(self, module: Module, number: int, solution: Solution, rows: Staged | None) -> None:
        module.directions[number] = solution.directions
        module.residuals.append(solution.residual)
        if self._config.token_unit_norm:
            rows = rows or self._staged(module)
            if module.lengths is None:
                module.lengths = torch.ones(self._layout.rows, dtype=torch.float64, device=self._layout.device)
            group = self._layout.groups[number]
            module.lengths[group.tokens] = _lengths(group_rows(rows.rows, group), solution)

    def _scored(self, module: Module, rows: Staged) -> Module:
        with self._timer.phase("token_scoring"):
            matrices = torch.cat([module.directions[number] for number in range(len(self._layout.groups))])
            module.scores = token_scores(rows.rows, self._layout, matrices, self._direction_rows)
            if module.lengths is not None:
                module.scores = module.scores / module.lengths
            if module.route == IDENTITY:
                module.scores = module.scores * rows.unit.square()
        module.directions, module.lengths = {}, None
        return module

    def _staged(self, module: Module) -> Staged:
        assert module.factors is not None
        return staged(module.factors, self._layout, self._config, self._precision)


def _lengths(rows: TokenRows, solution: Solution) -> Tensor:
    if isinstance(solution.inverse, DualFactor):
        squares = through_gram(rows, solution.inverse)
    else:
        assert isinstance(solution.inverse, DenseFactor | BlockedFactor)
        squares = through_inverse(rows, solution.inverse.inverse())
    lengths = squares.clamp(min=0).sqrt()
    return lengths.masked_fill(lengths <= 0, 1.0)
