"""Lines that a rank writes while another process reads."""

from __future__ import annotations

from pathlib import Path

from tests.trainer_ext.bench.step.values import INLINE, make_row
from trainer_ext.bench.step.events import Event, append_event, read_events


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    events = [Event(ready=1.5), Event(row=make_row(INLINE)), Event(failure="no")]
    for event in events:
        append_event(tmp_path / "events", event)
    assert read_events(tmp_path / "events") == events


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    append_event(tmp_path / "events", Event(ready=1.0))
    with (tmp_path / "events").open("a") as file:
        file.write('{"ready": 2')
    assert read_events(tmp_path / "events") == [Event(ready=1.0)]
    assert read_events(tmp_path / "none") == []
