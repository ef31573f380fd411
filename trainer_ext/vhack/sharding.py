"""Parameters that ranks hold shards of (FSDP2's DTensors), and those that one process holds whole."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor; every rank that holds a shard must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's shard; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(full: Tensor, parameter: Tensor) -> Tensor:
    """The part of `full` that belongs to this rank's shard of a parameter of the same shape; no communication."""
    if not isinstance(parameter, DTensor):
        return full
    return distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None).to_local()


class SumOverShards:
    """Adds up over the ranks that hold shards of the parameters; does nothing where none is sharded.

    Raises:
        ValueError: parameters that are sharded in different ways.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        layouts = {
            (one.device_mesh, tuple(i for i, placement in enumerate(one.placements) if placement.is_shard()))
            if isinstance(one, DTensor)
            else None
            for one in parameters
        }
        if len(layouts) > 1:
            raise ValueError(f"parameters are sharded in different ways, which cannot be projected together: {layouts}")
        layout = next(iter(layouts), None)
        self._groups = [layout[0].get_group(dim) for dim in layout[1]] if layout else []

    def __call__(self, tensor: Tensor) -> None:
        for group in self._groups:
            torch.distributed.all_reduce(tensor, group=group)
