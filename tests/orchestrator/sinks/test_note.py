from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sinks.note import summary_note

REPORT = """\
## 2026-02-22 - factor

| Item | Details |
| --- | --- |
| Request | Which factor? |

### Timing

long

### Experiment Results

| job | std |
| --- | --- |
| a | 1 |
| b | 2 |

![scores](plots/scores.png)

### Key findings

- f64 takes 3.1 times as long as f128.
"""
GOLDEN = Path(__file__).parents[2] / "golden" / "report.md"


def test_a_note_has_the_header_the_findings_and_the_results_and_no_pictures() -> None:
    note = summary_note(REPORT)
    places = [note.index(words) for words in ("Which factor?", "3.1 times", "| b | 2 |", "The rest is in `report.md`")]
    assert places == sorted(places)
    assert "Timing" not in note
    assert "png" not in note


def test_what_does_not_fit_loses_its_last_rows() -> None:
    whole = summary_note(REPORT)
    cut = summary_note(REPORT, len(whole) - 5)
    assert "| a | 1 |" in cut
    assert "| b | 2 |" not in cut
    assert cut.endswith("The rest is in `report.md` among the artifacts.")


def test_nothing_gives_nothing() -> None:
    assert summary_note("") == ""


@given(st.integers(200, 6_000))
def test_a_note_is_never_longer_than_its_limit(limit: int) -> None:
    assert len(summary_note(GOLDEN.read_text(), limit)) <= limit
