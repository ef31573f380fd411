"""A CPU as a verl platform, so that real training runs where there is no accelerator.

verl counts devices by the name of a Ray resource, and knows GPU and NPU alone; so this platform asks for `GPU` and the job
declares as many to Ray as it wants ranks (`ray_kwargs.ray_init.num_gpus`). Memory figures are those of the process: what verl
calls allocated GPU memory is resident memory here.
"""

from __future__ import annotations

import functools
import resource
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Caches, streams and profiler ranges that a CPU does not have."""


def _resident_bytes(*_device: Any) -> int:
    return psutil.Process().memory_info().rss


def _peak_resident_bytes(*_device: Any) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _free_and_total_bytes(*_device: Any) -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _seed(seed: int) -> None:
    torch.manual_seed(seed)


class _CpuDeviceModule(types.ModuleType):
    """What verl calls on `torch.cuda`; anything not defined here is `torch.cpu`'s."""

    is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: "cpu")
    get_device_name = staticmethod(lambda *_device: "cpu")
    empty_cache = ipc_collect = reset_peak_memory_stats = staticmethod(_nothing)
    memory_allocated = memory_reserved = staticmethod(_resident_bytes)
    max_memory_allocated = max_memory_reserved = staticmethod(_peak_resident_bytes)
    mem_get_info = staticmethod(_free_and_total_bytes)
    manual_seed = manual_seed_all = staticmethod(_seed)
    get_rng_state = staticmethod(lambda *_device: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *_device: torch.set_rng_state(state))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


_DEVICE_MODULE = _CpuDeviceModule("trainer_ext_cpu_device")


class PlatformCPU(PlatformBase):
    """One CPU "device" per rank; all ranks share the machine's cores."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:  # noqa: ARG002
        return not torch.cuda.is_available()

    def current_device(self) -> str:  # type: ignore[override]  # verl hands it to Tensor.to as it is
        return "cpu"

    def device_count(self) -> int:
        return 1

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:  # noqa: ARG002
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_resource_options(self, num_gpus: float) -> dict[str, Any]:
        return {"num_gpus": num_gpus}

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # noqa: ARG002
        yield

    def set_device(self, device_index: int) -> None: ...
    def synchronize(self, device_index: int | None = None) -> None: ...
    def set_allocator_settings(self, settings: str) -> None: ...
    def empty_cache(self) -> None: ...
    def profiler_start(self) -> None: ...
    def profiler_stop(self) -> None: ...


def use_gloo_alone() -> None:
    """Make verl's process groups name the CPU once.

    verl asks torch for the backends `cpu:gloo,<device>:<backend>`. With the CPU as device that names it twice, and torch
    refuses; so the default is replaced, and a caller's own choice is left alone.
    """
    from verl.utils import distributed

    start = distributed.initialize_global_process_group_ray

    @functools.wraps(start)
    def with_gloo(timeout_second: int | None = None, backend: str | None = None) -> Any:
        return start(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    distributed.initialize_global_process_group_ray = with_gloo
