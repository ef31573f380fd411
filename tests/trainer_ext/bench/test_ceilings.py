from __future__ import annotations

from collections.abc import Callable

import torch

from trainer_ext.bench.ceilings import CPU_COPY_BYTES, CPU_GEMM, WARM_UP, device_seconds, measure_ceilings

CPU = torch.device("cpu")


def test_rates_are_the_work_over_the_clocks_seconds(clock: Callable[[], float]) -> None:
    ceilings = measure_ceilings(CPU, clock, repeats=1)
    assert ceilings.fp16_flops is None
    assert ceilings.fp32_flops == ceilings.fp64_flops == ceilings.gemm_flops == 2 * CPU_GEMM**3
    assert ceilings.copy_bytes == 2 * CPU_COPY_BYTES


def test_the_first_calls_are_not_counted(clock: Callable[[], float]) -> None:
    calls: list[int] = []
    assert device_seconds(lambda: calls.append(0), CPU, clock, repeats=4) == [1.0] * 4
    assert len(calls) == 4 + WARM_UP
