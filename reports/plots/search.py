"""A search in plots: the front with its knee, how the best came about, every parameter's slice, and importance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from reports.plots import style
from reports.plots.plot import Plot, short
from reports.sections.points import scalar
from reports.snapshot import SweepSnapshot
from reports.trials import SearchSnapshot, TrialSnapshot, is_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 2
"""Complete trials below which nothing is drawn."""
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 12,
    "markerfacecolor": "none",
    "markeredgecolor": style.INK,
    "linestyle": "none",
}
_MOST_LABELLED = 8
_MOST_SLICES = 4


def search_front(snapshot: SweepSnapshot) -> Plot | None:
    """Of two objectives: all complete trials, the front as a line, the knee in a ring."""
    search = _drawn(snapshot)
    if search is None or len(search.objectives) != 2 or not search.front:
        return None
    one, other = search.objectives
    ends = [search.trial(number) for number in (search.front[0], search.front[-1])]
    knee = search.trial(search.knee) if search.knee is not None else None
    said = f"{len(search.front)} of {len(search.complete)} complete trials lie on the front, from {_words(search, ends[0])}"
    said += f" to {_words(search, ends[1])}" if len(search.front) > 1 else ""
    said += f"; the knee is {_words(search, knee)}" if knee else ""
    return Plot("search_front", f"Front of {one} and {other}", f"{said}.", 3.4, partial(_draw_front, search))


def search_history(snapshot: SweepSnapshot) -> Plot | None:
    """Every objective over the trials, with the best so far."""
    search = _drawn(snapshot)
    if search is None:
        return None
    parts = [
        f"{name}: {_best(search, place):.4g} after {len(search.trials)} trials"
        for place, name in enumerate(search.objectives)
    ]
    height = 1.0 + 1.8 * len(search.objectives)
    return Plot(
        "search_history", "History of the search", f"Best {'; '.join(parts)}.", height, partial(_draw_history, search)
    )


def search_slice(snapshot: SweepSnapshot) -> Plot | None:
    """Every objective over every parameter."""
    search = _drawn(snapshot)
    if search is None:
        return None
    shown = list(search.params)[:_MOST_SLICES]
    best = search.trial(search.best) if search.best is not None else None
    said = f"{', '.join(search.objectives)} of {len(search.complete)} complete trials over {', '.join(shown)}"
    said += f"; best at {_settings(best)}" if best else ""
    note = f"Shown are {_MOST_SLICES} of {len(search.params)} parameters." if len(search.params) > _MOST_SLICES else ""
    height = 0.9 + 1.9 * len(search.objectives)
    return Plot("search_slice", "Slices of the search", f"{said}.", height, partial(_draw_slices, search, shown), note)


def search_importance(snapshot: SweepSnapshot) -> Plot | None:
    """Shares of the parameters, a bar for each objective."""
    search = _drawn(snapshot)
    if search is None or not search.importance:
        return None
    first, shares = next(iter(search.importance.items()))
    most = max(shares, key=lambda name: shares[name])
    said = f"For {first}, {most} weighs most: {100 * shares[most]:.0f}%."
    height = 0.4 + style.row_height(len(search.params) * len(search.importance))
    return Plot("search_importance", "Importance of the parameters", said, height, partial(_draw_importance, search))


def _drawn(snapshot: SweepSnapshot) -> SearchSnapshot | None:
    search = snapshot.search
    return search if search is not None and len(search.complete) >= LEAST else None


def _best(search: SearchSnapshot, place: int) -> float:
    way = list(search.objectives.values())[place]
    return (min if way == "minimize" else max)(_value(trial, place) for trial in search.complete)


def _value(trial: TrialSnapshot, place: int) -> float:
    assert trial.values is not None
    return trial.values[place]


def _words(search: SearchSnapshot, trial: TrialSnapshot) -> str:
    values = ", ".join(f"{name} {_value(trial, place):.4g}" for place, name in enumerate(search.objectives))
    return f"{trial.name} ({values})"


def _settings(trial: TrialSnapshot) -> str:
    return ", ".join(f"{name}={scalar(value)}" for name, value in trial.params.items())


def _draw_front(search: SearchSnapshot, figure: Figure) -> None:
    axes = figure.subplots()
    rest = [trial for trial in search.complete if trial.number not in search.front]
    axes.plot(
        [_value(trial, 0) for trial in rest],
        [_value(trial, 1) for trial in rest],
        label="other trials",
        **{**style.line(1), "linestyle": "none"},
    )
    good = [search.trial(number) for number in search.front]
    axes.plot([_value(t, 0) for t in good], [_value(t, 1) for t in good], label="front", **style.line(0))
    middle = (_value(good[0], 0) + _value(good[-1], 0)) / 2
    for trial in good if len(good) <= _MOST_LABELLED else (good[0], good[-1]):
        place, is_right = (_value(trial, 0), _value(trial, 1)), _value(trial, 0) > middle
        where: dict[str, Any] = {"xytext": (-7 if is_right else 7, 6), "ha": "right" if is_right else "left"}
        axes.annotate(short(trial.name, 24), place, textcoords="offset points", fontsize=7.5, **where)
    if search.knee is not None:
        knee = search.trial(search.knee)
        axes.plot([_value(knee, 0)], [_value(knee, 1)], label="knee", **_RING)
    axes.margins(x=0.12, y=0.12)
    axes.grid()
    (one, way), (other, other_way) = search.objectives.items()
    axes.set_xlabel(f"{one} ({way})")
    axes.set_ylabel(f"{other} ({other_way})")
    figure.legend(loc="outside upper left", ncols=3)


def _draw_history(search: SearchSnapshot, figure: Figure) -> None:
    panels = figure.subplots(len(search.objectives), 1, squeeze=False, sharex=True)[:, 0]
    for place, (axes, (name, way)) in enumerate(zip(panels, search.objectives.items(), strict=True)):
        numbers = [trial.number for trial in search.complete]
        values = [_value(trial, place) for trial in search.complete]
        axes.plot(numbers, values, label="trial", **{**style.line(0), "linestyle": "none"})
        better = min if way == "minimize" else max
        so_far = [better(values[: end + 1]) for end in range(len(values))]
        axes.step(numbers, so_far, where="post", label="best so far", color=style.INK, linewidth=1.2)
        lost = [trial.number for trial in search.trials if trial.state in ("infeasible", "failed", "pruned")]
        if lost:
            floor = [axes.get_ylim()[0]] * len(lost)
            axes.plot(
                lost, floor, label="without a result", marker="x", linestyle="none", color=style.LIMIT, clip_on=False
            )
        axes.set_ylabel(short(name, 20))
        axes.grid()
    panels[-1].set_xlabel("trial")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)


def _draw_slices(search: SearchSnapshot, shown: Sequence[str], figure: Figure) -> None:
    grid = figure.subplots(len(search.objectives), len(shown), squeeze=False, sharey="row")
    for place, (objective, row) in enumerate(zip(search.objectives, grid, strict=True)):
        for name, axes in zip(shown, row, strict=True):
            _slice(search, place, name, axes)
        row[0].set_ylabel(short(objective, 22))
    for name, axes in zip(shown, grid[-1], strict=True):
        axes.set_xlabel(name)


def _slice(search: SearchSnapshot, place: int, name: str, axes: Axes) -> None:
    """Numbers on their own scale; words one beside the other, in the order of the domain's first appearance."""
    trials = [trial for trial in search.complete if name in trial.params]
    values = [trial.params[name] for trial in trials]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numeric and not search.params[name].startswith("choice"):
        across = [float(str(value)) for value in values]
        if is_log(search.params[name]):
            axes.set_xscale("log")
    else:
        words = list(dict.fromkeys(scalar(value) for value in values))
        across = [float(words.index(scalar(value))) for value in values]
        axes.set_xticks(range(len(words)), [short(word, 14) for word in words])
        axes.set_xlim(-0.5, len(words) - 0.5)
    axes.plot(across, [_value(trial, place) for trial in trials], **{**style.line(0), "linestyle": "none"})
    best = search.best if search.best is not None else search.knee
    for x, trial in zip(across, trials, strict=True):
        if trial.number == best:
            axes.plot([x], [_value(trial, place)], **_RING)
    if axes.get_xscale() == "log":
        style.few_decades(axes.xaxis)
    axes.grid()


def _draw_importance(search: SearchSnapshot, figure: Figure) -> None:
    axes = figure.subplots()
    names = list(search.params)
    width = 0.8 / len(search.importance)
    for place, (objective, shares) in enumerate(search.importance.items()):
        rows = [row - 0.4 + width * (place + 0.5) for row in range(len(names))]
        share = [100 * shares.get(name, 0.0) for name in names]
        axes.barh(rows, share, height=width, label=short(objective, 40), **style.fill(place + 1))
    style.rows(axes, names)
    axes.set_xlabel("% of what tells the better trials from all (PED-ANOVA)")
    figure.legend(loc="outside upper left", ncols=1)
