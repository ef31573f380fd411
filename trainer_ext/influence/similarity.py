"""Similarity of response gradients, plain and under the inverse Hessian.

Symbols, per linear module
    g_r         gradient of response r, the sum of its tokens' v_t u_t^T; D = k_in k_out
    H           sum of x x^T over the tokens or responses of a group, plus lambda I (`curvature.py`)

Formulas, both summed over modules
    RAW_DOT     g_r . g_r'
    HINV_DOT    g_r^T H^-1 g_r' = g_r . W_r', W = g H^-1 (`solve.py`), with the H of the group that both are in: their
                prompt's (scope per_prompt; no dot between prompts), else one for all

Example: four responses of one prompt with the gradients (1, 0), (3, 4), (0, 2) and (0, -1), the first two accepted.

    >>> import torch
    >>> from trainer_ext.influence.config import InfluenceConfig
    >>> from trainer_ext.influence.factors import ModuleFactors, Responses
    >>> inputs = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0], [0.0, -1.0]])
    >>> factors = ModuleFactors(inputs, output_grads=torch.ones(4, 1), response=torch.arange(4))
    >>> accepted = torch.tensor([True, True, False, False])
    >>> responses = Responses(group=torch.zeros(4, dtype=torch.int64), accepted=accepted, advantage=torch.ones(4))
    >>> result = similarity({"layers.0.q_proj": factors}, responses, InfluenceConfig())
    >>> result.raw_dot[0].tolist()
    [1.0, 3.0, 0.0, 0.0]
    >>> for row in result.table()[:3]:
    ...     print(f"{row.matrix} {row.scope} {row.pair} {row.mean:g} {row.cosine:g} {row.self_dot:g} {row.pairs}")
    RAW_DOT PER_PROMPT acc-acc 3 0.6 13 1
    RAW_DOT PER_PROMPT rej-rej -2 -1 2.5 1
    RAW_DOT PER_PROMPT acc-rej 1 0 nan 4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.contrast import group_members
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.direct import Pool, solve_dense
from trainer_ext.influence.factors import ModuleFactors, Responses, require_known_responses
from trainer_ext.influence.layout import Chosen, Layout, arranged
from trainer_ext.influence.pair_table import ComparedResponses, SimilarityRow
from trainer_ext.influence.precision import Precision, resolve, tolerance
from trainer_ext.influence.response_source import MOST_RESPONSES, solve_response_source
from trainer_ext.influence.scoring import Modules
from trainer_ext.influence.segments import response_gradients
from trainer_ext.influence.solve import DampedSystem, Route, Solution, refined, solve_dual, solve_pcg
from trainer_ext.influence.staging import Staged, staged
from trainer_ext.influence.systems import GroupSystem, group_rows, group_systems, routes_of


@dataclass(frozen=True, eq=False)
class Similarity:
    """Dots of a batch's responses, summed over modules; on the CPU."""

    raw_dot: Tensor
    """float64 [R, R]; zero for responses without a token."""
    hinv_dot: Tensor | None
    """float64 [R, R]; NaN exactly between responses with different Hessians, None with hessian_mode identity."""
    residual: float | None
    """Largest |W H - g| / |g| over modules and responses; None where nothing was solved."""
    responses: ComparedResponses

    @classmethod
    def joined(cls, ranks: Sequence[Self]) -> Self:
        """Several ranks' as one; entries between ranks mean nothing."""
        hinv = [part.hinv_dot for part in ranks if part.hinv_dot is not None]
        return cls(
            torch.block_diag(*(part.raw_dot for part in ranks)),
            torch.block_diag(*hinv) if hinv else None,
            max((part.residual for part in ranks if part.residual is not None), default=None),
            ComparedResponses.joined([part.responses for part in ranks]),
        )

    def table(self) -> list[SimilarityRow]:
        """Six rows a matrix: each class of pairs, within prompts and over all."""
        rows = self.responses.rows("RAW_DOT", self.raw_dot)
        return rows if self.hinv_dot is None else rows + self.responses.rows("HINV_DOT", self.hinv_dot)


def similarity(
    modules: Mapping[str, ModuleFactors] | Modules,
    responses: Responses,
    config: InfluenceConfig,
    *,
    device: torch.device | str | None = None,
) -> Similarity:
    """Compare every response's gradient with every other's, over all modules.

    Gradients and Hessians are those that tokens are scored with, but what changes a contrast or the score of a single
    token changes nothing here: `contrastive_agg`, `exclude_self_response`, `leave_one_out`, `true_loo` and
    `token_unit_norm` are not looked at, and prompts without a contrast count like all others. A `global` Hessian is
    that of the given tokens, one rank's.

    Args:
        modules: T tokens in any order, the same in each module; read once.
        responses: R rows that the tokens point into.
        config: which Hessian, and by which route and precision.
        device: where to compute; None: where the first module's factors are.

    Raises:
        ValueError: no module, modules with different tokens, a token of an unknown response, or a `reg_lambda` too small
            to solve with; with the module's name.
    """
    sums = SimilaritySums(responses, config, device=device)
    for name, factors in modules.items():
        sums.add(name, factors)
        del factors  # a store may bring the next module while this name is still bound
    return sums.result()


class SimilaritySums:
    """`similarity` of modules that come one at a time, on their way elsewhere: a store can be read only once.

    Args:
        responses, config, device: as there.
    """

    def __init__(
        self, responses: Responses, config: InfluenceConfig, *, device: torch.device | str | None = None
    ) -> None:
        self._responses, self._config, self._device = responses, config, device
        self._sums: _Sums | None = None

    def add(self, name: str, factors: ModuleFactors) -> None:
        """Take a module.

        Raises:
            ValueError: as `similarity`, with the module's name.
        """
        try:
            self._sums = self._sums or _Sums(name, factors, self._responses, self._config, self._device)
            self._sums.add(factors)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def result(self) -> Similarity:
        """The dots over all modules so far.

        Raises:
            ValueError: there was none.
        """
        if self._sums is None:
            raise ValueError("modules: nothing to compare, no module was captured")
        return self._sums.result()


class _Sums:
    """What the modules of a batch have in common, and the sums over them."""

    def __init__(
        self,
        name: str,
        factors: ModuleFactors,
        responses: Responses,
        config: InfluenceConfig,
        device: torch.device | str | None,
    ) -> None:
        require_known_responses(factors, responses)
        self._first, self._response, self._responses = name, factors.response, responses
        self._config = replace(config, exclude_self_response=False, true_loo=False, token_unit_norm=False)
        place = torch.device(device) if device is not None else factors.inputs.device
        self._precision: Precision = resolve(config.precision, place)
        counts = factors.response.bincount(minlength=responses.count).tolist()
        groups = (rows.cpu() for rows in group_members(responses.group, config))
        chosen: list[Chosen] = [(rows, torch.eye(len(rows))) for rows in groups if any(counts[r] for r in rows)]
        self._members = torch.tensor([row for rows, _ in chosen for row in rows.tolist()], dtype=torch.int64)
        self._layout = arranged(factors.response, counts, chosen, place)
        self._raw = torch.zeros(len(self._members), len(self._members), dtype=torch.float64, device=place)
        self._inverse = _InverseDots(self._layout, self._config, self._precision)

    def add(self, factors: ModuleFactors) -> None:
        if factors.response is not self._response and not torch.equal(factors.response, self._response):
            raise ValueError(f"its tokens differ from those of {self._first}; dots add only over the same responses")
        if not self._layout.groups:
            return
        rows = staged(factors, self._layout, self._config, self._precision)
        gradients = response_gradients(rows.rows, self._layout)
        self._raw += gradients @ gradients.T * rows.unit.square()
        if self._config.hessian_mode == "inverse":
            self._inverse.add(rows, gradients)

    def result(self) -> Similarity:
        responses = ComparedResponses.of(self._responses)
        hinv = None
        if self._config.hessian_mode == "inverse":
            hinv = self._among_all(self._inverse.total)
            if self._config.scope == "per_prompt":
                hinv = torch.where(responses.group[:, None] == responses.group[None, :], hinv, torch.nan)
        return Similarity(self._among_all(self._raw), hinv, self._inverse.residual, responses)

    def _among_all(self, dots: Tensor) -> Tensor:
        """[R, R] from [R', R']; a response of a group without tokens has gradient zero, whatever its H."""
        out = torch.zeros(self._responses.count, self._responses.count, dtype=torch.float64)
        out[self._members[:, None], self._members[None, :]] = ((dots + dots.T) / 2).cpu()
        return out


class _InverseDots:
    """The sum of g H^-1 g^T over modules that share a layout whose Omega is the identity in each group."""

    def __init__(self, layout: Layout, config: InfluenceConfig, precision: Precision) -> None:
        self._layout, self._config, self._precision = layout, config, precision
        self._tolerance = tolerance(config, precision)
        count = len(layout.spans)
        self.total = torch.zeros(count, count, dtype=torch.float64, device=layout.device)
        """float64 [R', R']; entries between groups mean nothing."""
        self.residual: float | None = None

    def add(self, rows: Staged, gradients: Tensor) -> None:
        """Take a module, given its g, float64 [R', D]."""
        by_token = self._config.hessian_source == "token"
        if not by_token and self._config.solver in ("auto", "dual") and len(gradients) <= MOST_RESPONSES:
            self._keep(slice(None), gradients, *solve_response_source(rows, gradients, self._layout, self._config))
            return
        norms = rows.rows.square_norms() if by_token else gradients.square().sum(dim=1)
        systems = group_systems(rows, gradients, norms, self._layout, self._config)
        routes, _ = routes_of(systems, rows.rows.sides, self._config, self._precision)
        pooled = []
        for system, route in zip(systems, routes, strict=True):
            if route == "direct" and rows.half is not None and by_token:
                pooled.append(system)
            else:
                self._settle(system, _solved(system.over(rows.rows), route, self._tolerance))
        if pooled:
            assert rows.half is not None
            self._solve_pooled(pooled, rows, rows.half, norms)

    def _solve_pooled(self, systems: Sequence[GroupSystem], rows: Staged, half: TokenRows, norms: Tensor) -> None:
        """On the tensor cores, as many at a time as a pool takes; every answer is judged by its true residual."""
        pool = Pool.of(half.sides, self._layout.device)
        room = pool.room
        for first in range(0, len(systems), room):
            some = systems[first : first + room]
            for system in some:
                at = system.group.tokens
                pool.add(group_rows(half, system.group), norms[at], system.damping, system.directions)
            for system, (answer, factor) in zip(some, pool.solve(), strict=True):
                self._settle(system, refined(system.over(rows.rows), answer, factor, self._tolerance))

    def _settle(self, system: GroupSystem, solution: Solution) -> None:
        self._keep(system.group.responses, system.directions, solution.directions, solution.residual)

    def _keep(self, at: slice, gradients: Tensor, solved: Tensor, residual: float) -> None:
        self.total[at, at] += gradients @ solved.T
        self.residual = max(residual, self.residual or 0.0)


def _solved(system: DampedSystem, route: Route, accuracy: float) -> Solution:
    if route == "dual":
        return solve_dual(system)
    return solve_pcg(system, accuracy) if route == "pcg" else solve_dense(system, accuracy)
