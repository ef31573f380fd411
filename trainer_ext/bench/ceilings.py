"""What the device itself can do, measured in the same run: the yardstick of every other number.

Matrix products of random data (a product of zeros draws less power and runs at a higher clock than any real one), and a
copy within the device, counted as bytes read plus bytes written. Medians, timed by events of the device where it has
them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

Clock = Callable[[], float]
"""Seconds, monotonic."""

GPU_GEMM, CPU_GEMM = 8192, 512
GPU_COPY_BYTES, CPU_COPY_BYTES = 4 * 2**30, 64 * 2**20
WARM_UP, REPEATS = 3, 11


@dataclass(frozen=True)
class Ceilings:
    """Rates of one device."""

    fp16_flops: float | None
    """FLOP/s of a float16 product; None on a CPU, which has no fast one."""
    fp32_flops: float
    """With TF32 off."""
    fp64_flops: float
    copy_bytes: float
    """Bytes/s, read and written."""
    gemm_size: int
    """Side of the square matrices."""

    @property
    def gemm_flops(self) -> float:
        """The fastest of the products."""
        return max(self.fp16_flops or 0.0, self.fp32_flops, self.fp64_flops)


def measure_ceilings(device: torch.device, clock: Clock, *, repeats: int = REPEATS) -> Ceilings:
    """Measure all rates; some seconds on a GPU, well under one on a CPU."""
    on_gpu = device.type == "cuda"
    size = GPU_GEMM if on_gpu else CPU_GEMM
    rates = {
        dtype: 2 * size**3 / statistics.median(_gemm_seconds(size, dtype, device, clock, repeats))
        for dtype in (*((torch.float16,) if on_gpu else ()), torch.float32, torch.float64)
    }
    return Ceilings(
        fp16_flops=rates.get(torch.float16),
        fp32_flops=rates[torch.float32],
        fp64_flops=rates[torch.float64],
        copy_bytes=_copy_rate(GPU_COPY_BYTES if on_gpu else CPU_COPY_BYTES, device, clock, repeats),
        gemm_size=size,
    )


def device_seconds(step: Callable[[], object], device: torch.device, clock: Clock, repeats: int) -> list[float]:
    """Seconds that the device takes for each of `repeats` calls, after some that are not counted."""
    for _ in range(WARM_UP):
        step()
    return [_one(step, device, clock) for _ in range(repeats)]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished what was launched; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _one(step: Callable[[], object], device: torch.device, clock: Clock) -> float:
    if device.type != "cuda":
        start = clock()
        step()
        return clock() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3  # milliseconds


def _gemm_seconds(size: int, dtype: torch.dtype, device: torch.device, clock: Clock, repeats: int) -> list[float]:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    return device_seconds(lambda: torch.mm(a, b, out=out), device, clock, repeats)


def _copy_rate(size: int, device: torch.device, clock: Clock, repeats: int) -> float:
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / statistics.median(device_seconds(lambda: target.copy_(source), device, clock, repeats))
