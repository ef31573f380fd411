"""The arithmetic and the traffic that a case cannot do without, from shapes alone.

Symbols, per module (those of `trainer_ext.influence`): T tokens, R responses, k_in, k_out, D = k_in k_out; per group g
of a scope T_g tokens and R_g responses, and n_g directions (R_g, the own response being left out); P(k) = k (k + 1) / 2.

Floating point operations (a multiplication and an addition are two)
    gradients    2 T D                    g_r, the sum of v_t u_t^T over a response's tokens
    directions   2 n_g R_g D              Omega g
    curvature    2 T_g P(k_in) P(k_out)   token source: H is symmetric in k_in and in k_out separately, so its distinct
                                          entries are sums over tokens of products of pairs
                 2 R_g P(D)               response source
    factor       D^3 / 3                  Cholesky
    solve        2 D^2 n_g                two triangular solves
    scoring      2 T D                    v^T W u

or, by the Gram matrix of the Hessian's N_g rows (T_g tokens or R_g responses), wherever that is less:
    curvature    2 P(T_g) (k_in + k_out)  token source, or 2 P(R_g) D of responses
    factor       N_g^3 / 3
    solve        2 N_g^2 n_g + 2 N_g D n_g, the second product back to D

Refinement is not counted: it is the price of the precision chosen.

Bytes: the factors twice (a score needs the solution, the solution needs all tokens) and the scores once, in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from trainer_ext.bench.shapes import ModuleShape
from trainer_ext.influence import InfluenceConfig

STORED_BYTES = {"fast": 2, "fp32": 4, "fp64": 8}
"""Bytes of one number of a factor, by precision."""
EXPONENT_BYTES = 1
"""A token's power of two, in a module, with `fast`."""


@dataclass(frozen=True)
class Group:
    """One group of responses that is contrasted within itself."""

    tokens: int
    responses: int


@dataclass(frozen=True)
class Work:
    """Floating point operations by part, and bytes."""

    gradients: float = 0.0
    directions: float = 0.0
    curvature: float = 0.0
    factor: float = 0.0
    solve: float = 0.0
    scoring: float = 0.0
    bytes: float = 0.0

    @property
    def flops(self) -> float:
        return self.gradients + self.directions + self.curvature + self.factor + self.solve + self.scoring

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(_parts(self), _parts(other), strict=True)))

    def __mul__(self, count: int) -> Work:
        return Work(*(count * part for part in _parts(self)))


@dataclass(frozen=True)
class Bound:
    """How near a measured time is to what the card can do."""

    flops_per_s: float
    flops_share: float
    """Of the fastest matrix product measured on the device."""
    bytes_per_s: float
    bytes_share: float
    """Of the device's copy."""
    floor_s: float
    """Time that the nearer bound alone would take."""
    nearer: Literal["arithmetic", "memory"]


def scope_groups(lengths: Sequence[int], per_prompt: int, config: InfluenceConfig) -> list[Group]:
    """The groups of a batch whose responses lie prompt by prompt; `lengths` [R] are tokens by response."""
    size = per_prompt if config.scope == "per_prompt" else len(lengths)
    return [Group(sum(lengths[i : i + size]), len(lengths[i : i + size])) for i in range(0, len(lengths), size)]


def pairs(k: int) -> int:
    """P(k): unordered pairs of k things, each with itself too."""
    return k * (k + 1) // 2


def module_work(k_in: int, k_out: int, groups: Iterable[Group], config: InfluenceConfig, precision: str) -> Work:
    """What one module needs; every group has a contrast, and the own response is left out."""
    dim, total = k_in * k_out, Work()
    for group in groups:
        product = 2.0 * group.tokens * dim
        total += Work(gradients=product, scoring=product, directions=2.0 * group.responses**2 * dim)
        total += Work(bytes=group.tokens * (2 * token_bytes(k_in, k_out, precision) + 4))
        if config.hessian_mode == "inverse":
            total += _solve_work(k_in, k_out, group, config)
    return total


def batch_work(shapes: Iterable[ModuleShape], groups: Sequence[Group], config: InfluenceConfig, precision: str) -> Work:
    """The sum over all modules."""
    works = (module_work(shape.k_in, shape.k_out, groups, config, precision) * shape.count for shape in shapes)
    return sum(works, start=Work())


def token_bytes(k_in: int, k_out: int, precision: str) -> int:
    """Bytes of one token's factors in one module as the engine stores them, its response aside."""
    return (k_in + k_out) * STORED_BYTES[precision] + (EXPONENT_BYTES if precision == "fast" else 0)


def bound(work: Work, seconds: float, *, gemm_flops: float, copy_bytes: float) -> Bound:
    """A measured time against the ceilings, in FLOP/s and bytes/s."""
    by_arithmetic, by_memory = work.flops / gemm_flops, work.bytes / copy_bytes
    return Bound(
        flops_per_s=work.flops / seconds,
        flops_share=by_arithmetic / seconds,
        bytes_per_s=work.bytes / seconds,
        bytes_share=by_memory / seconds,
        floor_s=max(by_arithmetic, by_memory),
        nearer="arithmetic" if by_arithmetic >= by_memory else "memory",
    )


def as_mapping(work: Work) -> dict[str, Any]:
    """For a report: every part, and their sum."""
    return {**asdict(work), "flops": work.flops}


def _solve_work(k_in: int, k_out: int, group: Group, config: InfluenceConfig) -> Work:
    """Curvature, factor and solve by the cheaper of the two exact routes."""
    dim, n = k_in * k_out, group.responses
    if config.hessian_source == "token":
        rows, hessian, gram = (
            group.tokens,
            group.tokens * pairs(k_in) * pairs(k_out),
            pairs(group.tokens) * (k_in + k_out),
        )
    else:
        rows, hessian, gram = n, n * pairs(dim), pairs(n) * dim
    direct = Work(curvature=2.0 * hessian, factor=dim**3 / 3, solve=2.0 * dim**2 * n)
    dual = Work(curvature=2.0 * gram, factor=rows**3 / 3, solve=2.0 * rows**2 * n + 2.0 * rows * dim * n)
    return min(direct, dual, key=lambda work: work.flops)


def _parts(work: Work) -> tuple[float, ...]:
    return tuple(getattr(work, field.name) for field in fields(work))
