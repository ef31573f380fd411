"""The sampler on a GPU: it reports what the device holds, also where torch claims more than there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer_ext.host_memory import take_resident_peak
from trainer_ext.memory import GIB, RankMemory, device_used_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

ROOT = Path(__file__).parents[2]
SLEEPING_POOL = Path(__file__).with_name("sleeping_pool.py")
SLACK = 2 * GIB
"""More than CUDA's libraries take of a card as they are loaded, and more than the driver keeps of it for itself."""
HELD_ELSEWHERE = f"""
import torch
block = torch.ones({2 * GIB}, dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
print("up", flush=True)
input()
"""


@pytest.fixture
def memory() -> Iterator[RankMemory]:
    torch.cuda.empty_cache()
    watched = RankMemory(torch.cuda.current_device(), watches_node=False)
    watched.take()
    yield watched
    watched.stop()
    torch.cuda.empty_cache()


def test_torch_counts_an_engine_that_sleeps_and_claims_more_than_the_card_while_the_sampler_does_not() -> None:
    torch.cuda.empty_cache()
    free, card = torch.cuda.mem_get_info()
    if free < 0.7 * card:
        pytest.skip(f"others hold {(card - free) / GIB:.1f} GiB of the card")
    story = play(SLEEPING_POOL)
    awake, training = story["awake"], story["training"]
    base = story["before"]["device"]

    assert awake["allocated"] >= story["engine"]
    assert abs(awake["device"] - base - story["engine"]) < SLACK
    assert abs(story["asleep_used"] - base) < SLACK, "the engine gave its pages back"

    assert training["allocated"] > story["card"], "torch claims more than the card has"
    assert story["reserved"] > story["card"], "and so does its count of what it has reserved"
    assert abs(training["device"] - base - story["trainer"]) < SLACK, "beside the trainer the device held nothing"


def play(script: Path) -> dict[str, Any]:
    """The story of a script that leaves its process in a state that no other test should share."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    story: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return story


def test_what_torch_freed_is_still_seen_since_torch_keeps_it(memory: RankMemory) -> None:
    base = device_used_bytes(torch.cuda.current_device())
    block = torch.ones(4 * GIB, dtype=torch.uint8, device="cuda")
    del block
    peaks = memory.take()
    assert peaks.device is not None
    assert peaks.allocated is not None
    assert peaks.device >= base + 4 * GIB
    assert peaks.allocated >= 4 * GIB


def test_the_next_step_begins_without_the_peaks_of_the_one_before(memory: RankMemory) -> None:
    block = torch.ones(4 * GIB, dtype=torch.uint8, device="cuda")
    before = memory.take()
    del block
    torch.cuda.empty_cache()
    memory.take()  # this one still begins with the block
    after = memory.take()
    assert before.device is not None
    assert after.device is not None
    assert before.allocated is not None
    assert after.allocated is not None
    assert after.device <= before.device - 4 * GIB
    assert after.allocated <= before.allocated - 4 * GIB


def test_memory_of_another_process_counts(memory: RankMemory) -> None:
    base = device_used_bytes(torch.cuda.current_device())
    other = subprocess.Popen(
        [sys.executable, "-c", HELD_ELSEWHERE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        peaks = memory.take()
    finally:
        other.communicate("\n")
    assert peaks.device is not None
    assert peaks.device >= base + 2 * GIB
    assert peaks.allocated is not None
    assert peaks.allocated < 2 * GIB, "torch counts its own process alone"


def test_the_samples_are_nvmls_but_for_what_the_driver_keeps_for_itself() -> None:
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        nvml = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError as error:
        pytest.skip(f"NVML does not know this device: {error}")
    assert abs(nvml - device_used_bytes(0)) < SLACK


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel lets no peak begin anew")
def test_pinned_memory_counts_as_host_memory() -> None:
    torch.cuda.init()
    torch.empty(1, pin_memory=True)
    before = take_resident_peak()
    block = torch.empty(GIB, dtype=torch.uint8, pin_memory=True).fill_(1)
    assert take_resident_peak() >= before + 0.95 * block.nbytes
