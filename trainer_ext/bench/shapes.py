"""Which linear modules a decoder has, from its shape, and what projection makes of them.

Symbols
    k_in, k_out    widths of a token's two factors after projection
    D              k_in k_out

Modules with equal (k_in, k_out) cost the same, whatever their name: a benchmark measures one and counts the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainer_ext.influence import InfluenceConfig, projection_dims


@dataclass(frozen=True)
class DecoderShape:
    """What decides the shapes of a decoder's linear modules (grouped-query attention, gated MLP).

    Raises:
        ValueError: a width or count below 1.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        for field in _NUMBERS:
            if getattr(self, field) < 1:
                raise ValueError(f"--model: {field} must be 1 or more, got {getattr(self, field)}")


_NUMBERS = ("hidden", "intermediate", "layers", "heads", "kv_heads", "head_dim")

# from each model's config.json
KNOWN = {
    shape.name: shape
    for shape in (
        DecoderShape("Qwen2.5-0.5B", 896, 4864, 24, 14, 2, 64),
        DecoderShape("Qwen2.5-1.5B", 1536, 8960, 28, 12, 2, 128),
        DecoderShape("Qwen2.5-7B", 3584, 18944, 28, 28, 4, 128),
    )
}


@dataclass(frozen=True)
class LinearType:
    """One kind of linear module."""

    name: str
    in_features: int
    out_features: int
    per_layer: int = 1


@dataclass(frozen=True)
class ModuleShape:
    """Modules that projection makes alike."""

    names: tuple[str, ...]
    """Types that have this shape, in the decoder's order."""
    k_in: int
    k_out: int
    count: int
    """Modules of this shape over all layers."""

    @property
    def dim(self) -> int:
        """D."""
        return self.k_in * self.k_out

    @property
    def label(self) -> str:
        """`gate+up` for gate_proj and up_proj."""
        return "+".join(name.removesuffix("_proj") for name in self.names)


def parse_shape(text: str) -> DecoderShape:
    """A known model by name, or `hidden=..,intermediate=..,layers=..,heads=..,kv_heads=..,head_dim=..`.

    Raises:
        ValueError: an unknown name, a field that is missing, unknown, or no whole number of 1 or more.
    """
    if text in KNOWN:
        return KNOWN[text]
    fields = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if set(fields) != set(_NUMBERS) or not all(value.strip().isdigit() for value in fields.values()):
        raise ValueError(
            f"--model: {text!r} is neither one of {', '.join(KNOWN)} nor {','.join(f'{n}=..' for n in _NUMBERS)}"
        )
    return DecoderShape(text, **{name: int(fields[name]) for name in _NUMBERS})


def linear_types(shape: DecoderShape) -> tuple[LinearType, ...]:
    """The linear modules of one layer, in the order of a forward pass."""
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return (
        LinearType("q_proj", shape.hidden, attention),
        LinearType("k_proj", shape.hidden, kv),
        LinearType("v_proj", shape.hidden, kv),
        LinearType("o_proj", attention, shape.hidden),
        LinearType("gate_proj", shape.hidden, shape.intermediate),
        LinearType("up_proj", shape.hidden, shape.intermediate),
        LinearType("down_proj", shape.intermediate, shape.hidden),
    )


def projected(types: Iterable[LinearType], factor: int) -> dict[str, tuple[int, int]]:
    """(k_in, k_out) by type at a projection factor."""
    config = InfluenceConfig(projection_dim_factor=factor)
    return {kind.name: projection_dims(kind.in_features, kind.out_features, config) for kind in types}


def module_shapes(types: Iterable[LinearType], factor: int, layers: int) -> tuple[ModuleShape, ...]:
    """The distinct shapes among all modules of `layers` layers, in order of first appearance."""
    types = tuple(types)
    dims = projected(types, factor)
    alike: dict[tuple[int, int], list[LinearType]] = {}
    for kind in types:
        alike.setdefault(dims[kind.name], []).append(kind)
    return tuple(
        ModuleShape(tuple(kind.name for kind in kinds), *pair, count=layers * sum(kind.per_layer for kind in kinds))
        for pair, kinds in alike.items()
    )


def numbers_per_token(shapes: Iterable[ModuleShape]) -> int:
    """Numbers that the factors of one token take over all modules."""
    return sum(shape.count * (shape.k_in + shape.k_out) for shape in shapes)
