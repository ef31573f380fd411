from __future__ import annotations

import pytest

from trainer_ext.bench.shapes import KNOWN, linear_types, module_shapes, numbers_per_token, parse_shape

QWEN = KNOWN["Qwen2.5-1.5B"]


def test_a_token_of_qwen_1_5b_takes_36064_numbers_at_factor_32() -> None:
    shapes = module_shapes(linear_types(QWEN), 32, QWEN.layers)
    assert numbers_per_token(shapes) == 36_064
    assert sum(shape.count for shape in shapes) == 196


def test_types_of_equal_projected_shape_are_one_shape_with_all_their_modules() -> None:
    shapes = module_shapes(linear_types(QWEN), 32, QWEN.layers)
    assert [(shape.label, shape.k_in, shape.k_out, shape.count, shape.dim) for shape in shapes] == [
        ("q+o", 48, 48, 56, 2304),
        ("k+v", 48, 8, 56, 384),
        ("gate+up", 48, 280, 56, 13_440),
        ("down", 280, 48, 28, 13_440),
    ]


def test_linear_types_follow_the_decoder() -> None:
    shape = parse_shape("hidden=10,intermediate=30,layers=2,heads=3,kv_heads=1,head_dim=4")
    assert {kind.name: (kind.in_features, kind.out_features) for kind in linear_types(shape)} == {
        "q_proj": (10, 12),
        "k_proj": (10, 4),
        "v_proj": (10, 4),
        "o_proj": (12, 10),
        "gate_proj": (10, 30),
        "up_proj": (10, 30),
        "down_proj": (30, 10),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Qwen9", "Qwen2.5-1.5B"),
        ("hidden=10,intermediate=30,layers=2,heads=3,kv_heads=1", "head_dim="),
        ("hidden=10,intermediate=30,layers=2,heads=3,kv_heads=1,head_dim=4,depth=3", "head_dim="),
        ("hidden=ten,intermediate=30,layers=2,heads=3,kv_heads=1,head_dim=4", "hidden="),
        ("hidden=10,intermediate=30,layers=0,heads=3,kv_heads=1,head_dim=4", "layers must be 1 or more, got 0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_with_what_there_is(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_shape(text)
