"""How every plot looks: colours and marks that the colour-blind and a grey printer tell apart, and bytes that repeat.

Nothing is told by colour alone: lines have markers and dashes of their own, areas have hatches and dark edges. The colours
are of Okabe and Ito (2008) and of Tol (2021); a test sees them through simulated colour blindness.

The same figure gives the same bytes with the same matplotlib: no dates, no random identifiers, matplotlib's own font, and
none of the user's settings. Text is text: a `$` in a job's name starts no formula.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.plots.plot import WIDTH, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
INK = "#222222"
PALE = "#D9D9D9"
LIMIT = "#B00020"
"""Of a line that must not be crossed."""

DPI = 144

LINES: tuple[tuple[str, str, str], ...] = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#882255", "D", ":"),
    ("#000000", "v", (0, (5, 1, 1, 1, 1, 1))),  # type: ignore[assignment]
    ("#0072B2", "X", "--"),
    ("#D55E00", "P", "-"),
    ("#009E73", "*", ":"),
)
"""Colour, marker, dashes. Five colours are all that stay apart on white for everyone; then the marks alone change."""


class Fill(NamedTuple):
    colour: str
    hatch: str


FILLS: tuple[Fill, ...] = (
    Fill("#D0D0D0", ""),
    Fill("#56B4E9", "///"),
    Fill("#0072B2", ""),
    Fill("#F0E442", "|||"),
    Fill("#D55E00", ""),
    Fill("#8FD9BF", "\\\\\\"),
    Fill("#882255", ""),
    Fill("#9E9E9E", "//"),
    Fill("#FFFFFF", "---"),
)
"""Of areas that touch in this order."""

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.5,
    "hatch.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "report",
    "path.simplify": True,
}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}


def images(plot: Plot, formats: Sequence[str] = FORMATS) -> dict[str, bytes]:
    """The plot's files by format."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands for it
        figure = Figure(figsize=(WIDTH, plot.height), layout="constrained")
        FigureCanvasAgg(figure)
        plot.draw(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is found once, for all formats
        return {kind: _saved(figure, kind) for kind in formats}


def _saved(figure: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=_METADATA[kind])
    return buffer.getvalue()


def line(place: int) -> dict[str, Any]:
    """Keywords of `Axes.plot` for the n-th line."""
    colour, marker, dashes = LINES[place % len(LINES)]
    return {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 4.5, "linewidth": 1.4}


def fill(place: int) -> dict[str, Any]:
    """Keywords of `Axes.barh` for the n-th part of a stack."""
    colour, hatch = FILLS[place % len(FILLS)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": INK, "linewidth": 0.5}


def rows(axes: Axes, names: Sequence[str]) -> None:
    """One row a name, the first on top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def plain_ticks(axis: Any, number: Callable[[float], str] = "{:g}".format) -> None:
    """Figures as 0.01 and 1e-05, on logarithmic axes too; unlabelled minor ticks."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value).replace("-", "−")))
    axis.set_minor_formatter(NullFormatter())


@functools.cache
def row_height(count: int) -> float:
    """Inches of a plot with so many rows: its axis and legend, and a quarter of an inch each."""
    return 1.15 + 0.26 * max(count, 2)


def few_decades(axis: Any) -> None:
    """Labels of a logarithmic axis: few, and those between the decades where it spans less than two."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = sorted(axis.get_view_interval())
    ratio = high / low if low > 0 else math.inf
    if ratio < 5:
        axis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(numticks=5, subs=(1, 2, 5) if ratio < 100 else (1,)))
    plain_ticks(axis)
