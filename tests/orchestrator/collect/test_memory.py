"""Peaks of memory.jsonl."""

from __future__ import annotations

from pathlib import Path

from orchestrator.collect.memory import MemoryFacts, read_memory
from trainer_ext.records import MemorySample

GIB = 1024**3


def write(path: Path, *samples: MemorySample, junk: bytes = b"") -> Path:
    path.write_bytes(b"".join(sample.to_json().encode() + b"\n" for sample in samples) + junk)
    return path


def test_peaks_are_the_largest_of_all_samples_and_cards(tmp_path: Path) -> None:
    total = [140 * GIB, 140 * GIB]
    path = write(
        tmp_path / "memory.jsonl",
        MemorySample(
            time=1, gpu_used=[3 * GIB, 90 * GIB], gpu_total=total, cgroup_current=5, cgroup_limit=100, oom_kill=0
        ),
        MemorySample(
            time=2, gpu_used=[80 * GIB, 1 * GIB], gpu_total=total, cgroup_current=9, cgroup_peak=12, oom_kill=1
        ),
        MemorySample(time=3, cgroup_current=2),
    )
    assert read_memory(path) == MemoryFacts(3, 90 * GIB, 140 * GIB, 12, 100, 1)


def test_the_jobs_own_processes_outrank_a_shared_cgroup(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m", MemorySample(time=1, cgroup_current=50, process_pss=7), MemorySample(time=2, process_pss=6)
    )
    assert read_memory(path).host_peak == 7


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    junk = b'{"time": 1, "gpu_used": ["x"]}\n{"gpu_used": [1]}\n\xff\n{"time": 4, "gpu_us'
    path = write(tmp_path / "m", MemorySample(time=1, gpu_used=[5]), junk=junk)
    assert read_memory(path) == MemoryFacts(samples=1, gpu_peak=5)


def test_a_file_that_does_not_exist_says_nothing(tmp_path: Path) -> None:
    assert read_memory(tmp_path / "none") == MemoryFacts()
