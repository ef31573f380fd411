"""Peaks since the last reading: nothing is lost between two of them, nothing is told twice."""

from __future__ import annotations

import threading

from trainer_ext.memory import PeakSampler, RankMemory

HOURS = 1e4
"""An interval in which the thread takes no sample of its own."""


def sampler_of(*readings: int) -> PeakSampler:
    left = iter(readings)
    return PeakSampler(lambda: next(left), HOURS)


def test_a_peak_outlives_the_reading_that_made_it_until_it_is_taken() -> None:
    sampler = sampler_of(3, 9, 4, 2)
    for _ in range(3):
        sampler.sample()
    assert sampler.take() == 9


def test_taking_looks_once_more() -> None:
    sampler = sampler_of(3, 9)
    sampler.sample()
    assert sampler.take() == 9


def test_the_next_peak_begins_with_what_is_held_at_the_taking() -> None:
    sampler = sampler_of(9, 4, 1)
    sampler.sample()
    assert [sampler.take(), sampler.take()] == [9, 4]


def test_the_thread_samples_by_itself_until_it_is_stopped() -> None:
    third = threading.Event()
    calls: list[int] = []

    def measure() -> int:
        calls.append(1)
        if len(calls) == 3:
            third.set()
        return len(calls)

    sampler = PeakSampler(measure, interval_s=0.001).start()
    assert third.wait(timeout=30)
    sampler.stop()
    assert sampler.take() == len(calls)


def test_a_lost_device_ends_the_thread_without_a_word() -> None:
    asked = threading.Event()

    def measure() -> int:
        asked.set()
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    sampler = PeakSampler(measure, interval_s=0.001).start()  # pytest makes an exception of a thread an error
    assert asked.wait(timeout=30)
    sampler.stop()


def test_a_rank_without_a_gpu_tells_of_the_host_alone() -> None:
    memory = RankMemory(None, watches_node=True)
    try:
        memory.sample()
        peaks = memory.take()
    finally:
        memory.stop()
    assert (peaks.device, peaks.allocated) == (None, None)
    assert peaks.process > 20 * 2**20
    assert peaks.node is not None
    assert peaks.node > 20 * 2**20


def test_one_rank_a_node_watches_the_node() -> None:
    assert RankMemory(None, watches_node=False).take().node is None
