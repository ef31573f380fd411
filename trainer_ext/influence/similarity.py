"""Similarity of response gradients, plain and under the inverse Hessian, by class of pairs; and what projection does to it.

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
    >>> [(row.module_type, row.dim) for row in projection_table({"layers.0.q_proj": (2, 1)}, {"layers.0.q_proj": 96})]
    [('q_proj', 2)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.contrast import group_members
from trainer_ext.influence.curvature import CHUNK_BYTES, TokenRows
from trainer_ext.influence.direct import Pool, solve_dense
from trainer_ext.influence.factors import ModuleFactors, Responses, require_known_responses
from trainer_ext.influence.layout import Chosen, Layout, arranged
from trainer_ext.influence.precision import Precision, resolve, tolerance
from trainer_ext.influence.response_source import MOST_RESPONSES, solve_response_source
from trainer_ext.influence.scoring import Modules
from trainer_ext.influence.segments import gradients_by_loop, response_gradients
from trainer_ext.influence.solve import DampedSystem, Route, Solution, refined, solve_dual, solve_pcg
from trainer_ext.influence.staging import Staged, staged
from trainer_ext.influence.systems import GroupSystem, group_rows, group_systems, routes_of

Matrix = Literal["RAW_DOT", "HINV_DOT", "PROJECTED", "UNPROJECTED"]
Scope = Literal["PER_PROMPT", "ALL_PROMPT"]
Pair = Literal["acc-acc", "rej-rej", "acc-rej"]


@dataclass(frozen=True)
class SimilarityRow:
    """Unordered pairs of different responses of one class, summarised. NaN where there is nothing to take a mean of,
    and where a pair of the class has no dot."""

    matrix: Matrix
    scope: Scope
    """Pairs within prompts, or all pairs."""
    pair: Pair
    """Both accepted, both rejected, or one of each."""
    mean: float
    """Of the dots."""
    cosine: float
    """Mean of dot / sqrt(self self'), over pairs of responses that both have a gradient."""
    self_dot: float
    """Mean of the dots of the class's responses with themselves; NaN for acc-rej."""
    pairs: int


@dataclass(frozen=True, eq=False)
class Similarity:
    """Dots of a batch's responses, summed over modules; on the CPU."""

    raw_dot: Tensor
    """float64 [R, R]; zero for responses without a token."""
    hinv_dot: Tensor | None
    """float64 [R, R]; NaN exactly between responses with different Hessians, None with hessian_mode identity."""
    residual: float | None
    """Largest |W H - g| / |g| over modules and responses; None where nothing was solved."""
    group: Tensor
    """int64 [R], as in `Responses`."""
    accepted: Tensor
    """bool [R], as in `Responses`."""

    def table(self) -> list[SimilarityRow]:
        """Six rows a matrix: each class of pairs, within prompts and over all."""
        rows = _summary("RAW_DOT", self.raw_dot, self.group, self.accepted)
        if self.hinv_dot is not None:
            rows += _summary("HINV_DOT", self.hinv_dot, self.group, self.accepted)
        return rows


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
    if not len(modules):
        raise ValueError("modules: nothing to compare, no module was captured")
    sums: _Sums | None = None
    for name, factors in modules.items():
        try:
            sums = sums or _Sums(name, factors, responses, config, device)
            sums.add(factors)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        del factors  # a store may bring the next module while this name is still bound
    assert sums is not None
    return sums.result()


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
        group, accepted = self._responses.group.cpu(), self._responses.accepted.cpu()
        hinv = None
        if self._config.hessian_mode == "inverse":
            hinv = self._among_all(self._inverse.total)
            if self._config.scope == "per_prompt":
                hinv = torch.where(group[:, None] == group[None, :], hinv, torch.nan)
        return Similarity(self._among_all(self._raw), hinv, self._inverse.residual, group, accepted)

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


@dataclass(frozen=True)
class ProjectionRow:
    """Modules of one type and one size."""

    module_type: str
    """Last part of their names: q_proj."""
    modules: int
    """How many there are."""
    k_in: int
    k_out: int
    dim: int
    """D = k_in k_out."""
    peak_bytes: int
    """The largest of theirs."""


def projection_table(dims: Mapping[str, tuple[int, int]], peak_bytes: Mapping[str, int]) -> list[ProjectionRow]:
    """One row for each module type and size, in the order of `dims`.

    Args:
        dims: (k_in, k_out) by module name.
        peak_bytes: of the same modules; an upper estimate from shapes is `workspace.workspace_bytes`.
    """
    names: dict[tuple[str, int, int], list[str]] = {}
    for name, (k_in, k_out) in dims.items():
        names.setdefault((name.rpartition(".")[2], k_in, k_out), []).append(name)
    return [
        ProjectionRow(kind, len(alike), k_in, k_out, k_in * k_out, max(peak_bytes[name] for name in alike))
        for (kind, k_in, k_out), alike in names.items()
    ]


@dataclass(frozen=True, eq=False)
class ProjectionFidelity:
    """What is left of a module's RAW_DOT after projection."""

    projected: Tensor
    """float64 [R, R] on the CPU."""
    unprojected: Tensor
    """float64 [R, R] on the CPU."""
    rows: list[SimilarityRow]
    """Six for each of the two."""
    correlation: float
    """Of the dots of different responses (Pearson); NaN with fewer than two pairs, or where either has no spread."""
    relative_error_of_self_dots: float
    """Mean of |projected - unprojected| / unprojected over responses that have a gradient."""


def compare_projection(
    projected: ModuleFactors,
    unprojected: ModuleFactors,
    responses: Responses,
    *,
    device: torch.device | str | None = None,
) -> ProjectionFidelity:
    """Compare a module's projected gradients with the gradients of its weight, delta_r^T x_r.

    Both sides are taken as they are stored and computed with in float64, in blocks of columns: two capped
    intermediates (`curvature.CHUNK_BYTES`) are held beyond the factors and their smaller side, whatever D.

    Args:
        projected: of one module.
        unprojected: of the same module and passes, captured with `projection_dim_factor=1`.
        responses: R rows that both point into.
        device: where to compute; None: where each of them is.

    Raises:
        ValueError: a token of an unknown response, or a response whose tokens are not the same in number.
    """
    require_known_responses(projected, responses)
    require_known_responses(unprojected, responses)
    counts = [x.response.bincount(minlength=responses.count).cpu() for x in (projected, unprojected)]
    if not torch.equal(*counts):
        r = int((counts[0] != counts[1]).nonzero()[0])
        raise ValueError(
            f"compare_projection: response {r} has {counts[0][r]} projected and {counts[1][r]} unprojected tokens; "
            "capture both in the same passes"
        )
    small, full = (_exact_dots(x, responses.count, device) for x in (projected, unprojected))
    group, accepted = responses.group.cpu(), responses.accepted.cpu()
    pairs = torch.triu_indices(responses.count, responses.count, offset=1)
    centred = [dots[pairs[0], pairs[1]] - dots[pairs[0], pairs[1]].mean() for dots in (small, full)]
    own = full.diagonal()
    errors = (small.diagonal() - own).abs()[own > 0] / own[own > 0]
    return ProjectionFidelity(
        small,
        full,
        _summary("PROJECTED", small, group, accepted) + _summary("UNPROJECTED", full, group, accepted),
        correlation=float((centred[0] @ centred[1]) / (centred[0].norm() * centred[1].norm())),
        relative_error_of_self_dots=float(errors.mean()),
    )


def _exact_dots(factors: ModuleFactors, count: int, device: torch.device | str | None) -> Tensor:
    """g_r . g_r', float64 [R, R] on the CPU, a block of the long side's columns at a time."""
    if not factors.tokens:
        return torch.zeros(count, count, dtype=torch.float64)
    place = torch.device(device) if device is not None else factors.inputs.device
    counts = factors.response.bincount(minlength=count).tolist()
    layout = arranged(factors.response, counts, [(torch.arange(count), torch.eye(count))], place)
    order = slice(None) if layout.order is None else layout.order.to(factors.inputs.device)
    sides = (factors.inputs, factors.output_grads)
    large, small = sides if factors.k_in >= factors.k_out else sides[::-1]
    short = small[order].to(place)
    exponent = None if factors.exponent is None else factors.exponent[order].to(place)
    total = torch.zeros(count, count, dtype=torch.float64, device=place)
    width = max(1, CHUNK_BYTES // max(8 * count * small.shape[1], large.element_size() * factors.tokens))
    for columns in torch.split(large, width, dim=1):
        rows = TokenRows(columns[order].to(place), short, layout.owner, exponent)
        gradients = gradients_by_loop(rows, layout)
        total.addmm_(gradients, gradients.T)
    return total.cpu()


def _summary(matrix: Matrix, dots: Tensor, group: Tensor, accepted: Tensor) -> list[SimilarityRow]:
    """Rows of a matrix of dots, float64 [R, R]."""
    different = torch.ones_like(dots, dtype=torch.bool).triu(diagonal=1)
    scopes: dict[Scope, Tensor] = {
        "PER_PROMPT": different & (group[:, None] == group[None, :]),
        "ALL_PROMPT": different,
    }
    both, neither = accepted[:, None] & accepted[None, :], ~accepted[:, None] & ~accepted[None, :]
    classes: dict[Pair, Tensor] = {"acc-acc": both, "rej-rej": neither, "acc-rej": ~(both | neither)}
    own = dots.diagonal()
    length = own.clamp(min=0).sqrt()
    lengths = length[:, None] * length[None, :]
    cosines = dots / lengths
    rows = []
    for scope, inside in scopes.items():
        for pair, kind in classes.items():
            at = inside & kind
            directed = at & ((lengths > 0) | dots.isnan())  # without a dot there is no mean either
            mean, cosine = float(dots[at].mean()), float(cosines[directed].mean())
            rows.append(
                SimilarityRow(matrix, scope, pair, mean, cosine, float(own[kind.diagonal()].mean()), int(at.sum()))
            )
    return rows
