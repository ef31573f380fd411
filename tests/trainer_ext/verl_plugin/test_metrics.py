"""Names, sums over ranks, and peaks of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from verl.trainer.ppo.v1.utils import MetricsAggregator

from trainer_ext.influence import InfluenceConfig
from trainer_ext.verl_plugin import metrics
from trainer_ext.verl_plugin.metrics import PeakSampler, ProcessTree, combine_ranks, job_root, setup_line


def report(**changes: Any) -> dict[str, Any]:
    module = {"k_in": 4, "k_out": 2, "route": "direct", "residual": 1e-6}
    base = {"tokens": 10, "scored_tokens": 6, "timing": {"hessian_solve": 1.0}, "memory_peak_bytes": 5}
    return {**base, "modules": {"q_proj": module}, **changes}


def test_counts_add_up_over_ranks_and_times_are_the_slowest() -> None:
    slow = report(tokens=3, scored_tokens=0, timing={"hessian_solve": 2.0}, memory_peak_bytes=4)
    slow["modules"]["q_proj"]["residual"] = 1e-3
    combined = combine_ranks([report(), slow])
    assert combined["tokens"] == 13
    assert combined["scored_tokens"] == 6
    assert combined["timing"] == {"hessian_solve": 2.0}
    assert combined["memory_peak_bytes"] == 5
    assert combined["modules"]["q_proj"]["residual"] == 1e-3


def test_a_rank_that_solved_nothing_has_no_residual_to_add() -> None:
    idle = report(modules={"q_proj": {"k_in": 4, "k_out": 2, "route": "none", "residual": None}})
    assert combine_ranks([idle, report()])["modules"]["q_proj"]["residual"] == 1e-6
    assert combine_ranks([idle])["modules"]["q_proj"]["residual"] is None


@pytest.mark.parametrize("name", ["ROWS", "TOKENS", "SCORED_TOKENS", "RESIDUAL", "MEMORY"])
def test_verls_aggregation_leaves_a_steps_values_as_they_are(name: str) -> None:
    aggregator = MetricsAggregator()
    aggregator.add_step_metrics({getattr(metrics, name): 7.5}, sample_count=16)
    assert aggregator.get_aggregated_metrics()[getattr(metrics, name)] == 7.5


def test_the_setup_line_holds_every_setting() -> None:
    line = setup_line(InfluenceConfig(projection_dim_factor=64), {"enable": True})
    assert line.startswith("[influence_trace] setup enable=True hessian_mode=inverse")
    assert "projection_dim_factor=64" in line
    assert "\n" not in line


def test_the_peak_outlives_the_reading_that_made_it() -> None:
    readings = iter([3, 9, 4])
    sampler = PeakSampler(lambda: next(readings))
    assert [sampler.peak() for _ in range(3)] == [3, 9, 9]


def test_the_thread_samples_until_it_is_stopped() -> None:
    calls: list[int] = []

    def measure() -> int:
        calls.append(1)
        return len(calls)

    sampler = PeakSampler(measure, interval_s=0.001).start()
    while len(calls) < 3:
        pass
    sampler.stop()
    assert sampler.peak() == len(calls)


def fake_process(proc: Path, pid: int, resident_kib: int, pss_kib: int) -> None:
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    (proc / str(pid) / "status").write_text(f"Name:\tx\nVmRSS:\t{resident_kib} kB\n")
    (proc / str(pid) / "smaps_rollup").write_text(f"Rss: {resident_kib} kB\nPss:   {pss_kib} kB\nPss_Dirty: 1 kB\n")


def test_proportional_memory_is_read_again_only_where_resident_memory_grew(tmp_path: Path) -> None:
    pid = os.getpid()
    tree = ProcessTree(psutil.Process(), proc=tmp_path)
    fake_process(tmp_path, pid, resident_kib=100, pss_kib=60)
    assert tree.peak_bytes() == 60 * 1024
    fake_process(tmp_path, pid, resident_kib=100, pss_kib=90)
    assert tree.peak_bytes() == 60 * 1024
    fake_process(tmp_path, pid, resident_kib=120, pss_kib=50)
    assert tree.peak_bytes() == 60 * 1024
    fake_process(tmp_path, pid, resident_kib=130, pss_kib=95)
    assert tree.peak_bytes() == 95 * 1024


def test_children_count_too() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "block = bytearray(64 * 2**20); print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        alone = ProcessTree(psutil.Process(child.pid)).peak_bytes()
        assert alone > 64 * 2**20
        assert ProcessTree(psutil.Process()).peak_bytes() > alone
    finally:
        child.communicate(b"\n")


def test_outside_ray_the_job_is_the_process_itself() -> None:
    assert job_root(psutil.Process()).pid == os.getpid()
