"""Wall time by phase, under the names that reach the metrics as `timing_s/influence_*`.

On a GPU the host runs ahead of the device: without `synchronize` a phase shows when its work was launched, and the
wait turns up in the next phase that needs a number. Pass `torch.cuda.synchronize` when the split matters; it costs
the overlap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Phase = Literal["grad_staging", "hessian_solve", "token_scoring", "score_aggregation"]
"""grad_staging: factors to the device, in order, and response gradients. hessian_solve: directions H^-1 d and their
residual. token_scoring: one bilinear form per token. score_aggregation: sum over modules."""
PHASES: tuple[Phase, ...] = get_args(Phase)


class PhaseTimer:
    """Adds up seconds per phase; phases may repeat, and must not nest.

    Args:
        clock: seconds, monotonic.
        synchronize: waits until the device has finished what was launched; called at both ends of a phase.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, synchronize: Callable[[], None] | None = None
    ) -> None:
        self._clock, self._synchronize = clock, synchronize
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @classmethod
    def profiling(cls, device: torch.device) -> PhaseTimer:
        """A timer that attributes GPU work to the phase that launched it."""
        return cls(synchronize=torch.cuda.synchronize if device.type == "cuda" else None)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Count the time of the block; also when it raises."""
        start = self._now()
        try:
            yield
        finally:
            self._seconds[name] += self._now() - start

    def add(self, seconds: Mapping[Phase, float]) -> None:
        """Count time that another timer measured."""
        for name, value in seconds.items():
            self._seconds[name] += value

    def read(self) -> dict[Phase, float]:
        """Seconds per phase since the last reading, every phase present; resets the timings and nothing else."""
        seconds, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return seconds

    def _now(self) -> float:
        if self._synchronize is not None:
            self._synchronize()
        return self._clock()
