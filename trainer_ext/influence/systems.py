"""The system of each group of a module, d = W H, before it is solved, and the route that will solve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.cost import Choice, Shape, choose, measured_rates
from trainer_ext.influence.curvature import DenseRows, GradientRows, TokenRows, damping
from trainer_ext.influence.layout import Group, Layout
from trainer_ext.influence.precision import Precision, tolerance
from trainer_ext.influence.solve import DampedSystem, Route
from trainer_ext.influence.staging import Staged


@dataclass(frozen=True, eq=False)
class GroupSystem:
    """One group's system without the rows of its Hessian, which are staged again when they are needed."""

    group: Group
    directions: Tensor
    """d, float64 [n, D]."""
    damping: Tensor
    """lambda, float64 0-d."""
    dense: DenseRows | None
    """The rows, where they are the responses' gradients."""
    without: Tensor | None

    def over(self, rows: TokenRows) -> DampedSystem:
        """The system over a module's rows."""
        chosen: GradientRows = self.dense if self.dense is not None else group_rows(rows, self.group)
        return DampedSystem(chosen, self.damping, self.group.omega, self.directions, self.without)


def group_systems(
    module: Staged, gradients: Tensor, norms: Tensor, layout: Layout, config: InfluenceConfig
) -> list[GroupSystem]:
    """The systems of a module's groups.

    Args:
        gradients: g, float64 [R', D].
        norms: |x_n|^2 of the Hessian's rows, float64 [T'] or [R'].
    """
    by_token = config.hessian_source == "token"
    traces = [norms[group.tokens if by_token else group.responses].sum() for group in layout.groups]
    dampings = damping(torch.stack(traces), gradients.shape[1], config.reg_lambda)
    if config.reg_lambda > 0:
        dampings = dampings / module.unit.square()
    targets = (layout.weights @ gradients).split([len(group.omega) for group in layout.groups])
    return [
        GroupSystem(
            group,
            target,
            given,
            None if by_token else DenseRows(gradients[group.responses], module.rows.sides),
            torch.arange(len(target), device=target.device) if config.true_loo else None,
        )
        for group, target, given in zip(layout.groups, targets, dampings, strict=True)
    ]


def group_rows(rows: TokenRows, group: Group) -> TokenRows:
    """A group's part of a module's rows, owners counted within the group."""
    at = group.tokens
    exponent = None if rows.exponent is None else rows.exponent[at]
    owner = rows.owner[at] - group.responses.start
    return TokenRows(rows.large[at], rows.small[at], owner, exponent, rows.work)


def routes_of(
    systems: Sequence[GroupSystem], sides: tuple[int, int], config: InfluenceConfig, precision: Precision
) -> tuple[list[Route], list[Choice]]:
    """The route of each system, and the choices behind them where the config leaves them open."""
    if config.solver != "auto":
        return [config.solver] * len(systems), []
    choices = [_choice(system, sides, config, precision) for system in systems]
    return [choice.route for choice in choices], choices


def direction_rows(groups: Sequence[Group]) -> Tensor:
    """int64 [R'] on the CPU: each response's row among the directions of all groups, one group after another."""
    rows, first = [], 0
    for group in groups:
        count = group.responses.stop - group.responses.start
        own = torch.arange(count) if len(group.omega) > 1 else torch.zeros(count, dtype=torch.int64)
        rows.append(first + own)
        first += len(group.omega)
    return torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64)


def _choice(system: GroupSystem, sides: tuple[int, int], config: InfluenceConfig, precision: Precision) -> Choice:
    dense = system.dense is not None
    count = len(system.dense.rows) if system.dense is not None else system.group.size
    accuracy = tolerance(config, precision)
    shape = Shape(count, *sides, len(system.directions), accuracy, dense)
    choice = choose(shape, measured_rates(system.directions.device, precision))
    if config.token_unit_norm and choice.route == "pcg":  # never forms what the lengths need
        predicted: dict[Route, float] = {
            route: seconds for route, seconds in choice.predicted.items() if route != "pcg"
        }
        return Choice(min(predicted, key=lambda route: predicted[route]), predicted)
    return choice
