"""Stands between clipped gradients and weights: every step of an optimizer, projected.

Two forms. `gradient` projects gradients and then steps; an optimizer that scales coordinates differently, as Adam does, brings
part of the removed directions back. `update` lets the optimizer step and projects the step itself, decay included: what the
weights do is then what was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from trainer_ext.vhack.basis import expanded, svd_basis
from trainer_ext.vhack.config import VhackConfig
from trainer_ext.vhack.project import (
    Components,
    Directions,
    Shares,
    components,
    magnitudes,
    removed,
    shares,
    take_out,
)
from trainer_ext.vhack.routed import Routed
from trainer_ext.vhack.sharding import SumOverShards, local, shard_like, whole
from trainer_ext.vhack.stepping import stepping_by


def weight_directions(weights: Mapping[str, nn.Parameter], v: Mapping[str, Tensor]) -> Directions:
    """Directions of weights, this rank's shards of them, in float32.

    All ranks that hold shards must call it with the same modules in the same order.

    Args:
        weights: by module [out, in], with the values that the directions were extracted from.
        v: by module [k, r]; every module is one of `weights`.
    """
    rows = {}
    for name, directions in v.items():
        weight = weights[name]
        full = whole(weight.detach())
        changes = expanded(directions.to(full.device), svd_basis(full)).float()
        rows[name] = torch.stack([shard_like(change, weight).reshape(-1) for change in changes])
    return Directions(rows)


class _Differences(Mapping[str, Tensor]):
    """By name `minuends[name] - subtrahends[name]`, worked out anew each time: one module's stay in the cache, all do not."""

    def __init__(self, minuends: Mapping[str, Tensor], subtrahends: Mapping[str, Tensor]) -> None:
        self._minuends, self._subtrahends = minuends, subtrahends

    def __getitem__(self, name: str) -> Tensor:
        return self._minuends[name] - self._subtrahends[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._minuends)

    def __len__(self) -> int:
        return len(self._minuends)


class Projector:
    """Projects the steps of one optimizer.

    Args:
        weights: by module; those without directions are left alone.
        directions: `weight_directions` of these weights.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], directions: Directions, config: VhackConfig) -> None:
        self._weights = {name: weights[name] for name in directions.by_module}
        self._directions, self._config = directions, config
        self._reduce = SumOverShards(self._weights.values())
        device = next((local(weight).device for weight in self._weights.values()), torch.device("cpu"))
        self.routed = Routed(directions.axes, device) if config.mode == "route" else None
        self._before: dict[str, Tensor] = {}
        """Weights before a step, with form update; memory that is kept, since taking it anew costs as much as the copy."""
        self._seen: list[tuple[Shares, float]] = []

    def around(self, optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
        """While open, `optimizer.step` is a projected one."""
        plain = optimizer.step

        def step(*args: Any, **kwargs: Any) -> Any:
            return self.step(lambda: plain(*args, **kwargs), optimizer.param_groups[0])

        return stepping_by(optimizer, step)

    @torch.no_grad()
    def step(self, plain: Callable[[], Any], group: dict[str, Any]) -> Any:
        """One step: `plain()` with what this projector does before and after it.

        Args:
            group: the parameter group of the weights, for mode route.
        """
        if self._config.form == "gradient":
            return self._gradient_step(plain, group)
        start = time.perf_counter()
        for name, weight in self._weights.items():
            if name not in self._before:
                self._before[name] = torch.empty_like(local(weight))
            self._before[name].copy_(local(weight))
        copied = time.perf_counter() - start
        answer = plain()
        self._project_update(copied)
        return answer

    def take_metrics(self) -> dict[str, float]:
        """Since the last call: means of cin, cout and fired over the steps, and all their `seconds`. Empty without steps."""
        seen, self._seen = self._seen, []
        if not seen:
            return {}
        mean = {name: sum(getattr(one, name) for one, _ in seen) / len(seen) for name in ("cin", "cout", "fired")}
        return {**mean, "seconds": sum(seconds for _, seconds in seen)}

    def _gradient_step(self, plain: Callable[[], Any], group: dict[str, Any]) -> Any:
        start = time.perf_counter()
        gradients = {name: local(weight.grad) for name, weight in self._weights.items() if weight.grad is not None}
        before = components(gradients, self._directions, self._reduce)
        taken = removed(before.c, self._config.mode, self._config.overshoot)
        after = before if self._measures else self._taken_out(gradients, taken, self._scale(before, taken))
        found = shares(before, after, self._directions.owner)
        seconds = time.perf_counter() - start
        answer = plain()
        start = time.perf_counter()
        if self.routed is not None:
            change = self.routed.follow_gradient(taken, group)
            take_out({name: local(weight.data) for name, weight in self._weights.items()}, self._directions, -change)
        self._seen.append((found, seconds + time.perf_counter() - start))
        return answer

    def _project_update(self, copied: float) -> None:
        """Project the way from `_before`, which took `copied` seconds to write down, to the weights as they are now."""
        start = time.perf_counter()
        now = {name: local(weight.data) for name, weight in self._weights.items()}
        way = _Differences(self._before, now)  # against the step, as a gradient points
        before = components(way, self._directions, self._reduce)
        taken = removed(before.c, self._config.mode, self._config.overshoot)
        after = before
        if self.routed is not None:  # the weights make the whole step; what of it is routed is only written down
            self.routed.follow_step(-taken)
            after = Components(before.c - taken, before.squares)
        elif self._config.preserve_magnitude and not self._measures:
            steps = dict(way)
            after = self._taken_out(steps, taken, self._scale(before, taken))
            for name, weight in now.items():
                torch.sub(self._before[name], steps[name], out=weight)
        elif not self._measures:  # straight from the weights: where nothing is taken out they stay as they are
            after = self._taken_out(now, -taken, None, way)
        found = shares(before, after, self._directions.owner)
        self._seen.append((found, copied + time.perf_counter() - start))

    @property
    def _measures(self) -> bool:
        return self._config.mode == "measure"

    def _scale(self, before: Components, taken: Tensor) -> Tensor | None:
        return magnitudes(before, taken, self._directions.owner) if self._config.preserve_magnitude else None

    def _taken_out(
        self,
        vectors: Mapping[str, Tensor],
        taken: Tensor,
        scale: Tensor | None,
        measured: Mapping[str, Tensor] | None = None,
    ) -> Components:
        return take_out(vectors, self._directions, taken, scale, measured, self._reduce)
