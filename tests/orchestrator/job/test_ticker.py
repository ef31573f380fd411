from __future__ import annotations

import threading

from orchestrator.job.ticker import Ticker

PATIENCE_S = 10.0


def test_the_work_is_done_at_once_and_again():
    rounds, twice = [], threading.Event()

    def work() -> None:
        rounds.append(None)
        if len(rounds) == 2:
            twice.set()

    with Ticker(work, 0.001, "test").running():
        assert twice.wait(PATIENCE_S)


def test_what_fails_goes_on_and_is_told_once(capsys):
    again = threading.Event()
    rounds = []

    def work() -> None:
        rounds.append(None)
        if len(rounds) == 3:
            again.set()
        raise OSError("disk full")

    with Ticker(work, 0.001, "memory").running():
        assert again.wait(PATIENCE_S)
    assert capsys.readouterr().err == "orchestrator.job: memory: OSError: disk full\n"


def test_it_runs_for_one_command_after_another_and_once_more_at_the_end_of_each():
    rounds = []
    ticker = Ticker(lambda: rounds.append(None), 1000.0, "test")
    for commands in (1, 2, 3):
        with ticker.running():
            pass
        assert len(rounds) == 2 * commands


def test_one_that_hangs_is_left_behind_and_not_doubled():
    release, entered = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        entered.release()
        release.wait()

    ticker = Ticker(hang, 0.001, "test", stop_wait_s=0.01)
    with ticker.running():
        assert entered.acquire(timeout=PATIENCE_S)
    with ticker.running():
        assert not entered.acquire(blocking=False)
    release.set()
