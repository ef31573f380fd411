"""Bytes of the influence trace on one rank, restated for a machine without torch.

Sources, with the same names: `trainer_ext.influence.projection.projection_dims`, `storage.bytes_per_token`,
`workspace.workspace_bytes`, `direct.capacity`, `pairs.padded_pairs`. Tests compare them with their sources.

Symbols
    k_in, k_out    sides of a module after projection; D = k_in k_out
    T, R           tokens and responses of a rank; T_g, R_g of one group
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator.preflight.models import ModelShape

Sides = tuple[int, int]

POOL_BYTES = 3.4e9
MOST_SYSTEMS = 24
FEATURE_BYTES = 0.6e9
FEATURE_TOKENS = 2**18
CHUNK_BYTES = 256 * 2**20
RESERVE_BYTES = 16 * 2**30
"""What the factor store leaves free on the card: rows that do not fit below it go to host memory."""
_GRANULE, _ALIGNMENT = 4, 64
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TraceSettings:
    """The settings of the trace that decide its size; defaults as the trainer's."""

    mode: str = "inverse"
    source: str = "token"
    scope: str = "per_prompt"
    excludes_self: bool = False
    factor: int = 512
    max_dim: int = -1
    max_tokens: int = -1
    solver: str = "auto"
    precision: str = "auto"
    output_function: str = "training_loss"
    modules: tuple[str, ...] = MODULES

    @classmethod
    def of(cls, influence: Mapping[str, Any]) -> TraceSettings | None:
        """From the section `influence` of a configuration; None where the trace is off."""
        if not influence or influence.get("enable") is False:
            return None
        names = {
            "mode": "hessian_mode",
            "source": "hessian_source",
            "scope": "scope",
            "excludes_self": "exclude_self_response",
            "factor": "projection_dim_factor",
            "max_dim": "max_hessian_dim",
            "max_tokens": "max_tokens_per_response",
            "solver": "solver",
            "precision": "precision",
            "output_function": "output_function",
        }
        found = {ours: influence[theirs] for ours, theirs in names.items() if theirs in influence}
        return cls(**found, modules=tuple(influence.get("target_modules") or MODULES))


def projection_sides(in_features: int, out_features: int, factor: int, max_dim: int = -1) -> Sides:
    """k = max(1, dim // factor) a side; above `max_dim` (where positive) the larger side shrinks first, k_in of two equal."""
    k_in, k_out = max(1, in_features // factor), max(1, out_features // factor)
    while 0 < max_dim < k_in * k_out:
        if k_in >= k_out:
            k_in -= 1
        else:
            k_out -= 1
    return k_in, k_out


@lru_cache(maxsize=256)
def layer_sides(model: ModelShape, trace: TraceSettings) -> tuple[Sides, ...]:
    """Of the traced modules of one layer."""
    return tuple(
        projection_sides(*widths, trace.factor, trace.max_dim)
        for name, widths in model.linears.items()
        if any(part in name for part in trace.modules)
    )


def bytes_per_token(sides: Iterable[Sides], half: bool, itemsize: int = 4) -> int:
    """Of stored factors: 8 for the response, and each module's 2 (k_in + k_out) + 1 in float16, else itemsize a number."""
    return 8 + sum(2 * (k_in + k_out) + 1 if half else itemsize * (k_in + k_out) for k_in, k_out in sides)


@lru_cache(maxsize=4096)
def padded_pairs(k: int) -> int:
    """Columns of the pair features of k entries, in blocks of four first entries, padded to 64."""
    full, rest = divmod(k, _GRANULE)
    count = sum(_GRANULE * (k - _GRANULE * block) for block in range(full)) + rest * rest
    return -(-count // _ALIGNMENT) * _ALIGNMENT


@lru_cache(maxsize=4096)
def systems_at_a_time(sides: Sides) -> int:
    """Systems that are factored together on a GPU."""
    m, n = map(padded_pairs, sides)
    return max(1, min(MOST_SYSTEMS, int(POOL_BYTES // (4 * m * n + 2 * (sides[0] * sides[1]) ** 2))))


@dataclass(frozen=True)
class GroupSize:
    """Of responses that are contrasted with one another."""

    tokens: float
    responses: int
    directions: int
    """Right-hand sides: one a response where the own one is left out, else one."""


def groups(trace: TraceSettings, tokens: float, responses: int, per_prompt: int) -> list[GroupSize]:
    """Of one rank's batch, prompts of equal size.

    Args:
        tokens, responses: on the rank.
        per_prompt: responses of one prompt.
    """
    count = max(1, responses // max(1, per_prompt)) if trace.scope == "per_prompt" else 1
    each = max(1, responses // count)
    return [GroupSize(tokens / count, each, each if trace.excludes_self else 1)] * count


def route(trace: TraceSettings, sides: Sides, group: GroupSize) -> str:
    """identity, direct, dual or pcg. With `auto` the engine asks a cost model that knows its device; here the smaller of
    the two matrices decides, which is where that model's choice lies for all but odd shapes."""
    if trace.mode == "identity":
        return "identity"
    if trace.solver != "auto":
        return trace.solver
    rows = group.tokens if trace.source == "token" else group.responses
    return "dual" if rows < sides[0] * sides[1] else "direct"


def workspace_bytes(
    sides: Sides, parts: Iterable[GroupSize], trace: TraceSettings, *, cuda: bool, precision: str
) -> float:
    """Most bytes that scoring one module holds beyond its factors; the lengths of `token_unit_norm` are left out.

    Args:
        precision: fp64, fp32 or fast.
    """
    k_in, k_out = sides
    parts = list(parts)
    tokens, responses = sum(part.tokens for part in parts), sum(part.responses for part in parts)
    element = {"fp64": 8, "fp32": 4, "fast": 2 if cuda else 8}[precision]
    staged = tokens * ((k_in + k_out) * element + 64)
    gradients = 8 * k_in * k_out * (responses + 3 * sum(part.directions for part in parts))
    work = 8 if precision != "fast" else 0 if cuda else 4
    ordered, pooled = (max(sides), min(sides)), cuda and precision != "fp64"
    solving = 0.0
    if trace.mode != "identity":
        solving = max(_route_bytes(trace, sides, part, ordered, work, pooled) for part in parts)
    alone = any(part.directions == 1 for part in parts)
    run = tokens if alone else max(part.tokens / part.responses for part in parts)
    return staged + gradients + max(solving, 24 * run * (k_in + k_out) if work else 0)


def _route_bytes(trace: TraceSettings, own: Sides, group: GroupSize, sides: Sides, work: int, pooled: bool) -> float:
    """Of one group. `sides`: the larger first; `work`: bytes a number of products over tokens, 0 on the tensor cores."""
    name = route(trace, own, group)
    dim, n = sides[0] * sides[1], group.directions
    by_token = trace.source == "token"
    rows = group.tokens if by_token else group.responses
    vectors = 8 * n * (8 * dim + 5 * rows) + (_product_bytes(group.tokens, sides, n, work) if by_token else 0)
    if name == "dual":
        return 32 * rows * rows + vectors
    if name == "pcg":
        return vectors + (3 * min(CHUNK_BYTES, 8 * group.tokens * sum(sides)) if by_token else 0)
    if not by_token:
        return 32 * dim * dim + vectors
    m, k = map(padded_pairs, sides)
    if pooled:
        return systems_at_a_time(sides) * (4 * m * k + 2 * dim * dim) + _feature_bytes(group.tokens, m, k, 2) + vectors
    in_full = 32 * dim * dim + 16 * m * k + 8 * group.tokens * sum(sides)
    return in_full + _feature_bytes(group.tokens, m, k, 8) + vectors


def _product_bytes(tokens: float, sides: Sides, n: int, work: int) -> float:
    """Of the product of a chunk of rows with n directions."""
    numbers = n * sides[1]
    chunk = min(tokens, max(1, CHUNK_BYTES // (4 * numbers)))
    return chunk * numbers * (2 * work or 20) + (8 * tokens * sum(sides) if work else 0)


def _feature_bytes(tokens: float, m: int, k: int, element: int) -> float:
    """Of a chunk of pair features of both sides, and what making them takes."""
    chunk = min(tokens, FEATURE_TOKENS, max(1, int(FEATURE_BYTES) // (m * element)))
    return chunk * element * (m + k + (m + k if element == 2 else 3 * m))
