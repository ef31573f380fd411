from __future__ import annotations

import multiprocessing
import os

import psutil
import pytest

from orchestrator.job.claim import own_claim, read, take


def test_the_first_takes_it_and_keeps_it(tmp_path):
    path = tmp_path / "claim"
    assert take(path, own_claim("first", 1.0))
    assert not take(path, own_claim("second", 2.0))
    assert read(path) == own_claim("first", 1.0)


def test_a_claim_names_its_process():
    claim = own_claim("t", 1.0)
    assert (claim.pid, claim.process_started_at) == (os.getpid(), psutil.Process().create_time())


def _contend(path, barrier, wins):
    barrier.wait()
    if take(path, own_claim("t", 1.0)):
        with wins.get_lock():
            wins.value += 1


def test_of_many_contenders_one_wins(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, wins = context.Barrier(4), context.Value("i", 0)
    contenders = [context.Process(target=_contend, args=(tmp_path / "claim", barrier, wins)) for _ in range(4)]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join()
    assert wins.value == 1


@pytest.mark.parametrize("content", ["", "{", '{"token": "t"}'])
def test_an_unsigned_claim_is_nobodys(tmp_path, content):
    path = tmp_path / "claim"
    path.write_text(content)
    assert read(path) is None
    assert not take(path, own_claim("t", 1.0))


def test_no_folder_no_claim(tmp_path):
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "no" / "claim", own_claim("t", 1.0))
