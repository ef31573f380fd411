"""The ranks of a process group as one: the few exchanges that scoring needs, and errors that reach all ranks.

A rank that alone raises an error leaves the others in their next collective until a timeout. Here local work that may
fail, be it for want of memory, is an `attempt`, which keeps the error until the ranks `agree`: then all of them raise.
Where a collective lies between the two, the failed rank contributes something of the right shape.

Tensors travel by the backend of their own device; by the CPU's where there is none, or where it is gloo, which knows
only some collectives on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from trainer_ext.influence.curvature import TokenRows

P = ParamSpec("P")
T = TypeVar("T")


class Ranks:
    """Members of a process group; every method but `attempt` is a collective, to be called by all of them in order.

    What `agree` raises is the end of the call that it belongs to; after it the ranks are ready for another one.

    Args:
        group: None: all processes.

    Raises:
        ValueError: this process is not in the group.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group: this process is not a member of the process group that it was given")
        self._backends = dict(pair.split(":") for pair in dist.get_backend_config(group).split(","))
        self._failure: Exception | None = None

    def attempt(self, default: T, about: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What local work returns, or `default` where it fails, or something before it has.

        Args:
            about: in front of the message of a ValueError, unless empty.
        """
        if self._failure is not None:
            return default
        try:
            return work(*args, **kwargs)
        except ValueError as error:
            self._failure = error
            if about:
                self._failure = ValueError(f"{about}: {error}")
                self._failure.__cause__ = error
        except Exception as error:
            self._failure = error
        return default

    def agree(self) -> None:
        """Go on together, or not at all.

        Raises:
            Exception: what an attempt of this rank met since the last agreement.
            ValueError, RuntimeError: another rank met a ValueError, or something else.
        """
        failed = torch.tensor([self._failure is not None], dtype=torch.int32, device=self._control)
        dist.all_reduce(failed, dist.ReduceOp.MAX, group=self._group)
        if not int(failed):
            return
        own, self._failure = self._failure, None
        told = self._gathered(None if own is None else (isinstance(own, ValueError), str(own)))
        if own is not None:
            raise own
        rank, (is_value, message) = next((rank, what) for rank, what in enumerate(told) if what is not None)
        raise (ValueError if is_value else RuntimeError)(f"rank {rank}: {message}")

    def each(self, about: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What local work returns, once it has succeeded on all ranks; raises as `agree` does."""
        done = self.attempt(None, about, work, *args, **kwargs)
        self.agree()
        return cast(T, done)

    def exchange(self, value: T) -> list[T]:
        """A small object of every rank, by rank, once they agree; raises as `agree` does."""
        self.agree()
        return self._gathered(value)

    def maximum(self, values: Tensor) -> Tensor:
        """Largest of all ranks, entry by entry."""
        message = self._sendable(values)
        dist.all_reduce(message, dist.ReduceOp.MAX, group=self._group)
        return message.to(values.device)

    def all_gather(self, values: Tensor) -> Tensor:
        """[ranks, ...] from values of one shape."""
        message = self._sendable(values)
        out = message.new_empty(self.size, *message.shape)
        dist.all_gather(list(out), message, group=self._group)
        return out.to(values.device)

    def sum_at(self, values: Tensor, rank: int) -> Tensor:
        """Sum over all ranks, on one of them; what the others get is of no use. May overwrite `values`."""
        message = self._sendable(values)
        dist.reduce(message, op=dist.ReduceOp.SUM, group=self._group, group_dst=rank)
        return message.to(values.device)

    def broadcast(self, values: Tensor, rank: int) -> Tensor:
        """The values of one rank; the others give any of that shape, which may be overwritten."""
        message = self._sendable(values)
        dist.broadcast(message, group=self._group, group_src=rank)
        return message.to(values.device)

    def numbers(self, values: Sequence[int], rank: int) -> list[int]:
        """A few integers of one rank; the others give as many."""
        message = torch.tensor(values, dtype=torch.int64, device=self._control)
        dist.broadcast(message, group=self._group, group_src=rank)
        return [int(value) for value in message.tolist()]

    def gather_rows(self, rows: Tensor, counts: Sequence[int], rank: int) -> Tensor | None:
        """Rows of all ranks one below the other, on one rank, None on others.

        Args:
            rows: [counts[own rank], D].
        """
        message = self._sendable(_padded(rows, max(counts)))
        parts = message.new_empty(self.size, *message.shape) if self.rank == rank else None
        dist.gather(message, None if parts is None else list(parts), group=self._group, group_dst=rank)
        if parts is None:
            return None
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    def scatter_rows(self, rows: Tensor | None, counts: Sequence[int], like: Tensor, rank: int) -> Tensor:
        """The inverse of `gather_rows`: each rank's own rows [counts[own rank], D].

        Args:
            rows: [sum of counts, D] on the one rank, None on others.
            like: [.., D], of the device and type of the rows.
        """
        out = self._sendable(like.new_empty(max(counts), like.shape[-1]))
        parts = None
        if rows is not None:
            parts = [self._sendable(_padded(part, max(counts))) for part in rows.split(list(counts))]
        dist.scatter(out, parts, group=self._group, group_src=rank)
        return out[: counts[self.rank]].to(like.device)

    @property
    def _control(self) -> torch.device:
        return torch.device("cpu") if "cpu" in self._backends else torch.device("cuda", torch.cuda.current_device())

    def _sendable(self, values: Tensor) -> Tensor:
        backend = self._backends.get(values.device.type)
        direct = backend is not None and (backend != "gloo" or values.device.type == "cpu")
        return (values if direct else values.to(self._control)).contiguous()

    def _gathered(self, value: T) -> list[T]:
        told: list[T] = [value] * self.size
        dist.all_gather_object(told, value, group=self._group)
        return told


@dataclass(frozen=True, eq=False, kw_only=True)
class RowsOfAllRanks(TokenRows):
    """This rank's rows, whose products with H are those of all ranks' rows together.

    One rank leads: it may `apply` as often as it likes and must `dismiss` in the end, while all others `serve`.
    """

    ranks: Ranks
    leader: int
    first: int
    """Number of this rank's first response among those of all ranks, which `without` counts by."""

    @classmethod
    def of(cls, rows: TokenRows, ranks: Ranks, leader: int, first: int) -> RowsOfAllRanks:
        """From this rank's own."""
        parts = (rows.large, rows.small, rows.owner, rows.exponent, rows.work)
        return cls(*parts, ranks=ranks, leader=leader, first=first)

    def apply(self, directions: Tensor, damping: Tensor, without: Tensor | None = None) -> Tensor:
        """W H [n, D], on the leader; an attempt of any rank that failed makes it NaN, W then as well."""
        directions = directions.contiguous()  # before the others wait for it
        self.ranks.numbers([len(directions), without is not None], self.leader)
        return self._summed(directions, without) + damping * directions

    def dismiss(self) -> None:
        """Let the others go, on the leader."""
        self.ranks.numbers([0, 0], self.leader)

    def serve(self) -> None:
        """Give products until the leader dismisses."""
        while True:
            count, masked = self.ranks.numbers([0, 0], self.leader)
            if not count:
                return
            device, dim = self.large.device, self.sides[0] * self.sides[1]
            without = torch.empty(count, dtype=torch.int64, device=device) if masked else None
            self._summed(torch.empty(count, dim, dtype=torch.float64, device=device), without)

    def _summed(self, directions: Tensor, without: Tensor | None) -> Tensor:
        directions = self.ranks.broadcast(directions, self.leader)
        if without is not None:
            without = self.ranks.broadcast(without, self.leader) - self.first
        own = self.ranks.attempt(None, "", self._own, directions, without)
        return self.ranks.sum_at(directions.fill_(torch.nan) if own is None else own, self.leader)

    def _own(self, directions: Tensor, without: Tensor | None) -> Tensor | None:
        return super().apply(directions, directions.new_zeros(()), without)


def _padded(rows: Tensor, count: int) -> Tensor:
    """[count, D], filled with zeros."""
    return torch.nn.functional.pad(rows, (0, 0, 0, count - len(rows)))
