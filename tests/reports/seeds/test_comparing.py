"""What the replay is judged by: how figures are compared, tables read, and score files made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.collect.npz import read_npz
from tests.reports.seeds.printed import REPORTS, agrees, printed
from tests.reports.seeds.reading import cells, lines_with
from tests.reports.seeds.replay import METRICS
from tests.reports.seeds.score_files import scores_like, write_scores

REPORT = r"""### Timing (step 1)

| Job | `pop_rows` (s) | GPU memory (GiB) |
| --- | ---: | ---: |
| `one` | 2.3 | 141.1\* |
| `two` † | 1.2 |  |

### Scores

| Phase | `one` | `two` |
| --- | ---: | ---: |
| `gen` (s) | 410 | 411 |
"""


@pytest.mark.parametrize(
    ("shown", "cell"),
    [
        ("34.5", "34.5"),
        ("1.469", "1.4693"),
        ("1,012", "1,012.3"),
        ("141.1", r"141.1\*"),
        ("-3.1e-7", "-3.12e-7"),
        ("96/80", "96/80"),
        ("96", "96/80"),
        ("5.4%", "5.37%"),
        ("40", "40.5"),
    ],
)
def test_a_cell_agrees_that_rounds_to_the_printed_figure(shown: str, cell: str) -> None:
    assert agrees(shown, cell)


@pytest.mark.parametrize(
    ("shown", "cell"),
    [("1.469", "1.5"), ("713.768", "714"), ("96/80", "96/96"), ("96/80", "96"), ("-3.1e-7", "3.1e-7"), ("1", "")],
)
def test_a_cell_with_fewer_digits_another_sign_or_no_figure_does_not_agree(shown: str, cell: str) -> None:
    assert not agrees(shown, cell)


def test_cells_are_found_whichever_way_a_table_lies() -> None:
    assert cells(REPORT, "one", "pop_rows") == ["2.3"]
    assert cells(REPORT, "two", "pop_rows") == ["1.2"]
    assert cells(REPORT, "two", "gen") == ["411"]
    assert cells(REPORT, "two", "GPU memory") == []
    assert cells(REPORT, "two", "gen", "Timing") == []


def test_words_are_found_in_one_line_with_or_without_code_marks() -> None:
    assert lines_with(REPORT, ["`one`", "141.1"])
    assert lines_with(REPORT, ["two †", "1.2"])
    assert not lines_with(REPORT, ["one", "411"])


def test_score_files_have_the_statistics_that_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "influence" / "step_000001.npz"
    write_scores(path, scores_like(100_001, -1.4e-5, 0.207, -26.5, 11.9), {"step": 1}, size=2_000_000)
    found = read_npz(path, path.name)
    assert (found.valid, found.responses, found.nan_in_valid, found.error) == (100_001, 96, 0, None)
    assert (found.mean, found.std) == pytest.approx((-1.4e-5, 0.207), abs=1e-8)
    assert (found.min, found.max) == pytest.approx((-26.5, 11.9), rel=1e-6)
    assert path.stat().st_size == pytest.approx(2_000_000, abs=500)


def test_statistics_that_no_scores_can_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="larger std"):
        scores_like(100, 0.0, 0.1, -5.0, 5.0)
    assert np.std(scores_like(100, 0.0, 2.0, -5.0, 5.0).astype(np.float64)) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_fed_unrounded_rounds_to_what_is_printed(name: str) -> None:
    for job in printed(name).jobs:
        assert {*job.figures} - {*METRICS} <= {"Score std", "pop_rows % of update_actor"}, "a figure that nothing feeds"
        for figure, value in job.facts.get("unrounded", {}).items():
            assert agrees(job.figures[figure], str(value))
