"""Time by phase, under the names that reach the metrics as `timing_s/influence_*`.

On a GPU the host runs ahead of the device, so that a clock on the host shows when work was launched, not how long it
took. There a phase is a pair of events in the device's own queue: they cost nothing, and nobody waits for them before
the reading.
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

Mark = Callable[[], "torch.cuda.Event | float"]
"""Takes the time, now or where the device's queue stands."""


class Span:
    """The time between two marks; read it after the device has passed the second."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._start: torch.cuda.Event | float = mark()
        self._end: torch.cuda.Event | float | None = None

    @classmethod
    def on(cls, device: torch.device) -> Span:
        """A span of the device's own work, begun now."""
        return cls(_mark_of(device))

    def close(self) -> None:
        """Take the second mark."""
        self._end = self._mark()

    @property
    def seconds(self) -> float:
        """The time between the marks; waits for the device where it must."""
        if isinstance(self._start, float):
            assert isinstance(self._end, float)
            return self._end - self._start
        assert isinstance(self._end, torch.cuda.Event)
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1e3


class PhaseTimer:
    """Adds up seconds per phase; phases may repeat, and must not nest.

    Args:
        mark: what a phase's ends are taken with; None: a monotonic clock on the host.
    """

    def __init__(self, mark: Mark | None = None) -> None:
        self._mark = mark or time.perf_counter
        self._spans: list[tuple[Phase, Span]] = []
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @classmethod
    def on(cls, device: torch.device) -> PhaseTimer:
        """A timer of the device's own work."""
        return cls(_mark_of(device))

    @contextmanager
    def phase(self, name: Phase) -> Iterator[Span]:
        """Count the time of the block; also when it raises."""
        span = Span(self._mark)
        try:
            yield span
        finally:
            span.close()
            self._spans.append((name, span))

    def add(self, seconds: Mapping[Phase, float]) -> None:
        """Count time that another timer measured."""
        for name, value in seconds.items():
            self._seconds[name] += value

    def read(self) -> dict[Phase, float]:
        """Seconds per phase since the last reading, every phase present; resets the timings and nothing else."""
        for name, span in self._spans:
            self._seconds[name] += span.seconds
        seconds, self._seconds, self._spans = self._seconds, dict.fromkeys(PHASES, 0.0), []
        return seconds


def _mark_of(device: torch.device) -> Mark:
    return _cuda_mark if device.type == "cuda" else time.perf_counter


def _cuda_mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
