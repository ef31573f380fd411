"""Messages: which are due, that each goes out once, and that no secret is ever said or kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.backends.fake import Play, always
from orchestrator.backends.fake_files import fail
from orchestrator.cli import main
from orchestrator.errors import EnvironmentProblem
from orchestrator.ledger import View
from orchestrator.notices import at_the_end, while_running
from orchestrator.notify import TRIES, Announcer, AppriseNotifier, open_notifier
from orchestrator.spec_model import NotifySpec, SweepSpec
from tests.orchestrator.driving import Rehearsal

ALL = ("finished", "point_failed", "stopped")
BROKEN = "Traceback (most recent call last):\n  File 'a.py', line 3, in f\nKeyError: 'x'\n"


@dataclass
class Recorder:
    """A notifier that remembers; `deaf` takes nothing."""

    places: tuple[str, ...] = ("here",)
    deaf: bool = False
    got: list[tuple[str, str, str]] = field(default_factory=list)

    def send(self, place: str, title: str, body: str) -> bool:
        self.got.append((place, title, body))
        return not self.deaf

    @property
    def titles(self) -> list[str]:
        return [title for _, title, _ in self.got]


def announced(rehearsal: Rehearsal, recorder: Recorder) -> View:
    """Drive to the end as a session does, with a recorder for a notifier."""
    announcer = Announcer("s", rehearsal.store, recorder, ALL, rehearsal.warnings.append)
    view = rehearsal.drive(announce=announcer.progress)
    announcer.finished(view, "report.md")
    return view


def test_a_sweep_that_ends_well_says_so_once_with_its_report(tmp_path: Path) -> None:
    recorder = Recorder()
    announced(Rehearsal(tmp_path, always(Play())), recorder)
    assert recorder.got == [("here", "s finished", "2 succeeded. Report: report.md")]


def test_a_point_that_fails_for_good_is_told_at_once_with_its_reason(tmp_path: Path) -> None:
    recorder = Recorder()
    announced(Rehearsal(tmp_path, always(Play(on_end=fail(1, log=BROKEN))), points=1), recorder)
    assert recorder.titles == ["s: point-0 failed", "s finished"]
    assert "KeyError" in recorder.got[0][2]
    assert "(1 attempt)" in recorder.got[0][2]


def test_a_sweep_that_stops_says_why_and_does_not_claim_to_have_finished(tmp_path: Path) -> None:
    spec = SweepSpec.model_validate({"name": "s", "budget": {"max_parallel": 1, "gpu_hours": 0.001}})
    recorder = Recorder()
    announced(Rehearsal(tmp_path, always(Play()), points=3, spec=spec), recorder)
    assert recorder.titles == ["s stopped"]
    assert "the budget of 0.001 GPU-hours is used up" in recorder.got[0][2]
    assert "2 points will not start: point-1, point-2" in recorder.got[0][2]


def test_a_resumed_sweep_says_nothing_twice(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=fail(1, log=BROKEN))), points=2)
    first, again = Recorder(), Recorder()
    announced(rehearsal, first)
    announced(rehearsal, again)
    assert len(first.got) == 3
    assert again.got == []


def test_a_point_that_was_run_again_and_failed_again_is_told_again(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=fail(1, log=BROKEN))), points=1)
    announced(rehearsal, Recorder())
    rehearsal.store.rerun(rehearsal.store.points("s")[0])
    recorder = Recorder()
    announced(rehearsal, recorder)
    assert recorder.titles == ["s: point-0 failed", "s finished"]


def test_only_what_was_asked_for_is_told(tmp_path: Path) -> None:
    view = announced(Rehearsal(tmp_path, always(Play(on_end=fail(1, log=BROKEN))), points=1), Recorder())
    assert while_running("s", view, ("stopped",)) == []
    assert at_the_end("s", view, ("point_failed",), "report.md") == []


def test_a_place_that_takes_nothing_is_a_warning_and_holds_nothing_up(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=fail(1, log=BROKEN))), points=1)
    deaf = Recorder(deaf=True)
    view = announced(rehearsal, deaf)
    assert view.finished
    assert deaf.titles.count("s: point-0 failed") <= TRIES
    assert any("did not reach here" in warning for warning in rehearsal.warnings)
    later = Recorder()
    announced(rehearsal, later)
    assert "s: point-0 failed" in later.titles, "the next start tries again"


# ---- secrets ---------------------------------------------------------------------------------------------------------


def test_a_url_must_be_a_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text("# ?\nname: s\nconfig: synthetic\nnotify: {urls: ['json://user:hunter2@host']}\n")
    assert main(["sweep", str(spec), "--root", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "notify.urls[0]: is a secret: write {env: NAME} or {file: PATH}" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("urls", "environ", "message"),
    [
        ([{"env": "NO_SUCH_URL"}], {}, "the variable NO_SUCH_URL is not set"),
        ([{"file": "/no/such/file"}], {}, "the file /no/such/file cannot be read"),
        ([{"env": "URL"}], {"URL": "nonsense://hunter2"}, "the variable URL holds no URL that apprise understands"),
    ],
)
def test_what_is_missing_is_said_by_its_reference(urls: list[object], environ: dict[str, str], message: str) -> None:
    pytest.importorskip("apprise")
    with pytest.raises(EnvironmentProblem, match=message) as raised:
        open_notifier(NotifySpec.model_validate({"urls": urls}), environ)
    assert "hunter2" not in str(raised.value)


def test_without_urls_nothing_is_opened() -> None:
    assert open_notifier(NotifySpec(), {}) is None


# ---- apprise itself --------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook on loopback: its address, and what was posted."""
    posted: list[dict[str, str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.server_port}", posted
        listening.shutdown()
        thread.join()


def test_a_sweep_tells_a_webhook_through_apprise_and_keeps_no_url(
    tmp_path: Path, server: tuple[str, list[dict[str, str]]], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("apprise")
    address, posted = server
    (tmp_path / "hook").write_text(f"json://user:hunter2@{address}/hook\n")
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "# ?\nname: s\nconfig: synthetic\noverrides: [synthetic.step_seconds=0.01]\nbackend: local\n"
        f"notify: {{urls: [{{file: {tmp_path / 'hook'}}}]}}\n"
    )
    assert main(["sweep", str(spec), "--root", str(tmp_path / "runs")]) == 0
    (message,) = posted
    assert message["title"] == "s finished"
    assert "1 succeeded" in message["message"]
    shown = capfd.readouterr()
    assert "hunter2" not in shown.out + shown.err
    kept = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []


def test_a_service_that_is_not_there_is_no_more_than_a_message_that_did_not_arrive() -> None:
    pytest.importorskip("apprise")
    notifier = AppriseNotifier({"the variable URL": "json://127.0.0.1:9/"})
    assert notifier.send("the variable URL", "title", "body") is False
