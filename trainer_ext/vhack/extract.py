"""Directions from pairs of a hacking and a clean completion of one prompt.

For a pair with advantages +1 and -1 the gradient of the loss in one policy-gradient step is grad NLL(hack) - grad NLL(clean).
So each pair gives one vector a module, the difference of the gradients of the length-normalised negative log-likelihood in
the module's SVD basis, and the singular vectors of all pairs' differences are the directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer_ext.vhack.basis import basis_hash, coordinates, linear_modules, svd_basis, weight_digest
from trainer_ext.vhack.directions import directions

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, eq=False)
class TokenPair:
    """Token ids, int64 [n], of a prompt and two completions of it."""

    prompt: Tensor
    hack: Tensor
    clean: Tensor


@dataclass(frozen=True, eq=False)
class Extracted:
    """By module: `v` float32 [k, r] and `s` float32 [k]; and of what model."""

    v: dict[str, Tensor]
    s: dict[str, Tensor]
    basis: str
    dtype: str
    targets: tuple[str, ...]
    pairs: int
    tau_axis: float

    @property
    def k(self) -> int:
        """Directions a module."""
        return min(len(s) for s in self.s.values())


def mean_nll(logits: Tensor, tokens: Tensor, first: int) -> Tensor:
    """The mean negative log-likelihood, a scalar, of `tokens[first:]`.

    Args:
        logits: [n, vocabulary] of the whole sequence.
        tokens: int64 [n].
        first: index of the completion's first token, 1 or more.
    """
    predicted = torch.log_softmax(logits[first - 1 : -1].float(), dim=-1)
    return -predicted.gather(1, tokens[first:, None]).mean()


def extract(
    model: nn.Module,
    pairs: Sequence[TokenPair],
    k: int,
    *,
    tau_axis: float = 0.0,
    targets: tuple[str, ...] = TARGETS,
    said: Callable[[str], None] = lambda _line: None,
) -> Extracted:
    """Directions of every target module of a model, whose weights and gradients are left as they were.

    Args:
        model: a causal language model that answers `model(input_ids=[1, n]).logits`; put it into eval mode before.
        k: directions a module; the number of pairs and the smallest rank cap it.
        tau_axis: see `directions`.
        targets: a linear module takes part when its name contains one of these.
        said: gets a line of progress now and then.

    Raises:
        ValueError: no pairs, an empty completion, no target module, or a likelihood that is not finite.
    """
    if not pairs:
        raise ValueError("no pairs to extract directions from")
    modules = linear_modules(model, targets)
    said(f"SVD basis of {len(modules)} modules")
    bases = {name: svd_basis(module.weight) for name, module in modules.items()}
    rows: dict[str, list[Tensor]] = {name: [] for name in modules}
    for number, pair in enumerate(pairs):
        said(f"gradients of pair {number + 1} of {len(pairs)}")
        hack, clean = (_gradients(model, modules, pair.prompt, text, number) for text in (pair.hack, pair.clean))
        for name, row in rows.items():
            row.append(coordinates(hack[name].double() - clean[name].double(), bases[name]).cpu())
    k = min(k, len(pairs), *(len(basis.vh) for basis in bases.values()))
    found = {name: directions(torch.stack(row), k, tau_axis) for name, row in rows.items()}
    digests = {name: weight_digest(module.weight) for name, module in modules.items()}
    dtype = str(next(iter(modules.values())).weight.dtype).removeprefix("torch.")
    v, s = ({name: both[side] for name, both in found.items()} for side in (0, 1))
    return Extracted(v, s, basis_hash(digests), dtype, tuple(targets), len(pairs), tau_axis)


def _gradients(
    model: nn.Module, modules: dict[str, nn.Linear], prompt: Tensor, completion: Tensor, number: int
) -> dict[str, Tensor]:
    """By module, the gradient [out, in] of the completion's mean negative log-likelihood."""
    if not len(prompt) or not len(completion):
        raise ValueError(f"pair {number + 1}: prompt and completions need at least one token each")
    weights = {name: module.weight for name, module in modules.items()}
    tokens = torch.cat([prompt, completion]).to(next(iter(weights.values())).device)
    with torch.enable_grad():
        loss = mean_nll(model(input_ids=tokens[None]).logits[0], tokens, len(prompt))
        if not bool(loss.isfinite()):
            raise ValueError(f"pair {number + 1}: the negative log-likelihood is {loss.item()}")
        # a module that the tokens do not reach, such as an expert that none is routed to, has no part in the loss: zero
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))
