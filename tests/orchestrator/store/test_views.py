"""A view that is read again and again is the one that a fresh reading gives, whatever happened in between."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.clock import FakeClock
from orchestrator.launch import Ask, new_attempt
from orchestrator.ledger import PointRow, SweepRow
from orchestrator.model import ATTEMPT_TRANSITIONS, POINT_TRANSITIONS, PointState
from orchestrator.search.results import TrialRow
from orchestrator.store import Store
from tests.orchestrator.driving import point

CLOCK = FakeClock()


def put(store: Store, points: int, search: bool = False) -> None:
    spec = {"search": {"trials": 3}} if search else {}
    store.put_sweep(
        SweepRow("s", "", "s.yaml", spec, "fake", None, "", None, {}, created_at=0.0), [point(n) for n in range(points)]
    )


def move(store: Store, row: PointRow, draw: st.DataObject) -> None:
    """One change of one point that the store allows."""
    history = store.view("s").history(row)
    what = draw.draw(st.sampled_from(["point", "attempt", "logged", "unlogged", "note"]))
    if what == "point" and POINT_TRANSITIONS[row.state]:
        to = draw.draw(st.sampled_from(sorted(POINT_TRANSITIONS[row.state])))
        if to is PointState.ACTIVE:
            store.start_attempt(row, new_attempt(row, len(history) + 1, Ask("h100"), 0.0))
        else:
            store.move_point(row, to)
    elif what == "attempt" and history and ATTEMPT_TRANSITIONS[history[-1].state]:
        store.move_attempt(history[-1], draw.draw(st.sampled_from(sorted(ATTEMPT_TRANSITIONS[history[-1].state]))))
    elif what == "logged":
        store.mark_logged(row)
    elif what == "unlogged":
        store.mark_unlogged("s", row.id)
    else:
        store.note("s", "something", row.id)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_two_processes_that_take_turns_see_what_a_fresh_one_sees(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    one, other = Store.open(path, CLOCK), Store.open(path, CLOCK)
    put(one, 3)
    for _ in range(data.draw(st.integers(1, 12))):
        store = data.draw(st.sampled_from([one, other]))
        if data.draw(st.booleans()):
            move(store, data.draw(st.sampled_from(store.view("s").points)), data)
        else:
            data.draw(st.sampled_from([lambda s=store: put(s, 4), lambda s=store: s.cancel_sweep("s"), lambda: None]))()
        fresh = Store.open(path, CLOCK)
        assert strip(store) == strip(fresh)
        assert [p.state for p in one.view("s").points] == [p.state for p in fresh.view("s").points]
        fresh.close()
    one.close()
    other.close()


def strip(store: Store) -> object:
    """All but whether the sinks have seen a point, which only the process that drives needs to know."""
    view = store.view("s")
    return [(p.id, p.index, p.name, p.state, p.reason) for p in view.points], view.attempts


def test_the_process_that_drives_sees_what_its_sinks_have_not(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a.db", CLOCK)
    put(store, 1)
    (row,) = store.view("s").points
    store.mark_logged(row)
    assert not store.view("s").points[0].unlogged
    store.mark_unlogged("s", row.id)
    assert store.view("s").points[0].unlogged


def test_the_points_of_a_search_stay_when_its_sweep_is_put_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a.db", CLOCK)
    put(store, 0, search=True)
    planned = point(7)
    for _ in range(2):
        store.put_trial(TrialRow("s", 0, planned.id, {"x": 1}, 0.0), planned)
    assert [row.id for row in store.view("s").points] == [planned.id]
    put(store, 0, search=True)
    assert [row.state for row in store.view("s").points] == [PointState.PLANNED]
    assert [trial.params for trial in store.trials("s")] == [{"x": 1}]
    assert store.trials("s", "another") == []
