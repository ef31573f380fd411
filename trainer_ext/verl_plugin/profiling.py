"""One step's update and scoring as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open, a file a rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

FOLDER = "profile"
"""Below the attempt folder."""


def trace_name(step: int, rank: int) -> str:
    """File name of one rank's trace."""
    return f"step_{step:06d}_rank{rank}.json.gz"


class StepProfiler:
    """Records from the beginning of a step's first part to the end of its last; update and scoring come in either order.

    Args:
        parts: how many a step has.
    """

    def __init__(self, parts: int = 2) -> None:
        self._parts = parts
        self._left = 0
        self._profile: profile | None = None

    @contextmanager
    def part(self, name: str, file: Path | None) -> Iterator[None]:
        """Record the block under a name, and write the file after the last part; None: this step is not recorded."""
        if file is None:
            yield
            return
        if self._profile is None:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._profile, self._left = profile(activities=kinds), self._parts
            self._profile.start()
        with torch.profiler.record_function(name):
            yield
        self._left -= 1
        if not self._left:
            self._profile.stop()
            file.parent.mkdir(parents=True, exist_ok=True)
            self._profile.export_chrome_trace(str(file))
            self._profile = None
