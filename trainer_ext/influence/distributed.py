"""Scope `global`: one contrast and one Hessian over the tokens of all ranks, each rank scoring its own.

The scores are those that one rank with all responses and tokens would give its tokens. Nobody ever holds the tokens of
another rank; what travels, for a module of D entries over R responses:

    identity                two sums of gradients a rank (`shared_contrast.py`)
    inverse, token source   those; the distinct entries of H (`pairs.py`) or its two Kronecker factors, summed at the
                            module's leader; right-hand sides to the leader, where each response has its own; products
                            with H that judge and refine the answer (`ranks.RowsOfAllRanks`); the answer
    inverse, response       response gradients to the leader [R, D], who then has the whole system; the answer. The
                            Gram matrix K is no sum over ranks: it pairs responses of different ones, so that whoever
                            makes it needs their gradients, and one rank is fewer than all

Ranks lead modules in turn, and modules are worked on in waves of one a rank: its leaders factor and solve at the same
time. All ranks need the same modules in the same order. With `fast`, rows are in units of the largest token of all
ranks, as they would be on one.

A rank holds the factors of one wave at a time (and the one module that a `FactorStore` brings ahead), the system of the
module that it leads, and while systems are added up one more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.cost import Choice, Shape, choose, measured_rates
from trainer_ext.influence.factors import ModuleFactors, Responses, require_known_responses
from trainer_ext.influence.layout import Layout, arranged
from trainer_ext.influence.precision import Precision, resolve, score_dtype, tolerance
from trainer_ext.influence.ranks import Ranks
from trainer_ext.influence.response_source import MOST_RESPONSES
from trainer_ext.influence.scoring import BatchResult, Modules, RouteRecord, log_choices, require_finite, score_batch
from trainer_ext.influence.shared_contrast import SharedContrast
from trainer_ext.influence.shared_modules import SharedModule, SharedScorer
from trainer_ext.influence.solve import Route
from trainer_ext.influence.timing import PhaseTimer

Item = tuple[str, ModuleFactors]


def score_batch_over_ranks(
    modules: Mapping[str, ModuleFactors] | Modules,
    responses: Responses,
    config: InfluenceConfig,
    *,
    group: dist.ProcessGroup | None = None,
    device: torch.device | str | None = None,
) -> BatchResult:
    """Score this rank's tokens within the batch of all ranks; to be called by all ranks of the group.

    Args:
        modules: as in `score_batch`; the same names and sides in the same order on every rank.
        responses: of this rank; none is fine, and so is no token.
        config: scope `global`; the same on every rank.
        group: the ranks; None: all processes.
        device: where to compute, of one kind on all ranks; None: where the factors are. A rank without tokens computes
            where the others do.

    Returns:
        As `score_batch`; routes, residuals and predictions are the same on every rank. What was chosen is logged by the
        group's first rank.

    Raises:
        ValueError: on every rank, whichever of them has bad input: an error of `score_batch`, ranks that differ in
            modules, config or kind of device, or a config that needs all rows in one place.
        Exception: what else a rank meets in its own work; a RuntimeError on the others. A rank that has not even the
            memory for its part of a message raises alone, and the others when the group's timeout has passed.
    """
    ranks = Ranks(group)
    if ranks.size == 1:
        _require_global(config)
        return score_batch(modules, responses, replace(config, scope="all_selected"), device=device)
    try:
        start = ranks.attempt(None, "", _Start.of, modules, responses, config, ranks.size, device)
        with _current(start.device if start is not None else torch.device(device or "cpu")):
            openings = ranks.exchange(start.opening if start is not None else None)
            assert start is not None  # the exchange would have raised
            result = _Batch(ranks, start, [opening for opening in openings if opening is not None], config).score()
    except (ValueError, torch.linalg.LinAlgError):
        require_finite(modules)  # on the rank that holds it; all of them have raised
        raise
    if ranks.rank == 0:
        log_choices(result)
    return result


@dataclass(frozen=True, eq=False)
class _Opening:
    """What a rank tells the others before anything else."""

    modules: int
    config: InfluenceConfig
    device: str
    """cpu or cuda."""
    accepted: Tensor
    """bool [R_k], on the CPU."""
    advantage: Tensor
    """float64 [R_k], on the CPU."""
    tokens: int


@dataclass(frozen=True, eq=False)
class _Start:
    """What a rank begins with."""

    items: Iterator[Item]
    response: Tensor
    """int64 [T]: the response of each token, the same in every module."""
    device: torch.device
    opening: _Opening

    @classmethod
    def of(
        cls,
        modules: Mapping[str, ModuleFactors] | Modules,
        responses: Responses,
        config: InfluenceConfig,
        size: int,
        device: torch.device | str | None,
    ) -> Self:
        """Look at the config and the first module.

        Raises:
            ValueError: no module, a token of an unknown response, or a config that `size` ranks cannot serve.
        """
        _require_global(config)
        _require_sums(config, size)
        if not len(modules):
            raise ValueError("modules: nothing to score, no module was captured")
        source = iter(modules.items())
        first = [next(source)]
        name, factors = first[0]
        try:
            require_known_responses(factors, responses)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        place = torch.device(device) if device is not None else factors.inputs.device
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", torch.cuda.current_device())
        opening = _Opening(
            len(modules),
            config,
            place.type,
            responses.accepted.cpu(),
            responses.advantage.double().cpu(),
            factors.tokens,
        )
        return cls(_followed(first, source), factors.response, place, opening)


def _followed(first: list[Item], source: Iterator[Item]) -> Iterator[Item]:
    """The first item and the rest, none of which is kept here."""
    yield first.pop()
    yield from source


def _require_global(config: InfluenceConfig) -> None:
    if config.scope != "global":
        raise ValueError(f"scope: {config.scope} needs no other rank; use score_batch, or set scope to global")


def _require_sums(config: InfluenceConfig, size: int) -> None:
    """Refuse what needs all ranks' rows, or all of H^-1, in one place."""
    if config.hessian_mode != "inverse":
        return
    if config.token_unit_norm:
        raise ValueError(
            f"token_unit_norm: with hessian_mode=inverse over {size} ranks every rank would need all of H^-1; set "
            "token_unit_norm to false, or scope to all_selected or per_prompt"
        )
    if config.solver == "dual" and config.hessian_source == "token":
        raise ValueError(
            f"solver: dual with hessian_source=token over {size} ranks would need all their tokens in one place; set "
            "solver to auto, direct or pcg"
        )


def _require_alike(openings: Sequence[_Opening]) -> None:
    """Refuse ranks that would not walk the same way; the same error on all of them."""
    first = openings[0]
    for rank, other in enumerate(openings):
        for option in fields(InfluenceConfig):
            values = (getattr(first.config, option.name), getattr(other.config, option.name))
            if values[0] != values[1]:
                raise ValueError(f"{option.name}: {values[0]!r} on rank 0, {values[1]!r} on rank {rank}")
        if other.modules != first.modules:
            raise ValueError(
                f"modules: {first.modules} on rank 0, {other.modules} on rank {rank}; all ranks need the same ones"
            )


def _agreed_device(own: torch.device, openings: Sequence[_Opening]) -> torch.device:
    """This rank's device, of the kind on which the ranks with tokens compute."""
    kinds = {opening.device: rank for rank, opening in reversed(list(enumerate(openings))) if opening.tokens}
    if len(kinds) > 1:
        places = " and ".join(f"{kind} on rank {rank}" for kind, rank in sorted(kinds.items(), key=lambda kv: kv[1]))
        raise ValueError(f"device: {places}; all ranks score on one kind")
    if own.type in kinds or not kinds:
        return own
    return torch.device("cuda", torch.cuda.current_device()) if "cuda" in kinds else torch.device(*kinds)


Head = tuple[str, int, int]
"""Name, k_in and k_out of a module."""


@dataclass(eq=False)
class _Told:
    """What a rank tells the others of a wave."""

    heads: list[Head] = field(default_factory=list)
    routes: list[tuple[Route, Choice | None]] = field(default_factory=list)
    """From rank 0: how each module will be solved; none with identity."""


class _Batch:
    """One call, on one rank of several."""

    def __init__(self, ranks: Ranks, start: _Start, openings: Sequence[_Opening], config: InfluenceConfig) -> None:
        _require_alike(openings)
        self._ranks, self._start, self._config = ranks, start, config
        self._device = _agreed_device(start.device, openings)
        self._precision: Precision = resolve(config.precision, self._device)
        self._most_tokens = max(opening.tokens for opening in openings)
        contrast = SharedContrast.of(
            [opening.accepted for opening in openings],
            [opening.advantage for opening in openings],
            ranks.rank,
            config,
            self._device,
        )
        self._contrast = contrast if self._most_tokens else None
        self._timer = PhaseTimer.on(self._device)
        self._done: list[SharedModule] = []
        self._dims: dict[str, tuple[int, int]] = {}

    def score(self) -> BatchResult:
        scorer = self._ranks.attempt(None, "", self._scorer)
        total = torch.zeros(len(self._start.response), dtype=torch.float64, device=self._device)
        for _ in range(0, self._start.opening.modules, self._ranks.size):
            wave = self._next_wave()  # raises where the scorer could not be made
            if scorer is not None:
                for scores in scorer.scored(wave):
                    with self._timer.phase("score_aggregation"):
                        total += scores
            for module in wave:
                module.release()
            self._done += wave
        self._ranks.attempt(None, "", self._read_to_the_end)
        self._ranks.agree()
        return BatchResult(
            scores=self._in_order(total, scorer.layout if scorer else None),
            routes={module.name: module.route if scorer else "none" for module in self._done},
            residuals={module.name: module.residual for module in self._done},
            dims=self._dims,
            timing=self._timer.read(),
            peak_bytes=max(
                (scorer.workspace(module, self._dims[module.name]) for module in self._done if scorer), default=0
            ),
            choices=[record for module in self._done for record in _records(module)],
        )

    def _scorer(self) -> SharedScorer | None:
        """None without a contrast or a token on any rank."""
        if self._contrast is None:
            return None
        layout = _own_layout(self._start.response, self._contrast, self._device)
        return SharedScorer(self._ranks, self._contrast, layout, self._config, self._precision, self._timer)

    def _next_wave(self) -> list[SharedModule]:
        """The next modules, one a rank to lead, once all ranks have them.

        Raises:
            ValueError: modules differ between ranks, or within one in their tokens.
        """
        items = self._ranks.attempt([], "", self._checked)
        told = _Told([(name, factors.k_in, factors.k_out) for name, factors in items])
        if self._ranks.rank == 0 and self._contrast is not None and self._config.hessian_mode == "inverse":
            told.routes = self._ranks.attempt([], "", self._routes, self._contrast, told.heads)
        everyone = self._ranks.exchange(told)
        _require_same_modules([other.heads for other in everyone])
        wave = [SharedModule(name, factors, leader) for leader, (name, factors) in enumerate(items)]
        for module, (route, choice) in zip(wave, everyone[0].routes, strict=False):
            module.solver, module.choice = route, choice
        self._dims |= {name: (factors.k_in, factors.k_out) for name, factors in items}
        return wave

    def _checked(self) -> list[Item]:
        items = list(islice(self._start.items, self._ranks.size))
        for name, factors in items:
            if factors.response is not self._start.response and not torch.equal(factors.response, self._start.response):
                raise ValueError(
                    f"{name}: its tokens differ from those of the first module; scores add only over the same tokens"
                )
        return items

    def _read_to_the_end(self) -> None:
        """The last wave may have taken exactly the last module; what a store looks at after it is still to come."""
        for name, _ in self._start.items:
            raise ValueError(f"modules: {name} comes after the {self._start.opening.modules} that were announced")

    def _routes(self, contrast: SharedContrast, heads: Sequence[Head]) -> list[tuple[Route, Choice | None]]:
        if self._config.solver != "auto":
            return [(self._config.solver, None)] * len(heads)
        n, total = contrast.omega.shape
        if self._config.hessian_source == "response" and total <= MOST_RESPONSES:
            return [("dual", None)] * len(heads)
        return [self._choice(max(sides), min(sides), n, total) for _, *sides in heads]

    def _choice(self, large: int, small: int, n: int, responses: int) -> tuple[Route, Choice]:
        """By the cost of the rank with the most tokens: each rank makes the products with its own."""
        accuracy, rates = tolerance(self._config, self._precision), measured_rates(self._device, self._precision)
        if self._config.hessian_source == "response":
            choice = choose(Shape(responses, large, small, n, accuracy, dense=True), rates)
        else:
            choice = choose(Shape(self._most_tokens, large, small, n, accuracy), rates)
            possible = dict(choice.predicted)
            del possible["dual"]
            choice = Choice(min(possible, key=lambda route: possible[route]), possible)
        return choice.route, choice

    def _in_order(self, total: Tensor, layout: Layout | None) -> Tensor:
        """[T] in the order of the factors and on their device."""
        home, dtype = self._start.response.device, score_dtype(self._precision)
        if layout is None:
            return torch.full((len(total),), torch.nan, dtype=dtype, device=home)
        typed = total.to(dtype)
        if layout.order is not None:
            typed = torch.empty_like(typed).index_copy_(0, layout.order, typed)
        return typed.to(home)


def _own_layout(response: Tensor, contrast: SharedContrast, device: torch.device) -> Layout:
    """Where this rank's tokens stand; all of them take part."""
    count = contrast.counts[contrast.rank]
    if not len(response):
        return Layout(None, ((0, 0),) * count, (), 0, device)
    tokens = response.bincount(minlength=count).tolist()
    return arranged(response, tokens, [(torch.arange(count), contrast.own_omega)], device)


def _require_same_modules(by_rank: Sequence[Sequence[Head]]) -> None:
    """Refuse a wave that is not the same on all ranks; the same error on all of them."""
    first = by_rank[0]
    for rank, heads in enumerate(by_rank):
        if len(heads) != len(first):
            raise ValueError(f"modules: rank {rank} ran out of them, or has more than rank 0; all need the same ones")
        for one, other in zip(first, heads, strict=True):
            if one != other:
                raise ValueError(
                    f"modules: {one[0]} ({one[1]} x {one[2]}) on rank 0 stands where rank {rank} has {other[0]} "
                    f"({other[1]} x {other[2]}); all ranks need the same modules in the same order"
                )


def _records(module: SharedModule) -> list[RouteRecord]:
    if module.choice is None:
        return []
    predicted = module.choice.predicted[module.choice.route]
    return [RouteRecord(module.name, module.choice.route, predicted, module.seconds)]


def _current(device: torch.device) -> AbstractContextManager[object]:
    """A device's own collectives run on the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
