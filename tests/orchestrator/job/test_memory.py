from __future__ import annotations

import json

import pytest

from orchestrator.clock import FakeClock
from orchestrator.job.cgroup import CgroupMemory
from orchestrator.job.memory import MemorySampler, TreePss, compose, read_pss
from orchestrator.job.nvml import Card, visible_indices

ROLLUP = "5640f799f000-7ffef26bd000 ---p 00000000 00:00 0 [rollup]\nRss:  1672 kB\nPss:   382 kB\nPss_Dirty: 112 kB\n"


def rollup_of(proc, pid: int, kib: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "smaps_rollup").write_text(ROLLUP.replace("382", str(kib)))


def test_pss_is_read_in_bytes(tmp_path):
    rollup_of(tmp_path, 1, 382)
    assert read_pss(tmp_path / "1") == 382 * 1024


def test_a_process_that_ended_has_no_pss(tmp_path):
    assert read_pss(tmp_path / "1") is None


def test_the_tree_is_added_up_without_those_that_ended(tmp_path):
    rollup_of(tmp_path, 1, 10)
    rollup_of(tmp_path, 2, 20)
    assert TreePss(lambda: [1, 2, 3], proc=tmp_path)() == 30 * 1024


def test_measuring_is_rationed(tmp_path):
    """Half a second of CPU time at 1 % of a core buys a pause of 50 s."""
    rollup_of(tmp_path, 1, 10)
    now, cpu = [0.0], iter(i * 0.5 for i in range(100))
    pss = TreePss(lambda: [1], share=0.01, proc=tmp_path, cpu=lambda: next(cpu), monotonic=lambda: now[0])
    measured = []
    for now[0] in range(151):
        if pss() is not None:
            measured.append(now[0])
    assert measured == [0, 50, 100, 150]


def test_kills_count_from_the_beginning_of_the_job():
    sample = compose(now=1.0, cards=[], host=CgroupMemory(oom_kill=5), oom_kills_before=3, pss=None)
    assert sample.oom_kill == 2


def test_what_the_machine_cannot_tell_stays_empty():
    sample = compose(now=1.0, cards=[], host=CgroupMemory(), oom_kills_before=0, pss=None)
    assert (sample.gpu_used, sample.gpu_total, sample.oom_kill, sample.cgroup_current) == ([], [], None, None)


def test_cards_keep_their_order():
    cards = [Card("H100", "GPU-1", 10, 100), Card("H100", "GPU-2", 20, 100)]
    sample = compose(now=1.0, cards=cards, host=CgroupMemory(), oom_kills_before=0, pss=7)
    assert (sample.gpu_used, sample.gpu_total, sample.process_pss) == ([10, 20], [100, 100], 7)


def test_samples_are_appended_as_lines(tmp_path):
    clock = FakeClock(10.0)
    path = tmp_path / "memory.jsonl"
    sampler = MemorySampler(path, group=None, oom_kills_before=0, visible_devices="", tree_pss=lambda: 1, clock=clock)
    sampler()
    clock.sleep(1.0)
    sampler()
    assert [json.loads(line)["time"] for line in path.read_text().splitlines()] == [10.0, 11.0]


UUIDS = ["GPU-aaaa1", "GPU-aaaa2", "GPU-bbbb1"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 ", [1]),
        ("1,-1,2", [1]),
        ("7", [0, 1, 2]),
        ("GPU-bbbb1", [2]),
        ("GPU-b,GPU-aaaa1", [2, 0]),
        ("GPU-aaaa", [0, 1, 2]),
        ("MIG-1234", [0, 1, 2]),
    ],
)
def test_visible_cards_are_chosen_as_cuda_does(value, expected):
    assert visible_indices(value, UUIDS) == expected
