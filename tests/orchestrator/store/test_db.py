"""The store's promises: guarded changes with their events, re-entrant sweeps, and nothing lost between processes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.clock import FakeClock
from orchestrator.errors import StoreError, UsageError
from orchestrator.ledger import AttemptRow, Measured, Measurement, SweepRow
from orchestrator.model import AttemptState, Estimate, Forecast, Point, PointState, Prediction, Verdict
from orchestrator.store import Store


def sweep(name: str = "s") -> SweepRow:
    return SweepRow(name, "", "s.yaml", {}, "fake", None, "sweep s.yaml", None, {}, created_at=1.0)


def points(*ids: str) -> list[Point]:
    return [
        Point(id_, index, f"name-{id_}", {"x": index}, {}, (f"x={index}",), {"x": index}, id_ * 8)
        for index, id_ in enumerate(ids)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "a" / "orchestrator.db", FakeClock())
    store.put_sweep(sweep(), points("a", "b"))
    return store


def first_attempt(store: Store) -> AttemptRow:
    (point, *_) = store.points("s")
    store.move_point(point, PointState.READY)
    (point, *_) = store.points("s")
    row = AttemptRow("s", point.id, 1, "token", "s-a-1", None, AttemptState.CREATED, 1.0)
    assert store.start_attempt(point, row)
    return store.attempts("s")[0]


def test_a_second_writer_that_saw_the_old_state_changes_nothing(store: Store) -> None:
    (seen, *_) = store.points("s")
    assert store.move_point(seen, PointState.READY)
    events = len(store.events("s"))
    assert not store.move_point(seen, PointState.READY)
    assert len(store.events("s")) == events


def test_an_illegal_transition_is_a_programming_error(store: Store) -> None:
    with pytest.raises(AssertionError, match="planned -> succeeded"):
        store.move_point(store.points("s")[0], PointState.SUCCEEDED)


def test_every_change_of_state_leaves_one_event(store: Store) -> None:
    attempt = first_attempt(store)
    for state in (AttemptState.SUBMITTING, AttemptState.SUBMITTED, AttemptState.RUNNING, AttemptState.ENDED):
        moved = store.move_attempt(attempt, state)
        assert moved is not None
        attempt = moved
    changes = [(event.from_state, event.to_state) for event in store.events("s") if event.attempt == 1]
    assert changes == [
        (None, "created"), ("created", "submitting"), ("submitting", "submitted"),
        ("submitted", "running"), ("running", "ended"),
    ]  # fmt: skip


def test_a_point_is_started_by_one_of_many_racing_writers(store: Store) -> None:
    (point, *_) = store.points("s")
    store.move_point(point, PointState.READY)
    (point, *_) = store.points("s")
    row = AttemptRow("s", point.id, 1, "token", "s-a-1", None, AttemptState.CREATED, 1.0)
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(store.start_attempt(point, row))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    assert len(store.attempts("s")) == 1


def test_running_a_changed_sweep_file_again_keeps_what_ran(store: Store) -> None:
    first_attempt(store)
    store.put_sweep(sweep(), points("a", "c"))
    assert {row.id: row.state for row in store.points("s")} == {
        "a": PointState.ACTIVE, "b": PointState.SKIPPED, "c": PointState.PLANNED,
    }  # fmt: skip
    store.put_sweep(sweep(), points("a", "b", "c"))
    assert store.points("s")[1].state is PointState.PLANNED


def test_rows_come_back_as_they_were_written(store: Store, tmp_path: Path) -> None:
    attempt = first_attempt(store)
    again = Store.open(tmp_path / "a" / "orchestrator.db", FakeClock())
    assert again.sweep("s") == sweep()
    assert again.config("s", "b") == {"x": 1}
    assert again.attempts("s") == [attempt]
    assert dataclasses.asdict(again.points("s")[1])["overrides"] == ("x=1",)


def test_an_unknown_sweep_names_the_known_ones(store: Store) -> None:
    with pytest.raises(UsageError, match="no sweep named 'x'; known: s"):
        store.sweep("x")


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    Store.open(path, FakeClock()).close()
    script = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('update meta set value = 99'); c.commit()"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(StoreError, match="schema version 99"):
        Store.open(path, FakeClock())


def test_a_file_that_is_no_database_gives_a_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    path.write_text("not a database, and long enough to be looked at " * 50)
    with pytest.raises(StoreError, match="cannot open the database"):
        Store.open(path, FakeClock())


def test_a_point_that_changed_while_it_was_logged_stays_unlogged(store: Store) -> None:
    (seen, *_) = store.points("s")
    store.move_point(seen, PointState.READY)
    store.mark_logged(seen)
    assert store.points("s")[0].unlogged
    store.mark_logged(store.points("s")[0])
    assert not store.points("s")[0].unlogged


def test_cancelling_a_sweep_ends_what_waits_and_marks_what_is_active_in_whatever_state(store: Store) -> None:
    attempt = first_attempt(store)
    store.move_attempt(attempt, AttemptState.ENDED)
    store.cancel_sweep("s")
    store.cancel_sweep("s")
    assert [point.state for point in store.points("s")] == [PointState.ACTIVE, PointState.CANCELLED]
    assert store.attempts("s")[0].cancel_requested
    assert [event.detail for event in store.events("s")].count("cancel requested") == 1


def test_a_point_that_waits_takes_its_labels_and_configuration_from_the_file_as_it_is_now(store: Store) -> None:
    first_attempt(store)
    again = [
        dataclasses.replace(point, parameters={"y": 1}, overrides=("y=1",), config={"y": 1})
        for point in points("a", "b")
    ]
    store.put_sweep(sweep(), again)
    ran, waiting = store.points("s")
    assert (ran.parameters, ran.overrides, store.config("s", ran.id)) == ({"y": 1}, ("x=0",), {"x": 0})
    assert (waiting.parameters, waiting.overrides, store.config("s", waiting.id)) == ({"y": 1}, ("y=1",), {"y": 1})


def test_a_database_that_stops_serving_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.db"
    store = Store.open(path, FakeClock())
    store.close()
    path.write_bytes(b"not a database, but longer than its header of a hundred bytes" * 10)
    with pytest.raises(StoreError, match="does not serve: file is not a database"):
        store.sweep_names()


def test_a_question_mark_in_the_path_is_a_part_of_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20d" / "orchestrator.db"
    Store.open(path, FakeClock()).close()
    assert path.exists()


def test_a_stopped_sweep_goes_on_when_a_point_of_it_is_run_again(store: Store) -> None:
    store.move_point(store.points("s")[0], PointState.BLOCKED, "budget")
    store.finish_sweep("s", 5.0, "budget")
    assert store.rerun(store.points("s")[0])
    assert (store.sweep("s").finished_at, store.sweep("s").stop_reason) == (None, None)


# ---- predictions and measurements ------------------------------------------------------------------------------------


def prediction(factor: int = 64, gib: float = 10.0, seconds: float = 60.0) -> Prediction:
    forecast = Forecast(Estimate(gib, gib / 2, gib * 2), gib / 2, None, None, Estimate(seconds, 1.0, 99.0, "scaled"))
    return Prediction("job", {"factor": factor, "scope": "x"}, gib, {"h100": forecast}, {"h100": forecast})


def test_a_prediction_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "o.db", FakeClock())
    wanted = [dataclasses.replace(point, predicted=prediction()) for point in points("a")]
    store.put_sweep(sweep(), [*wanted, *points("b")])
    assert [row.predicted for row in store.points("s")] == [prediction(), None]


def test_what_was_predicted_first_stays_on_record_until_the_formula_says_something_else(tmp_path: Path) -> None:
    """A sweep that is started again must not report other predictions than the ones it began with."""
    store = Store.open(tmp_path / "o.db", FakeClock())
    (plain,) = points("a")
    store.put_sweep(sweep(), [dataclasses.replace(plain, predicted=prediction())])
    corrected = dataclasses.replace(prediction(), on={})
    store.put_sweep(sweep(), [dataclasses.replace(plain, predicted=corrected)])
    assert store.points("s")[0].predicted == prediction()
    store.put_sweep(sweep(), [dataclasses.replace(plain, predicted=prediction(gib=20.0))])
    assert store.points("s")[0].predicted == prediction(gib=20.0)


def test_measurements_are_of_completed_attempts_as_the_sweep_file_wants_them(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "o.db", FakeClock())
    names = ("good", "failed", "patched", "unpredicted")
    wanted = [dataclasses.replace(point, predicted=prediction()) for point in points(*names)]
    wanted[3] = dataclasses.replace(wanted[3], predicted=None)
    store.put_sweep(sweep(), wanted)
    seen = Measured(steps=2, step_s=3.0, gpu_bytes=7, node="n")
    for row in store.points("s"):
        store.move_point(row, PointState.READY)
        row = dataclasses.replace(row, state=PointState.READY)
        patch = {"x": 1} if row.id == "patched" else {}
        first = AttemptRow("s", row.id, 1, "t", row.id, "h100", AttemptState.CREATED, 1.0, patch=patch, measured=seen)
        store.start_attempt(row, dataclasses.replace(first, started_at=10.0, ended_at=25.0))
        (attempt,) = [a for a in store.attempts("s") if a.point == row.id]
        verdict = Verdict.HANG if row.id == "failed" else Verdict.COMPLETED
        for state in (AttemptState.ENDED, AttemptState.COLLECTED, AttemptState.JUDGED):
            moved = store.move_attempt(attempt, state, verdict=verdict.value)
            assert moved is not None
            attempt = moved
    assert store.measurements() == [Measurement(prediction(), "h100", 15.0, seen)]


def test_an_attempt_keeps_what_it_was_given_and_what_it_took(store: Store) -> None:
    (point, *_) = store.points("s")
    store.move_point(point, PointState.READY)
    given = AttemptRow(
        "s", point.id, 1, "t", "j", "h200", AttemptState.CREATED, 1.0, patch={"a.b": 0.3}, exclude_nodes=("n1", "n2")
    )
    store.start_attempt(store.points("s")[0], given, "because")
    assert store.attempts("s") == [given]
    assert store.events("s")[-1].detail == "pool h200: because"


def test_a_deferred_attempt_goes_back_to_where_it_came_from(store: Store) -> None:
    submitting = store.move_attempt(first_attempt(store), AttemptState.SUBMITTING)
    assert submitting is not None
    again = store.move_attempt(submitting, AttemptState.CREATED, "no room", deferrals=1, not_before=9.0)
    assert again is not None
    assert (again.state, again.deferrals, again.not_before) == (AttemptState.CREATED, 1, 9.0)


def test_a_note_is_an_event_that_changes_nothing(store: Store) -> None:
    before = store.view("s")
    store.note("s", "said something", "a", 1)
    event = store.events("s")[-1]
    assert (event.detail, event.point, event.attempt, event.to_state) == ("said something", "a", 1, None)
    assert store.view("s") == before
