"""How the time of the scores grows with the projection: one panel a phase, one line a setting of the other axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from reports import metrics
from reports.contrasts import Grid
from reports.fidelity import factor_axis
from reports.numbers import seconds
from reports.plots import style
from reports.plots.plot import Plot, short
from reports.scaling import Scaling, scalings
from reports.snapshot import PointSnapshot, SweepSnapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASES = ("hessian_solve", "pop_rows", "update_actor")
MOST = len(style.LINES)
_MOST_EXPONENTS = 4
"""Settings up to which the exponents stand in the panels; of more they stand in the table alone."""


@dataclass(frozen=True)
class Series:
    """One setting's seconds of a phase over the factor, ascending; replicates averaged. Its exponent is the table's."""

    fit: Scaling
    seconds: dict[float, float]


def scaling(snapshot: SweepSnapshot) -> Plot | None:
    axis = factor_axis(Grid.of(snapshot))
    if axis is None:
        return None
    every = [_series(snapshot, axis, fit) for fit in scalings(snapshot) if fit.quantity in PHASES]
    panels = [(phase, [series for series in every if series.fit.quantity == phase]) for phase in PHASES]
    step = metrics.first_step(metrics.shown_steps(snapshot))
    panels = [(metrics.label(phase, found[0].fit.points, step), found) for phase, found in panels if found]
    if not panels:
        return None
    settings = list(dict.fromkeys(series.fit.setting for series in every))
    return Plot(
        name="scaling",
        title=f"Scaling with {axis} (step {step})",
        alt=" ".join(_words(phase, axis, found) for phase, found in panels),
        height=2.7 + 0.09 * min(len(settings), MOST),
        draw=partial(_draw, axis, panels, settings[:MOST]),
        note=f"Shown are {MOST} of {len(settings)} settings." if len(settings) > MOST else "",
    )


def _series(snapshot: SweepSnapshot, axis: str, fit: Scaling) -> Series:
    grid, step = Grid.of(snapshot), metrics.first_step(metrics.shown_steps(snapshot))
    taken: dict[float, list[float]] = {factor: [] for factor in sorted(fit.factors)}
    for point in grid.points:
        value = metrics.seconds(point, fit.quantity, step)
        if value and grid.setting(point, axis, *grid.replicates) == fit.setting and axis in point.parameters:
            taken.setdefault(_factor(point, axis), []).append(value)
    return Series(fit, {factor: fmean(values) for factor, values in taken.items() if values})


def _factor(point: PointSnapshot, axis: str) -> float:
    return float(str(point.parameters[axis]))


def _words(phase: str, axis: str, found: Sequence[Series]) -> str:
    first = found[0]
    where = f" ({first.fit.setting})" if len(found) > 1 else ""
    (low, slow), *_, (high, fast) = first.seconds.items()
    return (
        f"{phase}{where}: {seconds(slow)} s at {axis} {low:g}, {seconds(fast)} s at {high:g}, "
        f"exponent {first.fit.against_factor.exponent:.2f}."
    )


def _draw(axis: str, panels: Sequence[tuple[str, Sequence[Series]]], settings: Sequence[str], figure: Figure) -> None:
    for axes, (phase, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for series in found:
            if series.fit.setting in settings:
                _line(axes, series, settings.index(series.fit.setting))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sorted({factor for series in found for factor in series.seconds}), minor=False)
        axes.set_xticks([], minor=True)
        style.plain_ticks(axes.xaxis)
        style.few_decades(axes.yaxis)
        axes.grid()
        axes.set_title(phase)
        axes.set_xlabel(axis)
        if len(settings) <= _MOST_EXPONENTS:
            axes.legend(title="exponent", title_fontsize=8, loc="best", alignment="left")
    figure.axes[0].set_ylabel("seconds")
    if any(settings):
        handles = [figure.axes[0].plot([], [], **style.line(place))[0] for place in range(len(settings))]
        figure.legend(handles, [short(setting, 44) for setting in settings], loc="outside lower left", ncols=2)


def _line(axes: Axes, series: Series, place: int) -> None:
    exponent = f"{series.fit.against_factor.exponent:.2f}".replace("-", "−")
    axes.plot(list(series.seconds), list(series.seconds.values()), label=exponent, **style.line(place))
