"""`watch` beside the process that drives: on a pipe, on a terminal, as JSON, and without anybody who drives."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.fake import Play, always
from orchestrator.cli import main
from orchestrator.cli.watch import follow
from orchestrator.clock import SystemClock
from orchestrator.errors import StoreError
from orchestrator.ledger import SweepRow
from orchestrator.paths import RootPaths
from orchestrator.planning import plan_sweep
from orchestrator.progress import Progress
from orchestrator.session import Session, register
from orchestrator.sinks.base import PointRecord, SweepEnd, SweepRecord
from orchestrator.store import Store, open_reader
from tests.orchestrator.driving import Rehearsal

SWEEP = """\
# What does one see?
name: seen
config: synthetic
parameters: {fail: [none, python_error]}
alias: {fail: synthetic.fail}
overrides: [synthetic.step_seconds=0.3]
job_name: "seen-{fail}"
backend: local
budget: {max_parallel: 2}
"""
ORCHESTRATOR = [sys.executable, "-m", "orchestrator"]
PLAIN = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR")} | {"TERM": "xterm"}


def on_a_terminal(words: list[str]) -> tuple[int, str]:
    """Exit code and everything that a terminal got."""
    mine, theirs = pty.openpty()
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, env=PLAIN) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(mine, 65_536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            shown += part
    os.close(mine)
    return process.returncode, shown.decode()


class NoSink:
    """Takes everything and keeps nothing."""

    def write_sweep(self, sweep: SweepRecord) -> str | None: ...

    def write_point(self, point: PointRecord) -> None: ...

    def finish_sweep(self, end: SweepEnd) -> None: ...


def test_a_sweep_is_watched_to_its_end_beside_the_process_that_drives_it(tmp_path: Path) -> None:
    """The watching process looks before the first job starts, and this one drives."""
    spec, paths = tmp_path / "seen.yaml", RootPaths(tmp_path / "runs")
    spec.write_text(SWEEP)
    store = Store.open(paths.database, SystemClock())
    register(plan_sweep(spec, [], None, None), store, spec, ["test"], 0.0)
    words = [*ORCHESTRATOR, "watch", "seen", "--interval", "0.1", "--root", str(paths.root)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=PLAIN) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        Session("seen", paths, store, NoSink(), SystemClock()).run(lambda _view: None, lambda _said: None)
        rest, errors = watching.communicate(timeout=120)
    lines = (first + rest).splitlines()
    assert (watching.returncode, errors) == (1, "")
    assert not {"\x1b", "\r"} & set(rest)
    assert "no process is seen that drives it" in first
    assert len(lines) == len(set(lines)), "a line for a change"
    assert all(line.startswith("seen: ") for line in lines)
    assert any("| seen-none " in line for line in lines), "it was seen to run"
    assert lines[-1] == "seen: 2/2 points  1 failed  1 succeeded | done"


def test_a_terminal_ends_with_the_table_in_colour_and_keeps_what_stood_above(finished: Rehearsal) -> None:
    code, shown = on_a_terminal([*ORCHESTRATOR, "watch", "--root", str(finished.root)])
    assert code == 0
    assert "\x1b[3" in shown, "colours"
    assert "\x1b[?1049h" not in shown, "the alternate screen"
    assert "point-1" in shown


@pytest.fixture
def finished(tmp_path: Path) -> Rehearsal:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=2)
    rehearsal.drive()
    rehearsal.store.finish_sweep("s", rehearsal.clock.now(), None)
    return rehearsal


def test_a_sweep_that_is_over_is_one_line_of_json_and_its_exit_code(
    finished: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", "--json", "--root", str(finished.root)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert said.keys() == {
        "time", "sweep", "state", "points", "running", "waiting", "gpu_hours", "left", "stopped"
    }  # fmt: skip
    assert (said["sweep"], said["state"], said["points"]) == ("s", "succeeded", {"total": 2, "succeeded": 2})
    assert said["running"] == []
    assert said["waiting"] == []


def test_following_ends_when_the_sweep_is_finished_and_not_when_its_points_happen_to_be_settled(
    tmp_path: Path,
) -> None:
    """A search may have all its trials settled and begin more."""
    rehearsal = Rehearsal(tmp_path, always(Play()), points=2)
    rehearsal.drive()
    reader, looks = open_reader(rehearsal.paths.database, rehearsal.clock), []

    def show(progress: Progress, now: float, state: str) -> None:
        looks.append((progress.settled, state))
        if len(looks) == 3:
            rehearsal.store.finish_sweep("s", now, None)

    started = rehearsal.clock.now()
    view = follow("s", rehearsal.paths, reader, rehearsal.clock, 5.0, show)
    assert view.finished
    assert looks == [(2, "succeeded")] * 4
    assert rehearsal.clock.now() - started == 15.0


def test_a_sweep_that_nobody_drives_says_how_to_go_on(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=2)
    seen: list[str | None] = []

    def show(progress: Progress, now: float, _state: str) -> None:
        seen.append(progress.stopped)
        if len(seen) == 2:
            rehearsal.drive()
            rehearsal.store.finish_sweep("s", now, None)

    follow("s", rehearsal.paths, rehearsal.store, rehearsal.clock, 1.0, show)
    assert seen[0] is not None
    assert "no process is seen that drives it" in seen[0]
    assert "resume s" in seen[0]
    assert seen[-1] is None


class Hiccups:
    """A store that cannot be read at some looks."""

    def __init__(self, inner: Store, failing: set[int]) -> None:
        self._inner, self._failing, self.looks = inner, failing, 0

    def sweep(self, name: str) -> SweepRow:
        self.looks += 1
        if self.looks in self._failing:
            raise StoreError("the file server does not answer")
        return self._inner.sweep(name)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def test_a_database_that_cannot_be_read_now_and_then_ends_no_watch_and_one_that_stays_away_does(
    finished: Rehearsal,
) -> None:
    def watch(failing: set[int]) -> int:
        store: Any = Hiccups(finished.store, failing)
        follow("s", finished.paths, store, finished.clock, 1.0, lambda *_look: None)
        return int(store.looks)

    assert watch({1, 2, 3, 4}) == 5
    with pytest.raises(StoreError, match="does not answer"):
        watch({1, 2, 3, 4, 5})


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_an_interval_that_cannot_be_is_refused(
    seconds: str, finished: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", "--interval", seconds, "--root", str(finished.root)]) == 2
    assert "at least 0.1" in capsys.readouterr().err
