"""Host memory: the kernel's peak of one process, and the sum over a tree in which shared pages count once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from trainer_ext.host_memory import ProcessTree, Rationed, job_root, take_resident_peak

MIB = 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")
NEVER_RESET = not os.access("/proc/self/clear_refs", os.W_OK)


# ---- the peak of one process


@pytest.mark.skipif(NEVER_RESET, reason="the kernel lets no peak begin anew")
def test_memory_given_back_shows_in_the_peak_that_it_belongs_to_and_not_in_the_next() -> None:
    take_resident_peak()  # that of all tests before
    before = take_resident_peak()
    block = bytearray(os.urandom(1)) * (64 * MIB)
    del block
    assert take_resident_peak() > before + 60 * MIB
    assert take_resident_peak() < before + 30 * MIB


def process_folder(folder: Path, status: str) -> Path:
    folder.mkdir()
    (folder / "status").write_text(f"Name:\tpython\nThreads:\t4\n{status}")
    return folder


def test_the_kernels_peak_is_read_and_begun_anew(tmp_path: Path) -> None:
    process = process_folder(tmp_path / "self", "VmHWM:\t     30 kB\nVmRSS:\t     20 kB\n")
    assert take_resident_peak(process) == 30 * 1024
    assert (process / "clear_refs").read_text() == "5"


def test_without_a_peak_of_the_kernels_what_is_held_now_counts(tmp_path: Path) -> None:
    assert take_resident_peak(process_folder(tmp_path / "self", "VmRSS:\t     20 kB\n")) == 20 * 1024


# ---- a ration of the time


class Clock:
    """Wall and CPU time that pass when told."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def work(self, seconds: float) -> None:
        self.wall += seconds
        self.cpu += seconds

    def rationed(self, function: Callable[[], Any]) -> Rationed[Any]:
        return Rationed(function, share=0.01, cpu=lambda: self.cpu, monotonic=lambda: self.wall)


def test_an_answer_that_took_a_tenth_of_a_second_stands_for_ten() -> None:
    clock, answers = Clock(), iter("ab")

    def dear() -> str:
        clock.work(0.1)
        return next(answers)

    ask = clock.rationed(dear)
    assert ask() == "a"
    clock.wall += 9.9
    assert ask() == "a"
    clock.wall += 0.2
    assert ask() == "b"


def test_what_costs_nothing_is_asked_every_time() -> None:
    answers = iter("ab")
    ask = Clock().rationed(lambda: next(answers))
    assert [ask(), ask()] == ["a", "b"]


# ---- a tree of processes


def fake_process(proc: Path, pid: int, resident_pages: int, pss_kib: int | None) -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "statm").write_text(f"9999 {resident_pages} 5 1 0 20 0\n")
    (folder / "smaps_rollup").unlink(missing_ok=True)
    if pss_kib is not None:
        (folder / "smaps_rollup").write_text(f"00-ff ---p 00 00:00 0   [rollup]\nRss: 1 kB\nPss:  {pss_kib} kB\n")


def fake_tree(proc: Path, *pids: int, dear: bool = False) -> ProcessTree:
    """A tree that measures sharing at every call, or where that is `dear` once."""
    ticks = iter(range(1000))
    return ProcessTree(lambda: list(pids), proc=proc, cpu=lambda: next(ticks) if dear else 0.0, monotonic=lambda: 0.0)


def test_shared_pages_count_once(tmp_path: Path) -> None:
    for pid in (1, 2):
        fake_process(tmp_path, pid, resident_pages=100, pss_kib=70 * PAGE // 1024)
    assert fake_tree(tmp_path, 1, 2)() == 140 * PAGE


def test_between_two_measurements_of_sharing_growth_is_seen_and_sharing_taken_as_it_was(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path, 1, dear=True)
    fake_process(tmp_path, 1, resident_pages=100, pss_kib=70 * PAGE // 1024)
    assert tree() == 70 * PAGE
    fake_process(tmp_path, 1, resident_pages=500, pss_kib=0)
    assert tree() == 470 * PAGE
    fake_process(tmp_path, 1, resident_pages=10, pss_kib=0)
    assert tree() == 0, "never below zero"


def test_a_process_that_nobody_may_look_into_counts_whole_and_one_that_ended_not_at_all(tmp_path: Path) -> None:
    fake_process(tmp_path, 1, resident_pages=100, pss_kib=None)
    assert fake_tree(tmp_path, 1, 2)() == 100 * PAGE


def test_children_count_too() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "block = bytearray(64 * 2**20); print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        alone = ProcessTree.below(psutil.Process(child.pid))()
        assert alone > 64 * MIB
        assert ProcessTree.below(psutil.Process())() > alone
    finally:
        child.communicate(b"\n")


def test_a_tree_whose_root_has_ended_is_empty() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tree = ProcessTree.below(psutil.Process(child.pid))
    child.communicate(b"\n")
    assert tree() == 0


# ---- where a job begins


def worker_below(*ancestors: Any) -> Any:
    """A process whose parents are the given ones, nearest first."""
    for index, ancestor in enumerate(ancestors):
        above = ancestors[index + 1] if index + 1 < len(ancestors) else None
        ancestor.parent = lambda above=above: above
    return SimpleNamespace(pid=99, name=lambda: "ray::worker", parents=lambda: list(ancestors))


def named(name: str, pid: int) -> Any:
    return SimpleNamespace(name=lambda: name, pid=pid)


def test_a_job_begins_with_what_started_its_raylet() -> None:
    driver = named("python", 7)
    assert job_root(worker_below(named("raylet", 8), driver, named("bash", 6))) is driver


def test_on_a_node_where_the_raylet_was_orphaned_the_job_begins_with_it() -> None:
    raylet = named("raylet", 8)
    assert job_root(worker_below(raylet, named("systemd", 1))) is raylet
    assert job_root(worker_below(raylet)) is raylet


def test_outside_ray_the_job_is_the_process_itself() -> None:
    assert job_root(psutil.Process()).pid == os.getpid()
