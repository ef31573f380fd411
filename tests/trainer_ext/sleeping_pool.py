"""Run by `test_memory_gpu.py` in a process of its own: an engine that sleeps as inference engines do, and a trainer.

The engine has a memory pool of torch's whose pages are its own: made, mapped, and on going to sleep unmapped and given back,
all through the CUDA virtual memory API. torch is not told. Prints one JSON object.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os

import torch

from trainer_ext.memory import RankMemory, device_used_bytes

ENGINE_SHARE, TRAINER_SHARE = 0.55, 0.60
"""Of the card. Either fits alone; together they are more than there is."""
GRANULE = 2 * 2**20
"""Sizes of physical memory are multiples of this."""


class _Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class _AllocationProperties(ctypes.Structure):
    """CUmemAllocationProp of cuda.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("handle_types", ctypes.c_int),
        ("location", _Location),
        ("win32", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
    ]


class _Access(ctypes.Structure):
    """CUmemAccessDesc of cuda.h."""

    _fields_ = [("location", _Location), ("flags", ctypes.c_int)]


_PINNED_ON_DEVICE = _ON_DEVICE = 1
_READ_AND_WRITE = 3
_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)


class SleepingEngine:
    """Memory for one of torch's pools. Must outlive the pool."""

    def __init__(self, driver: ctypes.CDLL) -> None:
        self._driver = driver
        self._awake: dict[int, tuple[int, int]] = {}  # address -> (size, handle of the pages)
        self.callbacks = (_ALLOCATE(self._allocate), _FREE(self._free))

    def pool(self) -> torch.cuda.MemPool:
        pointers = (ctypes.cast(callback, ctypes.c_void_p).value for callback in self.callbacks)
        return torch.cuda.MemPool(
            torch._C._cuda_customAllocator(*pointers)
        )  # what torch's public wrapper does for a .so

    def sleep(self) -> None:
        """Give all pages back. The addresses stay reserved, so that the engine could wake up at the same place."""
        for address, (size, handle) in self._awake.items():
            self._call("cuMemUnmap", ctypes.c_uint64(address), ctypes.c_size_t(size))
            self._call("cuMemRelease", ctypes.c_uint64(handle))
        self._awake.clear()

    def _allocate(self, size: int, device: int, _stream: int | None) -> int:
        size = _rounded(size)
        location = _Location(_ON_DEVICE, device)
        properties = _AllocationProperties(type=_PINNED_ON_DEVICE, location=location)
        access = _Access(location, _READ_AND_WRITE)
        address, handle, zero = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64(0)
        length = ctypes.c_size_t(size)
        self._call("cuMemAddressReserve", ctypes.byref(address), length, ctypes.c_size_t(0), zero, zero)
        self._call("cuMemCreate", ctypes.byref(handle), length, ctypes.byref(properties), zero)
        self._call("cuMemMap", address, length, ctypes.c_size_t(0), handle, zero)
        self._call("cuMemSetAccess", address, length, ctypes.byref(access), ctypes.c_size_t(1))
        self._awake[address.value] = (size, handle.value)
        return address.value

    def _free(self, address: int, size: int, _device: int, _stream: int | None) -> None:
        if pages := self._awake.pop(address, None):
            self._call("cuMemUnmap", ctypes.c_uint64(address), ctypes.c_size_t(pages[0]))
            self._call("cuMemRelease", ctypes.c_uint64(pages[1]))
        self._call("cuMemAddressFree", ctypes.c_uint64(address), ctypes.c_size_t(_rounded(size)))

    def _call(self, name: str, *arguments: object) -> None:
        if error := getattr(self._driver, name)(*arguments):
            raise RuntimeError(f"{name} returned CUresult {error}")


def _rounded(size: int) -> int:
    return -(-size // GRANULE) * GRANULE


def main() -> None:
    torch.cuda.init()
    card = torch.cuda.mem_get_info(0)[1]
    engine = SleepingEngine(ctypes.CDLL("libcuda.so.1"))
    pool = engine.pool()
    memory = RankMemory(0, watches_node=False)
    story = {"card": card, "before": dataclasses.asdict(memory.take())}

    with torch.cuda.use_mem_pool(pool):
        cache = torch.empty(int(card * ENGINE_SHARE), dtype=torch.uint8, device="cuda")
    story |= {"engine": cache.nbytes, "awake": dataclasses.asdict(memory.take())}

    torch.cuda.synchronize()
    engine.sleep()
    story["asleep_used"] = device_used_bytes(0)

    activations = torch.empty(int(card * TRAINER_SHARE), dtype=torch.uint8, device="cuda").fill_(1)
    torch.cuda.synchronize()
    story["reserved"] = torch.cuda.max_memory_reserved(0)
    story |= {"trainer": activations.nbytes, "training": dataclasses.asdict(memory.take())}
    print(json.dumps(story), flush=True)
    os._exit(0)  # the engine's pages are gone: nothing may be freed in an orderly way any more


if __name__ == "__main__":
    main()
