from __future__ import annotations

import json
from pathlib import Path

import mlflow.server
import pytest

from orchestrator.sinks.mlflow_view import TAG, view_state, view_tag


def test_a_view_is_what_mlflows_pages_keep_of_themselves() -> None:
    value = json.loads(view_tag("factor", "r1", 5, ["scope", "factor"], ["summary/score_std", "summary/step_s"], 4))
    assert value.keys() == {"name", "createdAt", "updatedAt", "state"}
    state = json.loads(value["state"])
    assert state["searchFilter"] == "tags.`orchestrator.sweep_run` = 'r1' AND tags.`orchestrator.kind` = 'point'"
    assert state["selectedColumns"][:3] == ["params.`scope`", "params.`factor`", "metrics.`summary/score_std`"]
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["PARALLEL", "SCATTER", "BAR", "BAR"]
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections


def test_parallel_coordinates_have_room_for_at_least_one_figure_and_stay_readable() -> None:
    axes = [f"axis{n}" for n in range(9)]
    [chart, *_] = view_state("r1", axes, ["summary/a", "summary/b"], 4)["compareRunCharts"]
    assert len(chart["selectedParams"]) + len(chart["selectedMetrics"]) == 6
    assert chart["selectedMetrics"] == ["summary/a"]


def test_of_many_points_only_the_first_have_lines_of_their_own() -> None:
    assert view_state("r1", ["x"], [], 100)["runsHiddenMode"] == "SHOW_ALL"
    assert view_state("r1", ["x"], [], 101)["runsHiddenMode"] == "FIRST_20_RUNS"


def test_a_large_view_fits_into_a_tag() -> None:
    """The server takes 20,000 characters."""
    axes, figures = ([f"{kind}-of-a-longish-name-{n}" for n in range(12)] for kind in ("axis", "summary/figure"))
    assert len(view_tag("x" * 40, "r" * 32, 1_790_000_000_000, axes, figures, 500)) < 10_000


@pytest.fixture(scope="module")
def pages() -> str:
    """The script of MLflow's pages, as installed."""
    folder = Path(mlflow.server.__file__).parent / "js" / "build" / "static" / "js"
    return "\n".join(path.read_text() for path in folder.glob("*.js"))


@pytest.mark.parametrize(
    "word",
    [
        f'"{TAG}"',
        '"viewStateShareKey"',
        '"compareRunsMode"',
        '"/compare-runs"',
        '"workflowType"',
        *(f'="{value}"' for value in ("PARALLEL", "SCATTER", "BAR", "SHOW_ALL", "FIRST_20_RUNS")),
        '"METRIC"',
        '"ALL"',
        '"Active"',
        '"mlflow.experimentKind"',
        '"custom_model_development"',
        *(f".{key}" for key in ("selectedParams", "selectedMetrics", "showAllRuns", "cardHeight")),
    ],
)
def test_the_installed_pages_know_the_words_of_our_links_and_views(word: str, pages: str) -> None:
    assert word in pages
    assert not set(view_state("r", [], [], 1)) - set(_keys(pages)), "all keys of the state"


def _keys(pages: str) -> list[str]:
    return [key for key in view_state("r", [], [], 1) if f'"{key}"' in pages or f"{key}:" in pages]
