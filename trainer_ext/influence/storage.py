"""Keeps captured factors until they are scored: rounded, on the device where they fit, else in pinned host memory.

With precision `fast` rows are rounded to float16 with a power of two a token, an int8 (`rounding.py`); else they keep their
own type. Bytes a token (`bytes_per_token`): with `fast` 2 (k_in + k_out) + 1 for
each module, and 8 once for its response; 72,332 for the 196 modules of Qwen2.5-1.5B at factor 32. Host memory comes in
blocks, so that up to one block is taken beyond that.

Rows arrive in the hooks of a backward pass, which must wait for nothing: a row that leaves the device is copied by a
second stream into memory that was pinned before. They are read one module after another, and the copies of the next
module run while the present one is scored.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from trainer_ext.influence.factors import SIDES, ModuleFactors, NotFinite
from trainer_ext.influence.picked_rows import PickedRows
from trainer_ext.influence.precision import resolve
from trainer_ext.influence.rounding import half_output_grads, half_rows

Placement = Literal["auto", "device", "host"]
"""auto: each micro-batch on the device if it fits there, else on the host."""
Dims = Mapping[str, tuple[int, int]]
"""(k_in, k_out) by module, in the order in which modules are read."""
Rows = tuple[Tensor, Tensor | None]
"""Rows [n, k], and the exponents int8 [n] of those that were rounded."""
Chunk = tuple[Tensor, ...]
"""Of one module and n tokens: inputs [n, k_in], output gradients [n, k_out], and exponents int8 [n] if rounded."""

RESERVE_BYTES = 16 * 2**30
"""Device memory that `auto` leaves free: 6 GiB for the solver and 1 for the two modules that are joined at a time; the
rest for what the step still allocates once a backward pass has begun, first of all the logits of the next pass (0.6 MB
a token in float32 for Qwen2.5-1.5B), and for gaps in the allocator's memory."""
BLOCK_BYTES = 256 * 2**20
_ALIGNMENT = 64
_LOWEST = -128
"""Exponent of a token without gradient (`rounding.py`)."""


def bytes_per_token(dims: Dims, half: bool, itemsize: int = 4) -> int:
    """Bytes that a token takes: its response's id, 8, and for each module 2 (k_in + k_out) + 1 in float16, else
    `itemsize` (k_in + k_out)."""
    return 8 + sum(2 * (k_in + k_out) + 1 if half else itemsize * (k_in + k_out) for k_in, k_out in dims.values())


def free_device_bytes(device: torch.device) -> int:
    """What the device has free, and what torch's allocator holds of it unused; without end where there is no GPU."""
    if device.type != "cuda":
        return sys.maxsize
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def goes_to_host(placement: Placement, needed: int, free: Callable[[], int], reserve: int) -> bool:
    """Whether `needed` more bytes belong on the host; asks what is `free` on the device only where it matters."""
    return placement == "host" or (placement == "auto" and free() - reserve < needed)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor there; neither side waits for a copy to a GPU."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _numbered(device: torch.device | str) -> torch.device:
    """The device as tensors name theirs: cuda:0, not cuda."""
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


class HostBlocks:
    """Tensors cut out of large blocks of host memory.

    Torch rounds every pinned allocation up to a power of two, so that tensors pinned one by one waste up to half of the
    memory. A block is a power of two; it returns to torch's cache, for the next step, when its last tensor is gone.

    Args:
        allocate: makes uint8 [bytes].
        block_bytes: size of a block, a power of two; a larger tensor gets a larger block.
    """

    def __init__(self, allocate: Callable[[int], Tensor], block_bytes: int = BLOCK_BYTES) -> None:
        self._allocate, self._block_bytes = allocate, block_bytes
        self._rooms: list[Tensor] = []

    def empty_like(self, tensor: Tensor) -> Tensor:
        """A contiguous tensor of the same shape and type, in the first block with room for it.

        Raises:
            RuntimeError: the host has no memory left to pin.
        """
        size = -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        place = next((i for i, room in enumerate(self._rooms) if len(room) >= size), None)
        room = self._block(size) if place is None else self._rooms.pop(place)
        if len(room) > size:
            self._rooms.insert(len(self._rooms) if place is None else place, room[size:])
        return room[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)

    def _block(self, size: int) -> Tensor:
        size = max(self._block_bytes, 1 << (size - 1).bit_length())
        try:
            return self._allocate(size)
        except RuntimeError as error:
            raise RuntimeError(
                f"gradient factors: no further {size / 2**20:,.0f} MiB of host memory ({error}); raise "
                "projection_dim_factor, lower max_tokens_per_response, or name fewer target_modules"
            ) from error


@dataclass(eq=False)
class StoredBatch:
    """One micro-batch: the responses of its n tokens, once for all modules, and the rows that came so far."""

    response: Tensor
    """int64 [n]"""
    chunks: dict[str, Chunk] = field(default_factory=dict)
    device: torch.device | None = None
    """Where its rows come from; known with the first ones."""
    on_host: bool = False
    """Where its rows go; decided with the first ones, when all activations of its pass are there."""


class FactorStore:
    """Takes in the rows of micro-batches, modules in any order, and hands all of them out at once.

    Args:
        dims: every module that may bring rows.
        precision: as in `InfluenceConfig`; `fast`, on the device of the rows, means float16 and exponents.
        placement: where rows are kept. Rows that are on a CPU already are copied by `host`, to plain memory.
        reserve_bytes: what `auto` leaves free on the device.
        free_bytes: reads how much a device has free.
    """

    def __init__(
        self,
        dims: Dims,
        *,
        precision: str = "auto",
        placement: Placement = "auto",
        reserve_bytes: int = RESERVE_BYTES,
        free_bytes: Callable[[torch.device], int] = free_device_bytes,
    ) -> None:
        self._dims, self._precision, self._placement = dict(dims), precision, placement
        self._reserve_bytes, self._free_bytes = reserve_bytes, free_bytes
        self._copies: dict[torch.device, torch.cuda.Stream] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._batches: list[StoredBatch] = []
        self._plain = HostBlocks(partial(torch.empty, dtype=torch.uint8))
        self._pinned = HostBlocks(partial(torch.empty, dtype=torch.uint8, pin_memory=True))

    def open(self, response: Tensor) -> StoredBatch:
        """Begin a micro-batch of n tokens, given the response of each, int64 [n]."""
        self._batches.append(StoredBatch(response))
        return self._batches[-1]

    def round_inputs(self, rows: Tensor | PickedRows) -> Rows:
        """Inputs [n, k_in] in the form that `put` takes; rounded at once, since they wait for the backward pass."""
        picked = PickedRows.of(rows)
        fast = resolve(self._precision, picked.matrix.device) == "fast"
        return half_rows(picked) if fast else (picked.values(), None)

    def put(self, batch: StoredBatch, name: str, inputs: Rows, output_grads: Tensor | PickedRows) -> None:
        """Keep the rows of one module: what `round_inputs` made, and output gradients [n, k_out]. Waits for nothing."""
        rows, exponent = inputs
        if exponent is None:
            chunk: Chunk = (rows, PickedRows.of(output_grads).values())
        else:
            chunk = (rows, *half_output_grads(output_grads, exponent))
        if batch.device is None:
            device = batch.device = rows.device
            needed = len(rows) * bytes_per_token(self._dims, exponent is not None, rows.element_size())
            batch.on_host = goes_to_host(self._placement, needed, lambda: self._free_bytes(device), self._reserve_bytes)
        batch.chunks[name] = self._copied_to_host(chunk) if batch.on_host else chunk

    def take(self, device: torch.device | str | None = None) -> StoredFactors:
        """All rows since the last call, micro-batches in the order of `open`, and forget them.

        A module that a micro-batch brought no rows has zeros there; one that none brought any is left out. Without any
        token every module is there, and empty. Call it on the stream that ran the backward passes.

        Args:
            device: where they are to be read; None: where they came from.
        """
        batches = [batch for batch in self._batches if len(batch.response)]
        origins = {batch.device for batch in batches if batch.device is not None}
        written = [stream.record_event() for stream in self._copies.values()]
        written += [torch.cuda.current_stream(origin).record_event() for origin in origins if origin.type == "cuda"]
        self.clear()
        return StoredFactors(self._dims, batches, _numbered(device or next(iter(origins), "cpu")), written)

    def _copied_to_host(self, chunk: Chunk) -> Chunk:
        device = chunk[0].device
        if device.type != "cuda":
            return tuple(self._plain.empty_like(rows).copy_(rows) for rows in chunk)
        if device not in self._copies:
            self._copies[device] = torch.cuda.Stream(device)
        stream = self._copies[device]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            copied = tuple(self._pinned.empty_like(rows).copy_(rows, non_blocking=True) for rows in chunk)
        for rows in chunk:
            rows.record_stream(stream)  # the rows go out of use here, and their memory may not before they are copied
        return copied


@dataclass(frozen=True, eq=False)
class _Joined:
    """One module's rows of all micro-batches, on the device that reads them."""

    name: str
    rows: Chunk
    ready: torch.cuda.Event | None = None
    """Passed once all copies from the host have arrived; None: there are none."""

    def wait(self) -> None:
        """Let the device's present stream, to which the memory belongs, go on only after the copies."""
        if self.ready is not None:
            torch.cuda.current_stream(self.rows[0].device).wait_event(self.ready)


class StoredFactors:
    """The factors of one batch, T tokens, to be read once, one module after another.

    What was read is no longer kept here. Where rows are on the host, the next module is being copied to the device while
    the present one is in use: two are there at a time, if the reader lets go of one before it asks for the next.
    """

    def __init__(
        self, dims: Dims, batches: Sequence[StoredBatch], device: torch.device, written: Sequence[torch.cuda.Event] = ()
    ) -> None:
        self._dims = {
            name: sides for name, sides in dims.items() if not batches or any(name in batch.chunks for batch in batches)
        }
        self._batches, self._device, self._written = batches, device, written
        self._copies: torch.cuda.Stream | None = None
        self._unread = True
        self._counts: list[NotFinite] = []
        responses = [on_device(batch.response, device) for batch in batches]
        self.response = torch.cat(responses or [torch.empty(0, dtype=torch.int64, device=device)])
        """int64 [T], on the device that reads; the one that all modules share."""

    def __len__(self) -> int:
        return len(self._dims)

    def keys(self) -> KeysView[str]:
        """The modules, in the order of `items`."""
        return self._dims.keys()

    def dims(self) -> dict[str, tuple[int, int]]:
        """(k_in, k_out) by module."""
        return dict(self._dims)

    def held_bytes(self, *, on_host: bool) -> int:
        """Bytes of the rows that were not read yet, on the host or on the device."""
        chunks = (chunk for batch in self._batches if batch.on_host == on_host for chunk in batch.chunks.values())
        return sum(rows.nbytes for chunk in chunks for rows in chunk)

    def items(self) -> Iterator[tuple[str, ModuleFactors]]:
        """Every module's name and factors, on the device that reads and in the order of its present stream.

        Raises:
            RuntimeError: called a second time.
            ValueError: a value is not finite; with the module's name. On a GPU it comes after the last module, since to
                look earlier is to wait for the device.
        """
        if not self._unread:
            raise RuntimeError("stored factors can be read only once, and items() was called before")
        self._unread = False
        return self._read()

    def _read(self) -> Iterator[tuple[str, ModuleFactors]]:
        self._wait_until_written()
        at_a_time = 2 if any(batch.on_host for batch in self._batches) else 1
        names, joined = deque(self._dims), deque[_Joined]()
        try:
            while names or joined:
                while names and len(joined) < at_a_time:
                    joined.append(self._join(names.popleft()))
                yield self._factors(joined.popleft())
            self.require_finite()
        finally:
            for left in joined:
                left.wait()

    def _wait_until_written(self) -> None:
        if self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)
        for event in self._written:
            if self._copies is None:
                event.synchronize()
            else:
                self._copies.wait_event(event)
                torch.cuda.current_stream(self._device).wait_event(event)

    def _join(self, name: str) -> _Joined:
        """Take one module's chunks, and copy them into one tensor each, unless there is but one that is there already."""
        chunks = [batch.chunks.pop(name, None) for batch in self._batches]
        like = next((chunk for chunk in chunks if chunk is not None), None)
        if like is None:
            return _Joined(name, tuple(torch.empty(0, k, device=self._device) for k in self._dims[name]))
        if len(chunks) == 1 and like[0].device == self._device:
            return _Joined(name, self._used_here(like))
        counts = [len(batch.response) for batch in self._batches]
        joined = tuple(rows.new_empty(sum(counts), *rows.shape[1:], device=self._device) for rows in like)
        if self._copies is not None:  # the memory was another tensor's until here
            self._copies.wait_stream(torch.cuda.current_stream(self._device))
        for targets, chunk in zip(zip(*(rows.split(counts) for rows in joined), strict=True), chunks, strict=True):
            self._copy(chunk, targets)
        return _Joined(name, joined, None if self._copies is None else self._copies.record_event())

    def _copy(self, chunk: Chunk | None, targets: Chunk) -> None:
        if chunk is None:
            for target, value in zip(targets, (0, 0, _LOWEST), strict=False):
                target.fill_(value)
        elif self._copies is not None and not chunk[0].is_cuda:
            with torch.cuda.stream(self._copies):
                for target, rows in zip(targets, chunk, strict=True):
                    target.copy_(rows, non_blocking=True)
        else:
            for target, rows in zip(targets, self._used_here(chunk), strict=True):
                target.copy_(rows)

    def _used_here(self, chunk: Chunk) -> Chunk:
        """Tell the allocator that this stream may not be the one that the rows were made on."""
        for rows in chunk:
            if rows.is_cuda:
                rows.record_stream(torch.cuda.current_stream(rows.device))
        return chunk

    def require_finite(self) -> None:
        """Look at what was read so far.

        Raises:
            ValueError: a value is not finite; with the module's name.
        """
        counts, self._counts = self._counts, []
        if counts and bool(torch.stack([count.found for count in counts]).any()):
            for count in counts:
                count.refuse()

    def _factors(self, joined: _Joined) -> tuple[str, ModuleFactors]:
        joined.wait()
        inputs, output_grads, *exponent = joined.rows
        for side, rows in zip(SIDES, (inputs, output_grads), strict=True):
            self._counts.append(NotFinite.of(f"{joined.name}: ModuleFactors.{side}", rows))
        if self._device.type != "cuda":
            self.require_finite()
        return joined.name, ModuleFactors(inputs, output_grads, self.response, *exponent, counted=True)
