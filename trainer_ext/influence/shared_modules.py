"""A wave of modules whose tokens are spread over ranks, from factors to the scores of this rank's tokens.

Every rank walks through the same steps in the same order, and only a module's leader holds its system. What may fail is
done before the others are asked for anything that depends on it (`ranks.py`):

    units       one power of two a module for all ranks (`staging.py`)
    sums        response gradients, the trace of H, and what the leader needs to form H; added up over ranks
    first       each leader factors and solves its module, all at the same time
    judged      module by module: the leader asks for products with H, the others give theirs; refined where they
                show that it is needed
    scored      directions go back to the ranks that asked for them
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trainer_ext.influence.certificate import probe_weights
from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.cost import Choice
from trainer_ext.influence.curvature import DenseRows, TokenRows, damping
from trainer_ext.influence.direct import Pool, solve_dense
from trainer_ext.influence.factorisation import DenseFactor, Inverse, KroneckerFactor, dense_hessian
from trainer_ext.influence.factors import ModuleFactors
from trainer_ext.influence.gram import gram_into
from trainer_ext.influence.layout import Group, Layout
from trainer_ext.influence.modules import IDENTITY, PROBED_TOLERANCE
from trainer_ext.influence.pairs import padded_pairs
from trainer_ext.influence.precision import Precision, tolerance
from trainer_ext.influence.ranks import Ranks, RowsOfAllRanks
from trainer_ext.influence.response_source import MOST_RESPONSES, solve_response_source
from trainer_ext.influence.segments import response_gradients, token_scores
from trainer_ext.influence.shared_contrast import SharedContrast
from trainer_ext.influence.solve import DampedSystem, Route, Solution, refined, solve_dual, solve_pcg
from trainer_ext.influence.split import times_power
from trainer_ext.influence.staging import Staged, staged
from trainer_ext.influence.systems import direction_rows
from trainer_ext.influence.timing import PhaseTimer, Span
from trainer_ext.influence.workspace import workspace_bytes


@dataclass(frozen=True, eq=False)
class _System:
    """What a leader solves."""

    target: Tensor
    """Source token: d, float64 [n, D]. Source response: g of all ranks, float64 [R, D]."""
    sums: tuple[Tensor, ...] = ()
    """Source token: C [M, N] (`gram.py`), or A and B of route pcg (`curvature.py`), undamped."""


@dataclass(eq=False)
class SharedModule:
    """One module on its way."""

    name: str
    factors: ModuleFactors | None
    leader: int
    """The rank that solves it."""
    solver: Route | None = None
    """None: identity."""
    choice: Choice | None = None
    """Where the config leaves the route open."""
    unit: Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.float64))
    """float64 0-d: what all ranks' rows are multiplied by to be the true ones."""
    damping: Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.float64))
    """lambda, float64 0-d, source token."""
    system: _System | None = None
    """On the leader alone."""
    first: tuple[Tensor, Inverse] | None = None
    """On the leader: an answer to be judged, and what gave it."""
    solution: Tensor | None = None
    """On the leader: W, float64 [n, D]."""
    residual: float | None = None
    directions: Tensor | None = None
    """This rank's rows of W, float64 [n_k, D]; with identity those of d."""
    spans: list[tuple[Span, float]] = field(default_factory=list)
    """Times spent on its system, and its share of each."""

    def release(self) -> None:
        """Keep what is reported, let go of what takes memory."""
        self.factors, self.system, self.first, self.solution, self.directions = None, None, None, None, None

    @property
    def route(self) -> str:
        """identity, direct, dual or pcg."""
        return self.solver or IDENTITY

    @property
    def seconds(self) -> float:
        """Spent on its system by this rank."""
        return sum(share * span.seconds for span, share in self.spans)

    @property
    def sides(self) -> tuple[int, int]:
        """(k_large, k_small)."""
        assert self.factors is not None
        sides = (self.factors.k_in, self.factors.k_out)
        return max(sides), min(sides)


class SharedScorer:
    """Scores waves of modules whose responses, contrast and layout they share.

    Args:
        layout: of this rank's tokens, all of which take part.
        timer: gets the time of every phase.
    """

    def __init__(
        self,
        ranks: Ranks,
        contrast: SharedContrast,
        layout: Layout,
        config: InfluenceConfig,
        precision: Precision,
        timer: PhaseTimer,
    ) -> None:
        self._ranks, self._contrast, self.layout = ranks, contrast, layout
        self._config, self._precision, self._timer = config, precision, timer
        self._tolerance = tolerance(config, precision)
        self._direction_rows = direction_rows(layout.groups)
        everyone = slice(0, contrast.omega.shape[1])
        group = Group(slice(0, layout.rows), layout.rows, everyone, contrast.omega)
        self._whole = Layout(None, ((0, 0),) * everyone.stop, (group,), layout.rows, layout.device)
        """All ranks' responses as one group, with this rank's tokens alone."""
        self._without = torch.arange(everyone.stop, device=layout.device) if config.true_loo else None

    def scored(self, wave: Sequence[SharedModule]) -> Iterator[Tensor]:
        """Scores of this rank's rows, float64 [T'], module by module.

        What fails in the last step raises when the ranks next agree.

        Raises:
            Exception: of a module on any rank, on all of them (`Ranks.agree`).
        """
        self._share_units(wave)
        for module in wave:
            self._sum_up(module)
        if self._config.hessian_mode == "inverse":
            self._solve(wave)
        for module in wave:
            nothing = torch.zeros(self.layout.rows, dtype=torch.float64, device=self.layout.device)
            yield self._ranks.attempt(nothing, module.name, self._score, module)

    def workspace(self, module: SharedModule, sides: tuple[int, int]) -> int:
        """Most bytes held at once for a module beyond its wave's factors, counted from shapes."""
        arithmetic: Precision = self._precision if self._pooled or self.layout.device.type == "cpu" else "fp64"
        if module.solver is None:
            own = workspace_bytes(sides, self.layout, (), self._config, arithmetic)
        else:
            own = workspace_bytes(sides, self._whole, (module.solver,), self._config, arithmetic)
        most, ranks = max(self._contrast.counts), self._ranks.size
        dim = sides[0] * sides[1]
        messages = 8 * dim * ranks * (4 + (3 * most if module.solver else 0))
        if module.solver == "direct" and self._config.hessian_source == "token":  # the leader's, and the next one's
            messages += (4 if self._pooled else 8) * padded_pairs(sides[0]) * padded_pairs(sides[1])
        return own + messages

    @property
    def _pooled(self) -> bool:
        """Whether the direct route runs on the tensor cores."""
        return self._precision == "fast" and self.layout.device.type == "cuda"

    # units

    def _share_units(self, wave: Sequence[SharedModule]) -> None:
        """Agree on each module's unit: the largest of those that ranks with a gradient would take."""
        units = torch.zeros(len(wave), dtype=torch.float64, device=self.layout.device)
        if self._precision != "fp64":  # which has none
            with self._timer.phase("grad_staging"):
                for number, module in enumerate(wave if self.layout.rows else ()):
                    units[number] = self._ranks.attempt(units[number], module.name, self._own_unit, module)
                units = self._ranks.maximum(units)
        for module, unit in zip(wave, torch.where(units > 0, units, 1.0), strict=True):
            module.unit = unit

    def _own_unit(self, module: SharedModule) -> Tensor:
        """The unit that this rank would take, zero where it has no gradient to measure."""
        alone = self._staged_alone(module)
        return torch.where(alone.rows.square_norms().amax() > 0, alone.unit, 0.0)

    def _staged_alone(self, module: SharedModule) -> Staged:
        assert module.factors is not None
        return staged(module.factors, self.layout, self._config, self._precision)

    def _staged(self, module: SharedModule) -> Staged:
        """This rank's rows in the unit of all ranks."""
        alone = self._staged_alone(module)
        if self._precision == "fp64":
            return alone
        shift = torch.frexp(alone.unit)[1] - torch.frexp(module.unit)[1]
        return Staged(_shifted(alone.rows, shift.clamp(max=0)), None, module.unit)  # above: zero rows alone

    # sums

    def _sum_up(self, module: SharedModule) -> None:
        """Add up over ranks what the direction and the system of a module are made of."""
        with self._timer.phase("grad_staging"):
            rows, gradients = self._ranks.each(module.name, self._gradients, module)
        with self._timer.phase("hessian_solve") as span:
            if self._config.hessian_mode == "inverse" and self._config.hessian_source == "response":
                gathered = self._ranks.gather_rows(gradients, self._contrast.counts, module.leader)
                module.system = None if gathered is None else _System(gathered)
            else:
                self._sum_tokens(module, rows.rows, gradients)
        module.spans.append((span, 1.0))

    def _gradients(self, module: SharedModule) -> tuple[Staged, Tensor]:
        rows = self._staged(module)
        return rows, response_gradients(rows.rows, self.layout)

    def _sum_tokens(self, module: SharedModule, rows: TokenRows, gradients: Tensor) -> None:
        dim, inverse = gradients.shape[1], module.solver is not None
        norms = rows.square_norms() if inverse else gradients.new_zeros(0)
        message = torch.cat([self._contrast.sums(gradients).flatten(), norms.sum()[None]])
        told = self._ranks.all_gather(message)
        own = self._contrast.directions(gradients, told[:, : 2 * dim].unflatten(1, (2, dim)))
        if not inverse:
            module.directions = own
            return
        module.damping = damping(told[:, -1].sum(), dim, self._config.reg_lambda)
        if self._config.reg_lambda > 0:
            module.damping = module.damping / module.unit.square()
        target: Tensor | None = own
        if self._contrast.excludes:
            target = self._ranks.gather_rows(own, self._contrast.counts, module.leader)
        sums = self._ranks.each(module.name, self._own_sums, module, rows, norms)
        summed = tuple(self._ranks.sum_at(part, module.leader) for part in sums)
        if self._leads(module) and target is not None:
            module.system = _System(target, summed)

    def _own_sums(self, module: SharedModule, rows: TokenRows, norms: Tensor) -> tuple[Tensor, ...]:
        """This rank's part of the leader's `_System.sums`."""
        if module.solver == "pcg":
            return rows.kronecker()
        pairs = [padded_pairs(side) for side in module.sides]
        if self._pooled:
            total = torch.empty(*pairs, dtype=torch.float32, device=self.layout.device)
            return (gram_into(total, rows.large, rows.small, rows.exponent, norms),)
        total = torch.empty(*pairs, dtype=torch.float64, device=self.layout.device)
        return (gram_into(total, *rows.factors(), None),)

    # solutions

    def _solve(self, wave: Sequence[SharedModule]) -> None:
        """Solve a wave and give each rank its directions."""
        by_token = self._config.hessian_source == "token"
        with self._timer.phase("hessian_solve") as span:
            for module in wave:
                if self._leads(module):
                    self._ranks.attempt(None, module.name, self._begin if by_token else self._solve_alone, module)
            for module in wave if by_token else ():
                self._judge(module)  # where a leader has failed, the first of them raises
            self._ranks.agree()
            self._share_residuals(wave)
            for module in wave:
                self._hand_out(module)
        for module in wave:
            module.spans.append((span, 1 / len(wave)))

    def _begin(self, module: SharedModule) -> None:
        """A first answer, source token."""
        system = module.system
        assert system is not None
        if module.solver == "pcg":
            a, b = system.sums
            module.first = torch.zeros_like(system.target), KroneckerFactor.of(a, b, module.damping)
        elif self._pooled:
            pool = Pool(module.sides, system.sums[0][None], [module.damping], [system.target])
            module.first = pool.solve()[0]
        else:
            factor = DenseFactor.of(dense_hessian(system.sums[0], module.sides), module.damping)
            module.first = factor.solve(system.target), factor

    def _solve_alone(self, module: SharedModule) -> None:
        """The whole solution, source response: the leader has all rows."""
        assert module.system is not None
        gradients = module.system.target
        if module.solver == "dual" and len(gradients) <= MOST_RESPONSES:
            here = Staged(_no_rows(module.sides, gradients.device), None, module.unit)
            module.solution, module.residual = solve_response_source(here, gradients, self._whole, self._config)
            return
        rows = DenseRows(gradients, module.sides)
        given = damping(rows.square_norms().sum(), gradients.shape[1], self._config.reg_lambda)
        if self._config.reg_lambda > 0:
            given = given / module.unit.square()
        omega = self._contrast.omega
        system = DampedSystem(rows, given, omega, omega @ gradients, self._without)
        if module.solver == "dual":
            solution = solve_dual(system, self._tolerance)
        elif module.solver == "pcg":
            solution = solve_pcg(system, self._tolerance)
        else:
            solution = solve_dense(system, self._tolerance)
        module.solution, module.residual = solution.directions, solution.residual

    def _judge(self, module: SharedModule) -> None:
        """Hold the leader's answer against all ranks' rows, and refine it where it falls short."""
        rows = self._ranks.each(module.name, self._staged, module).rows
        shared = RowsOfAllRanks.of(rows, self._ranks, module.leader, self._contrast.own.start)
        if not self._leads(module):
            shared.serve()
            return
        try:
            self._ranks.attempt(None, module.name, self._settle, module, shared)
        finally:
            shared.dismiss()
        module.system, module.first = None, None

    def _settle(self, module: SharedModule, rows: RowsOfAllRanks) -> None:
        assert module.system is not None
        assert module.first is not None
        answer, inverse = module.first
        system = DampedSystem(rows, module.damping, self._contrast.omega, module.system.target, self._without)
        solution = Solution(answer, torch.inf, inverse)
        certified = module.solver == "direct" and self._pooled and self._tolerance >= PROBED_TOLERANCE
        if certified and not self._config.true_loo:
            solution = Solution(answer, float(_probed(system, answer)), inverse)
        if not solution.residual <= self._tolerance:
            solution = refined(system, answer, inverse, self._tolerance)
        module.solution, module.residual = solution.directions, solution.residual

    def _share_residuals(self, wave: Sequence[SharedModule]) -> None:
        mine = [module.residual for module in wave if self._leads(module)]
        own = torch.tensor(mine or [0.0], dtype=torch.float64, device=self.layout.device)
        told = self._ranks.all_gather(own)[:, 0].tolist()
        for module in wave:
            module.residual = told[module.leader]

    def _hand_out(self, module: SharedModule) -> None:
        like = torch.empty(1, module.sides[0] * module.sides[1], dtype=torch.float64, device=self.layout.device)
        if self._contrast.excludes:
            counts = self._contrast.counts
            module.directions = self._ranks.scatter_rows(module.solution, counts, like, module.leader)
        else:
            source = module.solution if module.solution is not None else like
            module.directions = self._ranks.broadcast(source, module.leader)
        module.solution = None

    # scores

    def _score(self, module: SharedModule) -> Tensor:
        assert module.directions is not None
        with self._timer.phase("token_scoring"):
            if not self.layout.rows:
                return torch.zeros(0, dtype=torch.float64, device=self.layout.device)
            rows = self._staged(module)
            scores = token_scores(rows.rows, self.layout, module.directions, self._direction_rows)
            return scores * rows.unit.square() if module.solver is None else scores

    def _leads(self, module: SharedModule) -> bool:
        return module.leader == self._ranks.rank


def _shifted(rows: TokenRows, shift: Tensor) -> TokenRows:
    """The rows times 2^shift."""
    if rows.exponent is None:
        return replace(rows, small=times_power(rows.small, shift))
    return replace(rows, exponent=rows.exponent + shift)


def _no_rows(sides: tuple[int, int], device: torch.device) -> TokenRows:
    large, small = (torch.empty(0, side, dtype=torch.float64, device=device) for side in sides)
    return TokenRows(large, small, torch.empty(0, dtype=torch.int64, device=device))


def _probed(system: DampedSystem, answer: Tensor) -> Tensor:
    """An estimate of the root mean square of |W H - d| / |d| over right-hand sides, 0-d, as `certificate.py` makes it
    where all rows are here."""
    weights = probe_weights(system.directions)
    error = system.rows.apply(weights @ answer, system.damping) - weights @ system.directions
    return error.square().sum().sqrt()
