"""Reads per-token gradient factors out of an ordinary forward and backward pass, with hooks on `nn.Linear` modules.

A forward hook projects the module's input at the selected positions and leaves a hook on its output tensor; when the
gradient arrives there, it is projected and both are kept. Rows are stored by that second hook alone, and it belongs
to the tensor it was made for. Gradient checkpointing runs a module twice: the reentrant kind without gradients first,
which is no business of ours; the other kind with them, but again inside backward, where no gradient reaches the output.
So the first run with gradients is the one that counts, a second one is not projected, and should a gradient come to it
nevertheless, that is an error. Weights are never touched, which is why sharded ones (FSDP2) do not matter.

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
from trainer_ext.influence.projection import JointProjection, Projection, projection_dims
from trainer_ext.influence.shared_inputs import SharedInputs
from trainer_ext.influence.storage import (
    RESERVE_BYTES,
    FactorStore,
    Placement,
    Rows,
    StoredBatch,
    StoredFactors,
    on_device,
)

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
    last: int
    """The largest position; -1: nothing is selected."""
    stored: StoredBatch
    met: set[str] = field(default_factory=set)
    """Modules whose inputs were projected."""
    weights: Tensor | None = None
    """[n], what output gradients are multiplied by; None: nothing."""

    def positions_in(self, values: Tensor, name: str) -> Tensor:
        """The positions, on the device of values [.., d]; sent once, for all modules.

        Raises:
            ValueError: a position that the values do not have.
        """
        tokens = values.numel() // values.shape[-1]
        if self.last >= tokens:
            raise ValueError(f"positions: {self.last} selected, but {name} sees {tokens} tokens in this pass")
        self.positions = on_device(self.positions, values.device)
        return self.positions


class LinearCapture:
    """Context manager that captures the factors of a model's target modules; may be entered again and again.

    With precision `fast` (the default on a GPU) rows are rounded to float16 with a power of two a token (`storage.py`).
    The hooks never wait for the device, but for the first pass, which brings each module's projections there.

    Args:
        model: any module; may be wrapped by FSDP2 or hold checkpointed blocks.
        config: names the modules, the projections and the precision.
        placement: where rows are kept: on the device of the pass, on the host (pinned memory, if the pass is on a GPU),
            or, with `auto`, on the device as long as `reserve_bytes` stay free there.
        reserve_bytes: bytes of device memory that `auto` leaves to the rest of the step.

    Raises:
        ValueError: no module matches.
    """

    def __init__(
        self,
        model: nn.Module,
        config: InfluenceConfig,
        *,
        placement: Placement = "auto",
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self._modules = target_modules(model, config)
        self.projections = {name: _projections(name, module, config) for name, module in self._modules.items()}
        dims = {name: (project_in.k, project_out.k) for name, (project_in, project_out) in self.projections.items()}
        self._inputs = SharedInputs({name: project_in for name, (project_in, _) in self.projections.items()})
        self._output_grads = {name: JointProjection([p_out]) for name, (_, p_out) in self.projections.items()}
        self._store = FactorStore(dims, precision=config.precision, placement=placement, reserve_bytes=reserve_bytes)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._batch: _MicroBatch | None = None

    def __enter__(self) -> Self:
        self._forget()
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
        self._inputs.begin_pass()
        self._batch = _MicroBatch(positions, last, self._store.open(response))

    def weigh(self, weights: Tensor) -> None:
        """Multiply the output gradients of the present selection by something before they are kept.

        Counts for gradients that arrive from now on: a backward pass may find the weights at its own beginning.

        Args:
            weights: floating point [n] on the device of the pass, in the order of `select`.

        Raises:
            ValueError: nothing was selected, or another number of tokens.
        """
        if self._batch is None or weights.shape != self._batch.positions.shape:
            selected = 0 if self._batch is None else len(self._batch.positions)
            raise ValueError(f"weights: {tuple(weights.shape)} for {selected} selected tokens")
        self._batch.weights = weights

    def take(self, device: torch.device | str | None = None) -> StoredFactors:
        """The rows of all passes since the last call, in the order of `select`, and forget them.

        To be read once, one module after another, so that rows on the host never are on the device all at once. Every
        module has the same T rows; a pass that brought a module no gradient gives it zero output gradients there, and a
        module that no pass brought a gradient is left out.

        Args:
            device: where factors are read; None: on the device of the passes.
        """
        factors = self._store.take(device)
        self._forget()
        return factors

    def pop(self) -> dict[str, ModuleFactors]:
        """What `take` gives, all modules at once; `response` is one tensor shared by all of them.

        Raises:
            ValueError: a captured value is not finite (see `ModuleFactors`).
        """
        return dict(self.take().items())

    def _forget(self) -> None:
        self._store.clear()
        self._inputs.release()
        self._batch = None

    def _forward_hook(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            batch = self._batch
            if batch is None or batch.last < 0 or not output.requires_grad:
                return
            if name in batch.met:
                output.register_hook(partial(_refuse, name))
                return
            batch.met.add(name)
            inputs = args[0] if args else kwargs["input"]
            rows = self._inputs(name, inputs, batch.positions_in(inputs, name))
            output.register_hook(partial(self._keep, batch, name, self._store.round_inputs(rows)))

        return hook

    def _keep(self, batch: _MicroBatch, name: str, inputs: Rows, grad: Tensor) -> None:
        self._inputs.release()
        if name in batch.stored.chunks:
            _refuse(name, grad)
        positions = batch.positions_in(grad, name)
        (rows,) = self._output_grads[name](grad.detach().reshape(-1, grad.shape[-1]), positions)
        self._store.put(batch.stored, name, inputs, rows.weighed(batch.weights))


def _refuse(name: str, _grad: Tensor) -> None:
    raise RuntimeError(
        f"{name} received a second gradient in one selection: call select() before each forward pass; "
        "a module that runs twice in one pass cannot be captured"
    )


def _projections(name: str, module: nn.Linear, config: InfluenceConfig) -> tuple[Projection, Projection]:
    k_in, k_out = projection_dims(module.in_features, module.out_features, config)
    return (
        Projection(module.in_features, k_in, seed=config.seed, module=name, side="in"),
        Projection(module.out_features, k_out, seed=config.seed, module=name, side="out"),
    )


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
