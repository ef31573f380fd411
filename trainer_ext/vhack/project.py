"""Taking directions out of vectors: gradients, or the steps of an optimizer.

Per module, with orthonormal directions D [k, n] and a vector g [n]: c = D g are its coefficients, and g becomes
`g - overshoot * D^T f(c)`. f is relu for one_sided and route, c for no_gate, 2 c for reverse, zero for measure. A direction
points toward the hack as a gradient of the loss does, so c > 0 means that a step against g makes the hack likelier.

Coefficients of all modules are one vector, so that ranks that hold shards of the vectors add their shares up in one reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer_ext.vhack.config import Mode

FIRED = 1e-6
"""A module fired when a larger share than this of its gradient pointed toward the hack."""
ROUNDING = 1e-6
"""Share of a squared length below which what remains is float32 rounding."""
TINY = 1e-30
"""Squared length below which a vector has no direction."""
Reduction = Callable[[Tensor], None]
"""Adds up, in place, what ranks hold shards of."""


@dataclass(frozen=True)
class Shares:
    """Of what length of a vector pointed toward the hack, mean over modules: |relu(c)| / |g|, in [0, 1].

    `cin` before the projection, `cout` after it, `fired` the share of modules with a cin above FIRED.
    """

    cin: float
    cout: float
    fired: float


class Directions:
    """Orthonormal directions by module, the local shard of each flattened: float32 [k, n], n may be 0.

    Args:
        by_module: shards as they lie on this rank.
    """

    def __init__(self, by_module: Mapping[str, Tensor]) -> None:
        self.by_module = dict(by_module)
        sizes = [len(rows) for rows in self.by_module.values()]
        device = next(iter(self.by_module.values())).device if sizes else torch.device("cpu")
        self.sizes = sizes
        counts = torch.tensor(sizes, dtype=torch.int64, device=device)
        self.owner = torch.repeat_interleave(torch.arange(len(sizes), device=device), counts)
        """int64 [axes]: number of the module that an axis belongs to."""

    @property
    def axes(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True, eq=False)
class Components:
    """Of one vector a module, over all ranks: `c` float64 [axes], `squares` float64 [modules], squared lengths."""

    c: Tensor
    squares: Tensor


def components(vectors: Mapping[str, Tensor], directions: Directions, reduce: Reduction = lambda _: None) -> Components:
    """Coefficients and lengths of vectors.

    Args:
        vectors: local shards by module, of any shape; those of modules without directions are not looked at. A module may be
            missing, or None: zero.
        reduce: adds up over the ranks that hold shards.
    """
    return _summed([_local(axes, vectors.get(name)) for name, axes in directions.by_module.items()], directions, reduce)


def _local(axes: Tensor, vector: Tensor | None) -> Tensor:
    """float64 [k + 1]: coefficients and squared length of a shard."""
    if vector is None:
        return axes.new_zeros(len(axes) + 1, dtype=torch.float64)
    flat = vector.reshape(-1).to(axes.dtype)
    return torch.cat([torch.mv(axes, flat), torch.dot(flat, flat)[None]]).double()


def _summed(found: list[Tensor], directions: Directions, reduce: Reduction) -> Components:
    packed = torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
    reduce(packed)
    pieces = packed.split([size + 1 for size in directions.sizes]) if found else ()
    empty = packed.new_zeros(0)
    return Components(torch.cat([empty, *(p[:-1] for p in pieces)]), torch.cat([empty, *(p[-1:] for p in pieces)]))


def removed(c: Tensor, mode: Mode, overshoot: float = 1.0) -> Tensor:
    """How much of each direction is taken out, [axes], of coefficients [axes].

    Raises:
        ValueError: an unknown mode.
    """
    if mode in ("one_sided", "route"):
        return overshoot * c.clamp(min=0)
    if mode == "no_gate":
        return overshoot * c
    if mode == "reverse":
        return overshoot * 2 * c
    if mode == "measure":
        return torch.zeros_like(c)
    raise ValueError(f"mode: must be one of one_sided, no_gate, reverse, route, measure, got {mode!r}")


def magnitudes(before: Components, taken: Tensor, owner: Tensor) -> Tensor:
    """By what each module's remainder is multiplied to have its former length, float64 [modules]; 1 where nothing remains.

    From |g - D^T t|^2 = |g|^2 - 2 t c + |t|^2.
    """
    change = torch.zeros_like(before.squares).index_add_(0, owner, taken * (taken - 2 * before.c))
    after = before.squares + change
    usable = after > TINY + ROUNDING * before.squares
    return torch.where(usable, (before.squares / after.clamp(min=TINY)).sqrt(), 1.0)


def take_out(
    vectors: Mapping[str, Tensor],
    directions: Directions,
    taken: Tensor,
    scale: Tensor | None = None,
    measured: Mapping[str, Tensor] | None = None,
    reduce: Reduction = lambda _: None,
) -> Components:
    """Change vectors in place, to `scale * (g - D^T taken)`, and measure what came of it.

    Args:
        vectors: local shards by module; one may be missing, or None.
        taken: [axes].
        scale: [modules], or None: 1.
        measured: what to measure after the change, where that is not the vectors themselves.

    Returns:
        Components of `measured`, over all ranks. Each module's are taken as soon as it is changed, while its directions are in
        the processor's cache: reading these is what a projection costs.
    """
    found = []
    parts = taken.split(directions.sizes)
    for number, ((name, axes), part) in enumerate(zip(directions.by_module.items(), parts, strict=True)):
        vector = vectors.get(name)
        if vector is not None:
            _subtract(vector, axes, part.to(axes.dtype), once=measured is not None)
            if scale is not None:
                vector.mul_(scale[number].to(vector.dtype))
        found.append(_local(axes, (vectors if measured is None else measured).get(name)))
    return _summed(found, directions, reduce)


def _subtract(vector: Tensor, axes: Tensor, part: Tensor, *, once: bool) -> None:
    """In place `vector - axes^T part`; with `once`, rounded to the size of `vector` once and not after each direction.

    That counts where `vector` is a weight, a thousand times as large as the step that is to be exact; it takes longer.
    """
    if once or vector.dtype != axes.dtype or not vector.is_contiguous():
        vector.sub_(torch.mv(axes.T, part).view(vector.shape).to(vector.dtype))
    else:
        vector.view(-1).addmv_(axes.T, part, alpha=-1)


def shares(before: Components, after: Components, owner: Tensor) -> Shares:
    """How much pointed toward the hack, before and after."""
    cin, cout = _hackward(before, owner), _hackward(after, owner)
    if not len(cin):
        return Shares(0.0, 0.0, 0.0)
    return Shares(float(cin.mean()), float(cout.mean()), float((cin > FIRED).double().mean()))


def _hackward(of: Components, owner: Tensor) -> Tensor:
    squares = torch.zeros_like(of.squares).index_add_(0, owner, of.c.clamp(min=0).square())
    return torch.where(of.squares > TINY, (squares / of.squares.clamp(min=TINY)).sqrt(), 0.0)
