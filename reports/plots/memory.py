"""Peak memory of each job against what cannot be exceeded: the card, and the host's limit.

The device's own figure is drawn, never torch's where that is known to be wrong; then torch's stands beside it, hollow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reports import metrics
from reports.contrasts import listed, pool_of
from reports.numbers import GIB, gib
from reports.plots import style
from reports.plots.plot import Plot, extremes, left_out, short
from reports.sections.memory import UNRELIABLE, device_peak_bytes, had_gpu, host_peak_bytes
from reports.sections.points import tried
from reports.snapshot import Expected, PointSnapshot, SweepSnapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 24


@dataclass(frozen=True)
class Row:
    """Bytes of one job."""

    name: str
    peak: float | None
    limit: float | None
    limit_name: str
    expected: Expected | None
    claimed: float | None = None
    """torch's figure where it is flagged as unreliable."""


def memory(snapshot: SweepSnapshot) -> Plot | None:
    ran = tried(snapshot)
    panels = [("GPU memory, one card", _gpu_row), ("host memory", _host_row)]
    drawn = [(title, row) for title, row in panels if any(row(p).peak or row(p).claimed for p in ran)]
    if not drawn:
        return None
    first = drawn[0][1]
    points = extremes(ran, lambda p: first(p).peak or first(p).claimed, MOST)
    columns = [(title, [row(point) for point in points]) for title, row in drawn]
    return Plot(
        name="memory",
        title="Peak memory against its limit" if any(_limits(rows) for _, rows in columns) else "Peak memory",
        alt=" ".join(_words(title, rows) for title, rows in columns),
        height=style.row_height(len(points)) + 0.4,
        draw=partial(_draw, columns),
        note=left_out(len(points), len(ran), "memory"),
    )


def _gpu_row(point: PointSnapshot) -> Row:
    """Nothing of a machine without GPUs, where the job reports its own memory under the same names."""
    if not had_gpu(point):
        return Row(point.name, None, None, "", None)
    torch_gib = metrics.peak(point, metrics.TORCH_PEAK_GIB)
    torch = torch_gib * GIB if torch_gib else None
    flagged = point.has_anomaly(UNRELIABLE)
    device = device_peak_bytes(point)
    return Row(
        point.name,
        device if device is not None or flagged else torch,
        point.card_bytes,
        pool_of(point) or "card",
        point.predicted.gpu_bytes if point.predicted else None,
        torch if flagged else None,
    )


def _host_row(point: PointSnapshot) -> Row:
    expected = point.predicted.host_bytes if point.predicted else None
    return Row(point.name, host_peak_bytes(point), point.host_limit_bytes, "limit of the job", expected)


def _words(title: str, found: Sequence[Row]) -> str:
    peaks = [row.peak for row in found if row.peak]
    claims = [row.claimed for row in found if row.claimed]
    said = _span(peaks)
    said += (
        f"; torch claims {_span(claims)}, which is unreliable" if said else f"torch claims {_span(claims)}"
    ) * bool(claims)
    limits = [f"{name} has {gib(limit)} GiB" for limit, name in _limits(found)]
    return f"{title[0].upper()}{title[1:]}: {said}{'; ' + listed(limits) if limits else ''}."


def _span(sizes: Sequence[float]) -> str:
    if not sizes:
        return ""
    low, high = gib(min(sizes)), gib(max(sizes))
    return f"{low} GiB" if low == high else f"{low} to {high} GiB"


def _limits(found: Sequence[Row]) -> list[tuple[float, str]]:
    """Distinct limits, ascending."""
    return sorted({(row.limit, row.limit_name) for row in found if row.limit})


def _draw(columns: Sequence[tuple[str, Sequence[Row]]], figure: Figure) -> None:
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (title, found) in zip(panels, columns, strict=True):
        _panel(axes, found)
        axes.set_xlabel(f"{title} (GiB)")
    style.rows(panels[0], [short(row.name) for row in columns[0][1]])
    for axes in panels[1:]:
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    seen = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(seen.values(), seen.keys(), loc="outside upper left", ncols=3)


def _gib(size: float | None) -> float:
    return (size or 0.0) / GIB


def _panel(axes: Axes, found: Sequence[Row]) -> None:
    if any(row.peak for row in found):
        axes.barh(
            range(len(found)), [_gib(row.peak) for row in found], height=0.55, label="measured peak", **style.fill(1)
        )
    guessed = [(place, row.expected) for place, row in enumerate(found) if row.expected]
    for number, (place, guess) in enumerate(guessed):
        axes.plot([_gib(guess.low), _gib(guess.high)], [place, place], color=style.INK, linewidth=1.2, marker="|")
        label = None if number else "predicted, with its interval"
        axes.plot(
            [_gib(guess.value)], [place], color=style.INK, marker="D", markersize=4, linestyle="none", label=label
        )
    claims = [(_gib(row.claimed), place) for place, row in enumerate(found) if row.claimed]
    if claims:
        look: dict[str, Any] = {
            "marker": "o",
            "markerfacecolor": "none",
            "markeredgecolor": style.LINES[3][0],
            "markersize": 7,
        }
        axes.plot(*zip(*claims, strict=True), linestyle="none", label="claimed by torch (unreliable)", **look)
    for number, (limit, name) in enumerate(_limits(found)):
        dashes = ("-", "--", "-.", ":")[number % 4]
        axes.axvline(_gib(limit), color=style.LIMIT, linewidth=1.4, linestyle=dashes, label=f"{name}: {gib(limit)} GiB")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.03)
