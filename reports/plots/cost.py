"""Cost against fidelity: what a finer projection buys, and the knee from which it buys little more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from reports.fidelity import Curve, curves
from reports.numbers import seconds
from reports.plots import style
from reports.plots.plot import Plot, short
from reports.snapshot import SweepSnapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = len(style.LINES)
_MOST_LABELLED = 3
"""Curves up to which every level is labelled; of more the two ends are."""


def cost(snapshot: SweepSnapshot) -> Plot | None:
    found = curves(snapshot)
    if not found:
        return None
    return Plot(
        name="cost",
        title=f"Cost against fidelity (step {found[0].step})",
        alt=" ".join(map(_words, found[:MOST])),
        height=3.3 + 0.09 * min(len(found), MOST),
        draw=partial(_draw, found[:MOST]),
        note=f"Shown are {MOST} of {len(found)} settings." if len(found) > MOST else "",
    )


def _words(curve: Curve) -> str:
    coarse, fine = curve.levels[0], curve.levels[-1]
    where = f" ({curve.setting})" if curve.setting else ""
    knee = f", knee at {curve.axis} {curve.knee.factor:g}" if curve.knee else ""
    return (
        f"Spread of the scores over seconds of {curve.cost}{where}: {100 * curve.fidelity[0]:.0f}% of the largest in "
        f"{seconds(coarse.cost_s)} s at {curve.axis} {coarse.factor:g}, {100 * curve.fidelity[-1]:.0f}% in "
        f"{seconds(fine.cost_s)} s at {fine.factor:g}{knee}."
    )


def _draw(found: Sequence[Curve], figure: Figure) -> None:
    axes = figure.subplots()
    for place, curve in enumerate(found):
        costs, fidelity = [level.cost_s for level in curve.levels], curve.fidelity
        axes.plot(costs, fidelity, label=short(curve.setting, 60) or None, **style.line(place))
        for level, x, y in zip(curve.levels, costs, fidelity, strict=True):
            if len(found) <= _MOST_LABELLED or level in (curve.levels[0], curve.levels[-1]):
                axes.annotate(
                    f"{level.factor:g}",
                    (x, y),
                    xytext=(6, 5 if place % 2 else -11),
                    textcoords="offset points",
                    fontsize=8,
                )
            if level is curve.knee:
                axes.plot(x, y, marker="o", markersize=12, markerfacecolor="none", markeredgecolor=style.INK)
    if any(curve.knee for curve in found):
        ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": style.INK}
        axes.plot([], [], linestyle="none", label="knee", **ring)
    axes.set_ylim(0, 1.08)
    axes.margins(x=0.08)
    axes.grid()
    axes.set_xlabel(f"seconds of {found[0].cost}; figures at the marks: {found[0].axis}")
    axes.set_ylabel("score std, relative to the largest")
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper left", ncols=2)
