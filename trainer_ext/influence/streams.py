"""A second queue of work on the device, beside the one that the caller fills.

On a GPU it is a stream of its own, ahead of others where both wait for room: what runs there is a chain of small steps,
which a product of long blocks would hold up at every step. On a CPU everything happens at once and in order.

Memory allocated inside belongs to the second stream. It may be read by the caller's after `join`, and is free for new
work inside only after the caller's stream has come by again, since every `beside` begins by waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

_AHEAD = -1
"""Priority of the streams; lower goes first, torch's own is 0."""


class SecondStream:
    """One stream a device and purpose, whoever asks: each would keep memory of its own otherwise.

    Args:
        purpose: work of different purposes runs side by side.
    """

    def __init__(self, device: torch.device, purpose: str) -> None:
        self._stream = _stream(device, purpose) if device.type == "cuda" else None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Launch work there, after what the caller's stream holds so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Copy to the host what was made there: waits for it, and not for what the caller has launched since.

        Compute nothing inside: a result could get memory that the caller's stream is still reading.
        """
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let the caller's stream go on only after it."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)


@lru_cache(maxsize=64)
def _stream(device: torch.device, purpose: str) -> torch.cuda.Stream:  # noqa: ARG001  the purpose is part of the key
    return torch.cuda.Stream(device, priority=_AHEAD)
