"""One case, measured: all modules of a decoder scored in one call, with a clock around it.

What is timed is `score_batch` as a trainer calls it, from factors on the device to scores on the device, all launched
work finished. A first call with one module of each type comes before it and is reported apart: it compiles kernels and
calibrates the engine's cost model, once a process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from trainer_ext.bench.ceilings import Clock, synchronize
from trainer_ext.bench.report import CaseRun, worst
from trainer_ext.bench.shapes import LinearType, projected
from trainer_ext.bench.synthetic import Batch, exact_factors, stored_factors
from trainer_ext.bench.work import token_bytes
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses, score_batch

Result = TypeVar("Result")

GPU_RESERVE_BYTES = 16 * 2**30
"""GPU memory left to the engine and the allocator when factors are generated."""
CPU_FACTOR_BYTES = 2 * 2**30
"""Most bytes of factors on a CPU."""


@dataclass(frozen=True, eq=False)
class ModuleSet:
    """The factors of all modules of a decoder, layer by layer."""

    modules: dict[str, ModuleFactors]
    """`layers.<i>.<type>`; layers beyond `distinct` share the factors of earlier ones."""
    types: int
    """Modules of one layer."""
    distinct: int
    """Layers whose factors are their own."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of the factors on the device, each counted once; the responses that all share aside."""
        own = {id(factors): factors for factors in self.modules.values()}.values()
        kept = ((f.inputs, f.output_grads, f.exponent) for f in own)
        return sum(tensor.nbytes for tensors in kept for tensor in tensors if tensor is not None)

    @property
    def first_layer(self) -> dict[str, ModuleFactors]:
        """One module of each type."""
        return dict(list(self.modules.items())[: self.types])


def layer_bytes(types: Sequence[LinearType], factor: int, tokens: int, precision: str) -> int:
    """Bytes of one layer's factors as the engine stores them."""
    dims = projected(types, factor)
    return tokens * sum(kind.per_layer * token_bytes(*dims[kind.name], precision) for kind in types)


def distinct_layers(layers: int, bytes_per_layer: int, room_bytes: int, wanted: int | None = None) -> int:
    """How many layers get factors of their own: `wanted` where given, else as many as fit, and at least one.

    Raises:
        ValueError: `wanted` is not in [1, layers].
    """
    if wanted is not None:
        if not 1 <= wanted <= layers:
            raise ValueError(f"--distinct: must be in [1, {layers}], the number of layers, got {wanted}")
        return wanted
    return max(1, min(layers, room_bytes // max(1, bytes_per_layer)))


def room_for_factors(device: torch.device) -> int:
    """Bytes that factors may take now."""
    if device.type != "cuda":
        return CPU_FACTOR_BYTES
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return max(0, free - GPU_RESERVE_BYTES)


def make_modules(
    batch: Batch, types: Sequence[LinearType], *, factor: int, layers: int, distinct: int, precision: str, seed: int
) -> ModuleSet:
    """Generate factors module by module, so that no more than one is ever held unrounded."""
    dims = projected(types, factor)
    modules: dict[str, ModuleFactors] = {}
    for layer in range(layers):
        for index, kind in enumerate(types):
            name = f"layers.{layer}.{kind.name}"
            if layer < distinct:
                exact = exact_factors(batch, *dims[kind.name], seed=module_seed(seed, layer, index))
                modules[name] = stored_factors(exact, precision)
                del exact
            else:
                modules[name] = modules[f"layers.{layer % distinct}.{kind.name}"]
    return ModuleSet(modules, len(types), distinct)


def module_seed(seed: int, layer: int, index: int) -> int:
    """A generator seed of its own for each module of a run."""
    return (seed * 1_000 + layer) * 1_000 + index


def run_case(
    modules: ModuleSet,
    responses: Responses,
    config: InfluenceConfig,
    *,
    device: torch.device,
    clock: Clock,
    repeats: int = 1,
) -> CaseRun:
    """Start the engine up with one module of each type, then time all of them `repeats` times.

    Raises:
        ValueError: repeats below 1, or what the engine refuses.
        torch.OutOfMemoryError: the device has too little memory for this case.
    """
    if repeats < 1:
        raise ValueError(f"--repeats: must be 1 or more, got {repeats}")
    held = allocated_bytes(device)  # before the engine's first call: what it then keeps counts as its own
    startup, _ = seconds_of(lambda: score_batch(modules.first_layer, responses, config), device, clock)
    reset_peak(device)
    runs = []
    for _ in range(repeats):
        took, result = seconds_of(lambda: score_batch(modules.modules, responses, config), device, clock)
        unscored = int((~torch.isfinite(result.scores)).sum())
        runs.append((took, {str(phase): float(value) for phase, value in result.timing.items()}))
    runs.sort(key=lambda run: run[0])
    return CaseRun(
        seconds=statistics.median(took for took, _ in runs),
        all_seconds=tuple(took for took, _ in runs),
        startup_seconds=startup,
        peak_gib=peak_gib(device, held),
        counted_gib=result.peak_bytes / 2**30,
        phases=runs[len(runs) // 2][1],
        routes=_counts(result.routes),
        residual=worst(value for value in result.residuals.values() if value is not None),
        unscored=unscored,
    )


def seconds_of(step: Callable[[], Result], device: torch.device, clock: Clock) -> tuple[float, Result]:
    """Seconds from an idle device to an idle device, and what the step returned."""
    synchronize(device)
    start = clock()
    value = step()
    synchronize(device)
    return clock() - start, value


def allocated_bytes(device: torch.device) -> int | None:
    """Bytes of the tensors on a GPU; None on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def reset_peak(device: torch.device) -> None:
    """Count the peak of allocated bytes from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device, held: int | None) -> float | None:
    """GiB allocated at most since `reset_peak`, beyond the bytes held already; None on a CPU."""
    return None if held is None else (torch.cuda.max_memory_allocated(device) - held) / 2**30


def _counts(routes: Mapping[str, str]) -> dict[str, int]:
    names = list(routes.values())
    return {route: names.count(route) for route in sorted(set(names))}
