"""The journal: batches are whole or absent, wherever a process dies; Optuna and its dashboard read it."""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.request
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from orchestrator.errors import UsageError
from orchestrator.search.journal import BatchedJournal, repair
from orchestrator.search.results import FITS, Told, TrialState
from orchestrator.search.spec import SearchSpec
from orchestrator.search.study import SearchStudy, open_study

SEARCH = SearchSpec.model_validate({"objectives": {"m/a": "minimize"}, "params": {"x": "interval(0, 1)"}})


def opened(path: Path) -> SearchStudy:
    return open_study(path, "s", SEARCH, {}, [{"x": 0.5}])


def two_trials(path: Path) -> list[int]:
    """Ends of the batches that asking and telling twice make."""
    study = opened(path)
    ends = [path.stat().st_size]
    for value in (1.0, 2.0):
        asked = study.ask(lambda number, _params: f"p{number}")
        ends.append(path.stat().st_size)
        study.tell(asked.number, Told(TrialState.COMPLETE, (value,), {FITS: 0.0}))
        ends.append(path.stat().st_size)
    return ends


def test_of_a_journal_that_was_cut_anywhere_whole_batches_are_left(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ends = two_trials(path)
    data = path.read_bytes()
    for cut in range(0, len(data), 7):
        torn = tmp_path / "torn"
        torn.write_bytes(data[:cut])
        repair(torn)
        assert torn.stat().st_size == max((end for end in ends if end <= cut), default=0)


def test_a_torn_batch_never_happened_and_the_search_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ends = two_trials(path)
    os.truncate(path, ends[2] + (ends[3] - ends[2]) // 2)  # in the middle of asking for the second trial
    study = opened(path)
    assert [asked.number for asked in study.unbound({0})] == []
    assert study.ask(lambda number, _params: f"p{number}").number == 1


def test_asking_again_after_a_torn_batch_gives_the_same_parameters(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ends = two_trials(path)
    before = optuna.load_study(study_name="s", storage=plain(path)).trials[1].params
    os.truncate(path, ends[2] + 10)
    assert opened(path).ask(lambda number, _params: f"p{number}").params == before


def test_after_an_exception_nothing_of_a_batch_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    study = opened(path)
    size = path.stat().st_size
    with contextlib.suppress(ZeroDivisionError):
        study.ask(lambda _number, _params: str(1 // 0))
    assert path.stat().st_size == size
    assert opened(path).ask(lambda number, _params: f"p{number}").params == {"x": 0.5}


def test_a_trial_that_the_store_does_not_know_is_found_with_its_point(tmp_path: Path) -> None:
    study = opened(tmp_path / "journal")
    asked = study.ask(lambda number, _params: f"p{number}")
    assert opened(tmp_path / "journal").unbound(set()) == [asked]
    assert opened(tmp_path / "journal").unbound({0}) == []


@pytest.mark.parametrize("damage", [b"{oops\n", b"\xff\x00\n", b"7\n", b"\n"])
def test_a_damaged_line_is_named_with_its_file_and_the_file_stays_as_it_is(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal"
    opened(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(before := b"".join([lines[0], damage, *lines[1:]]))
    with pytest.raises(UsageError, match=rf"{path}:2: no line of a search's journal"):
        opened(path)
    assert path.read_bytes() == before


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    opened(path)
    os.symlink(path, f"{path}.lock")
    assert opened(path).ask(lambda number, _params: f"p{number}").number == 0


def test_another_writer_between_two_batches_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    study = opened(path)
    optuna.load_study(study_name="s", storage=plain(path)).set_user_attr("note", "from outside")
    asked = study.ask(lambda number, _params: f"p{number}")
    study.tell(asked.number, Told(TrialState.COMPLETE, (1.0,), {FITS: 0.0}))
    read = optuna.load_study(study_name="s", storage=plain(path))
    assert read.user_attrs["note"] == "from outside"
    assert [trial.value for trial in read.trials] == [1.0]


def test_everything_is_one_append_a_batch(tmp_path: Path) -> None:
    journal = BatchedJournal(tmp_path / "journal")
    with journal.batch():
        journal.append_logs([{"a": 1}])
        journal.append_logs([{"a": 2}, {"a": 3}])
        assert [log["a"] for log in journal.read_logs(1)] == [2, 3]
        assert (tmp_path / "journal").read_bytes() == b""
    lines = (tmp_path / "journal").read_text().splitlines()
    assert lines == ['{"a":1,"batch":[1,3]}', '{"a":2,"batch":[2,3]}', '{"a":3,"batch":[3,3]}']


class Quiet(WSGIRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


@pytest.mark.filterwarnings("ignore")
def test_the_dashboard_opens_on_the_journal(tmp_path: Path) -> None:
    from optuna_dashboard import wsgi

    two_trials(tmp_path / "journal")
    server = make_server("127.0.0.1", 0, wsgi(plain(tmp_path / "journal")), handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{address}/dashboard/", timeout=10) as page:
            assert page.status == 200
        with urllib.request.urlopen(f"{address}/api/studies", timeout=10) as page:
            assert b'"study_name": "s"' in page.read()
    finally:
        server.shutdown()
        server.server_close()


def plain(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))
