from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clock import FakeClock
from orchestrator.job.heartbeat import HeartbeatWriter, MetricsTail, steps_seen
from orchestrator.paths import AttemptPaths
from trainer_ext.records import Heartbeat


def row(step: object) -> str:
    return json.dumps({"step": step, "data": {"a": 1.0}}) + "\n"


@given(
    steps=st.lists(st.integers(0, 50), max_size=30),
    cuts=st.lists(st.integers(0, 2000), max_size=10),
)
def test_however_the_file_grows_the_steps_are_the_same(tmp_path_factory, steps, cuts):
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    text = "".join(map(row, steps))
    tail = MetricsTail(path)
    written = 0
    for cut in [*sorted(min(cut, len(text)) for cut in cuts), len(text)]:
        with path.open("a") as file:
            file.write(text[written:cut])
        written = cut
        tail.advance()
    assert tail.seen == set(steps)
    assert tail.last == (steps[-1] if steps else None)
    assert steps_seen(path) == sorted(set(steps))


@given(st.binary(max_size=200))
def test_no_content_is_an_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    path.write_bytes(content)
    assert all(isinstance(step, int) for step in steps_seen(path))


def test_without_a_file_there_are_no_steps(tmp_path):
    assert steps_seen(tmp_path / "metrics.jsonl") == []


def test_a_file_begun_anew_is_read_from_its_start(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    path.write_text(row(1) + row(2))
    tail.advance()
    path.write_text(row(1))
    tail.advance()
    assert tail.last == 1


def test_the_last_output_is_when_the_log_last_grew(tmp_path):
    paths, clock = AttemptPaths(tmp_path), FakeClock(100.0)
    writer = HeartbeatWriter(paths, clock)
    writer()
    assert beat(paths).last_output_at is None
    paths.console.write_text("hello")
    clock.sleep(1.0)
    writer()
    clock.sleep(1.0)
    writer()
    assert (beat(paths).console_bytes, beat(paths).last_output_at, beat(paths).time) == (5, 101.0, 102.0)


def beat(paths: AttemptPaths) -> Heartbeat:
    return Heartbeat.from_json(paths.heartbeat.read_text())
