"""The view of a sweep that MLflow's pages open with: its points alone, in parallel coordinates, with the columns that matter.

MLflow keeps a saved view as a tag of the experiment, `mlflow.sharedViewState.<id>`, whose value holds the state of its page
as JSON. That is what its own "share" button writes, and no documented interface: the names below are those of the pages
that MLflow 3.17 ships, and `tests/orchestrator/sinks/test_mlflow_server.py` looks for them there. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TAG = "mlflow.sharedViewState."
"""+ id: the experiment's tag of one view. The id is the sweep's run."""

BY_NAME = "tags.`mlflow.runName`"
"""The default order, by time, folds a sweep's points below it, and then draws no charts."""
SHOWN_TAGS = ("state", "verdict", "anomalies", "attempts", "pool")
_MOST_AXES = 6
"""More columns of parallel coordinates cannot be read."""
_MOST_DRAWN = 100
"""Runs with a line, a bar or a dot of their own; above that MLflow's pages become slow. Parallel coordinates show all."""


def points_filter(sweep_run: str) -> str:
    """MLflow's search for the runs that stand for the points of one sweep."""
    return f"tags.`orchestrator.sweep_run` = '{sweep_run}' AND tags.`orchestrator.kind` = 'point'"


def view_tag(
    name: str, sweep_run: str, created_at_ms: int, axes: Sequence[str], metrics: Sequence[str], points: int
) -> str:
    """The value of the experiment's tag.

    Args:
        name: of the sweep; shown in the list of views.
        axes: legal parameter keys.
        metrics: legal keys of figures that all points have, the most interesting first.
        points: how many there are.
    """
    state = json.dumps(view_state(sweep_run, axes, metrics, points), separators=(",", ":"))
    return json.dumps({"name": name, "createdAt": created_at_ms, "updatedAt": created_at_ms, "state": state})


def view_state(sweep_run: str, axes: Sequence[str], metrics: Sequence[str], points: int) -> Mapping[str, Any]:
    """What MLflow's page of runs keeps of itself."""
    columns = [*(f"params.`{axis}`" for axis in axes), *(f"metrics.`{metric}`" for metric in metrics)]
    columns += [f"tags.`{tag}`" for tag in SHOWN_TAGS]
    return {
        "searchFilter": points_filter(sweep_run),
        "orderByKey": BY_NAME,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL" if points <= _MOST_DRAWN else "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "compareRunCharts": _charts(axes, metrics),
        "compareRunSections": [_section(_COMPARED, columns=2, cardHeight=480), _section(_FIGURES)],
        "isAccordionReordered": True,
    }


_COMPARED, _FIGURES = "Comparison", "summary"


def _charts(axes: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    crossed = list(axes[: _MOST_AXES - 1])
    drawn = list(metrics[: _MOST_AXES - len(crossed)])[::-1]  # the last column gives the lines their colours
    charts = [_chart("PARALLEL", _COMPARED, selectedParams=crossed, selectedMetrics=drawn, showAllRuns=True)]
    if len(metrics) >= 2:
        x, y = ({"key": key, "dataAccessKey": key, "type": "METRIC"} for key in metrics[:2])
        charts.append(_chart("SCATTER", _COMPARED, xaxis=x, yaxis=y))
    charts += [_chart("BAR", _FIGURES, metricKey=key, displayName=key.rpartition("/")[2]) for key in metrics]
    return charts


def _chart(kind: str, section: str, **own: Any) -> dict[str, Any]:
    name = "-".join([kind.lower(), *([own["metricKey"]] if "metricKey" in own else [])])
    shared = {"type": kind, "uuid": name, "metricSectionId": section, "runsCountToCompare": _MOST_DRAWN}
    return {**shared, "deleted": False, "isGenerated": "metricKey" in own, **own}


def _section(name: str, **own: Any) -> dict[str, Any]:
    shared = {"uuid": name, "name": name, "display": True, "isReordered": True}
    return {**shared, "deleted": False, "isGenerated": False, **own}
