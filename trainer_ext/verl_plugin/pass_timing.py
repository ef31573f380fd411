"""Seconds of an engine's forward and backward passes, under the names that reach the metrics as `timing_s/influence_*`.

As in `influence/timing.py`: on a GPU a span lies between two events in the device's queue, and nobody waits for them before
the reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, Self, get_args

import torch

from trainer_ext.influence.timing import Span
from trainer_ext.verl_plugin.engine_methods import replaced

Pass = Literal["forward_1", "logprob_backward", "forward_2", "loss_backward"]
"""Forward and backward of a pass that is run for its gradients alone; forward and backward of the update."""
PASSES: tuple[Pass, ...] = get_args(Pass)


class PassTimer:
    """Adds up seconds by kind of pass.

    Args:
        begin: opens a span of the time that counts.
    """

    def __init__(self, begin: Callable[[], Span]) -> None:
        self._begin = begin
        self._spans: list[tuple[Pass, Span]] = []
        self._backward: tuple[Pass, Span] | None = None

    @classmethod
    def on(cls, device: torch.device) -> Self:
        """A timer of the device's own work."""
        return cls(partial(Span.on, device))

    @contextmanager
    def timing(self, engine: Any, forward: Pass, backward: Pass) -> Iterator[None]:
        """While open, the engine's passes with gradients count as these.

        The engine calls backward itself, between two forward steps; so a backward pass lasts from the end of its forward
        step to the beginning of the next one, or to the end of the batch.
        """
        forward_step, batch = engine.forward_step, engine.forward_backward_batch

        def timed_step(*args: Any, forward_only: bool, **kwargs: Any) -> Any:
            if forward_only:
                return forward_step(*args, forward_only=forward_only, **kwargs)
            self._end_backward()
            span = self._begin()
            result = forward_step(*args, forward_only=forward_only, **kwargs)
            span.close()
            self._spans.append((forward, span))
            self._backward = (backward, self._begin())
            return result

        def timed_batch(*args: Any, **kwargs: Any) -> Any:
            try:
                return batch(*args, **kwargs)
            finally:
                self._end_backward()

        with ExitStack() as stack:
            stack.enter_context(replaced(engine, "forward_step", timed_step))
            stack.enter_context(replaced(engine, "forward_backward_batch", timed_batch))
            yield

    def read(self) -> dict[Pass, float]:
        """Seconds by kind since the last reading, every kind present; resets the timings and nothing else."""
        seconds = dict.fromkeys(PASSES, 0.0)
        for name, span in self._spans:
            seconds[name] += span.seconds
        self._spans = []
        return seconds

    def _end_backward(self) -> None:
        if self._backward is not None:
            name, span = self._backward
            span.close()
            self._spans.append((name, span))
            self._backward = None
