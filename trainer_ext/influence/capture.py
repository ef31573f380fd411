"""Reads per-token gradient factors out of an ordinary forward and backward pass, with hooks on `nn.Linear` modules.

A forward hook projects the module's input at the selected positions and leaves a hook on its output tensor; when the
gradient arrives there, it is projected and both are kept. Rows are stored by that second hook alone, and it belongs
to the tensor it was made for: recomputation under gradient checkpointing runs the forward hook again, but no gradient
ever reaches its output, so nothing is doubled. Weights are never touched, which is why sharded ones (FSDP2) do not
matter.

What a row means: backward of one summed loss gives the gradient by the *position*, with the effect of that position
on every later token's loss, not the gradient of the one token's own log-probability. Select the position that
predicts the token (the one before it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.factors import ModuleFactors
from trainer_ext.influence.projection import Projection, projection_dims

_WRAPPERS = frozenset({"_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"})


def target_modules(model: nn.Module, config: InfluenceConfig) -> dict[str, nn.Linear]:
    """The linear modules that the config names, by dotted name, in the model's order.

    Names leave out the parts that FSDP1, checkpoint wrappers and torch.compile insert, so that a module keeps its
    projections whatever it is wrapped in.

    Raises:
        ValueError: nothing matches.
    """
    linears = {_unwrapped(name): module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    targets = {name: m for name, m in linears.items() if any(part in name for part in config.target_modules)}
    if not targets:
        raise ValueError(
            f"target_modules: none of {', '.join(config.target_modules)} names one of the {len(linears)} nn.Linear "
            f"modules of the model ({', '.join(list(linears)[:8])}, ...)"
        )
    return targets


def leading_tokens(mask: Tensor, max_tokens: int) -> tuple[Tensor, Tensor]:
    """Which tokens to capture: the first `max_tokens` valid ones of each response, or all where it is -1.

    Args:
        mask: bool [R, L], the valid tokens of each response.

    Returns:
        (response, token): int64 [T] each, the indices of the chosen entries of `mask` in row order.
    """
    if max_tokens != -1:
        mask = mask & (mask.cumsum(dim=1) <= max_tokens)
    response, token = mask.nonzero(as_tuple=True)
    return response, token


@dataclass(eq=False)
class _MicroBatch:
    """What was selected for one pass, and the rows that its backward has brought so far."""

    positions: Tensor
    response: Tensor
    last: int
    rows: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """module -> (inputs [n, k_in], output_grads [n, k_out])"""


class LinearCapture:
    """Context manager that captures the factors of a model's target modules; may be entered again and again.

    Args:
        model: any module; may be wrapped by FSDP2 or hold checkpointed blocks.
        config: names the modules and the projections.
        storage: where rows are kept; None: on the device of the pass. Moving them off it waits for the device.

    Raises:
        ValueError: no module matches.
    """

    def __init__(self, model: nn.Module, config: InfluenceConfig, *, storage: torch.device | str | None = None) -> None:
        self._modules = target_modules(model, config)
        self.projections = {name: _projections(name, module, config) for name, module in self._modules.items()}
        self._storage = storage
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._batches: list[_MicroBatch] = []

    def __enter__(self) -> Self:
        self._batches = []
        for name, module in self._modules.items():
            hook = self._forward_hook(name)
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def select(self, positions: Tensor, response: Tensor) -> None:
        """Say which tokens of the coming forward and backward pass to keep; stands until the next call.

        Args:
            positions: int64 [n], indices into the tokens of the pass flattened to one dimension: b * L + l for [B, L].
            response: int64 [n], the response that each belongs to; handed on as it is.

        Raises:
            ValueError: wrong dtype, shape or length, or a negative position.
        """
        for name, value in (("positions", positions), ("response", response)):
            if value.dim() != 1 or value.dtype != torch.int64:
                raise ValueError(f"{name}: expected torch.int64 [n], got {value.dtype} of shape {tuple(value.shape)}")
        if len(positions) != len(response):
            raise ValueError(f"positions and response differ in length: {len(positions)} and {len(response)}")
        first, last = (int(x) for x in torch.aminmax(positions)) if len(positions) else (0, -1)
        if first < 0:
            raise ValueError(f"positions: must not be negative, got {first}")
        self._batches.append(_MicroBatch(positions, response, last))

    def pop(self) -> dict[str, ModuleFactors]:
        """The rows of all passes since the last call, in the order of `select`, and forget them.

        Every module has the same T rows; a pass that brought a module no gradient gives it zero output gradients
        there, and a module that no pass brought a gradient is left out. `response` is one tensor shared by all
        modules.

        Raises:
            ValueError: a captured value is not finite (see `ModuleFactors`).
        """
        batches = [batch for batch in self._batches if len(batch.positions)]
        self._batches = []
        if not batches:
            return {name: self._empty(name) for name in self._modules}
        response = torch.cat([batch.response for batch in batches])
        modules = {}
        for name in self._modules:
            first = next((batch.rows[name] for batch in batches if name in batch.rows), None)
            if first is not None:
                inputs, output_grads = (torch.cat(side) for side in zip(*_rows(name, batches, first), strict=True))
                response = response.to(inputs.device)
                modules[name] = ModuleFactors(inputs=inputs, output_grads=output_grads, response=response)
        return modules

    def _forward_hook(self, name: str) -> Callable[..., None]:
        project_in, _ = self.projections[name]

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            batch = self._batches[-1] if self._batches else None
            if batch is None or batch.last < 0 or not output.requires_grad:
                return
            inputs = args[0] if args else kwargs["input"]
            rows = project_in(_selected(inputs.detach(), batch, name))
            output.register_hook(partial(self._store, batch, name, rows))

        return hook

    def _store(self, batch: _MicroBatch, name: str, inputs: Tensor, grad: Tensor) -> None:
        if name in batch.rows:
            raise RuntimeError(
                f"{name} received a second gradient in one selection: call select() before each forward pass; "
                "a module that runs twice in one pass cannot be captured"
            )
        _, project_out = self.projections[name]
        output_grads = project_out(_selected(grad.detach(), batch, name))
        device = output_grads.device if self._storage is None else self._storage
        batch.rows[name] = (inputs.to(device), output_grads.to(device))

    def _empty(self, name: str) -> ModuleFactors:
        project_in, project_out = self.projections[name]
        return ModuleFactors(
            inputs=torch.empty(0, project_in.k),
            output_grads=torch.empty(0, project_out.k),
            response=torch.empty(0, dtype=torch.int64),
        )


def _projections(name: str, module: nn.Linear, config: InfluenceConfig) -> tuple[Projection, Projection]:
    k_in, k_out = projection_dims(module.in_features, module.out_features, config)
    return (
        Projection(module.in_features, k_in, seed=config.seed, module=name, side="in"),
        Projection(module.out_features, k_out, seed=config.seed, module=name, side="out"),
    )


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _selected(values: Tensor, batch: _MicroBatch, name: str) -> Tensor:
    """[.., d] of one pass to the selected rows [n, d]."""
    tokens = values.reshape(-1, values.shape[-1])
    if batch.last >= len(tokens):
        raise ValueError(f"positions: {batch.last} selected, but {name} sees {len(tokens)} tokens in this pass")
    return tokens[batch.positions.to(tokens.device)]


def _rows(name: str, batches: list[_MicroBatch], like: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Take one (inputs, output_grads) out of each micro-batch, zeros shaped as `like` where the module got no gradient.

    They leave the micro-batch, so that no more than one module is held twice while rows are joined.
    """

    def zeros(batch: _MicroBatch) -> tuple[Tensor, Tensor]:
        count = len(batch.positions)
        return like[0].new_zeros(count, like[0].shape[1]), like[1].new_zeros(count, like[1].shape[1])

    return [batch.rows.pop(name) if name in batch.rows else zeros(batch) for batch in batches]
