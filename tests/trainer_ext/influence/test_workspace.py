"""Bytes counted from shapes are no fewer than what scoring a module holds at once, and say what they depend on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.trainer_ext.influence.live_bytes import LiveBytes
from tests.trainer_ext.influence.materialised import normal
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses, score_module
from trainer_ext.influence.layout import Group, Layout
from trainer_ext.influence.precision import PRECISIONS, Precision
from trainer_ext.influence.workspace import workspace_bytes

RESPONSES = 12
SIDES = st.tuples(st.integers(1, 60), st.integers(1, 60))


def _batch(tokens: int, k_in: int, k_out: int) -> tuple[ModuleFactors, Responses]:
    """Three prompts of four responses; tokens of a response together."""
    response = torch.arange(RESPONSES).repeat_interleave(tokens // RESPONSES)
    row = torch.arange(RESPONSES)
    factors = ModuleFactors(normal(tokens, k_in).float(), normal(tokens, k_out, seed=1).float(), response)
    return factors, Responses(row // 4, row % 2 == 0, torch.ones(RESPONSES))


def _assert_holds_no_more(tokens: int, sides: tuple[int, int], config: InfluenceConfig) -> None:
    factors, responses = _batch(tokens, *sides)
    score_module(factors, responses, config)  # tables that are made once

    with LiveBytes([factors.inputs, factors.output_grads, factors.response]) as live:
        result = score_module(factors, responses, config)

    assert live.peak > 4 * tokens
    assert live.peak <= result.peak_bytes < 10 * live.peak


TOKEN_SOURCE = [
    {"solver": solver, "scope": scope, "exclude_self_response": excluded}
    for solver in ("direct", "dual", "pcg")
    for scope, excluded in (("per_prompt", True), ("all_selected", False))
]
WITHOUT_TOKENS = [
    {"hessian_mode": "identity", "scope": "all_selected"},
    {"hessian_source": "response", "exclude_self_response": True},
    {"hessian_source": "response", "solver": "direct", "exclude_self_response": True},
]


@pytest.mark.parametrize("options", [*TOKEN_SOURCE, *WITHOUT_TOKENS], ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_more_is_held_than_was_counted(options: dict[str, Any], precision: str) -> None:
    _assert_holds_no_more(240, (20, 8), InfluenceConfig.from_mapping({**options, "precision": precision}))


@pytest.mark.parametrize(
    ("tokens", "options"),
    [
        pytest.param(1200, {"solver": "direct"}, id="features and their temporaries on a CPU"),
        pytest.param(240, {"solver": "pcg", "exclude_self_response": True}, id="products with many directions"),
        pytest.param(1200, {"solver": "direct", "token_unit_norm": True}, id="lengths from the inverse"),
        pytest.param(240, {"solver": "dual", "token_unit_norm": True}, id="lengths from the tokens' Gram matrix"),
        pytest.param(
            1200,
            {"solver": "dual", "token_unit_norm": True, "hessian_source": "response"},
            id="lengths from the responses' Gram matrix",
        ),
        pytest.param(1200, {"hessian_mode": "identity", "token_unit_norm": True}, id="rows of unit length"),
    ],
)
def test_no_more_is_held_than_was_counted_either(tokens: int, options: dict[str, Any]) -> None:
    _assert_holds_no_more(tokens, (20, 8), InfluenceConfig(scope="all_selected", **options))


def _layout(sizes: Sequence[int], device: str = "cpu", directions: int = 1) -> Layout:
    """Groups of four responses with so many tokens each; nothing is allocated."""
    ends = list(itertools.accumulate(sizes, initial=0))
    groups = tuple(
        Group(slice(start, end), end - start, slice(4 * number, 4 * number + 4), torch.ones(directions, 4))
        for number, (start, end) in enumerate(itertools.pairwise(ends))
    )
    spans = tuple((start, start) for start in range(4 * len(sizes)))
    return Layout(None, spans, groups, ends[-1], torch.device(device))


def _bytes(
    sides: tuple[int, int],
    routes: Sequence[str],
    sizes: Sequence[int] = (1000,),
    *,
    device: str = "cpu",
    precision: Precision = "fast",
    directions: int = 1,
) -> int:
    return workspace_bytes(sides, _layout(sizes, device, directions), routes, InfluenceConfig(), precision)


@settings(deadline=None)
@given(SIDES, st.integers(1, 10**6), st.sampled_from(["direct", "dual", "pcg"]), st.sampled_from(["cpu", "cuda"]))
@example((34, 60), 999142, "pcg", "cpu")
def test_more_tokens_or_directions_never_take_less(
    sides: tuple[int, int], tokens: int, route: str, device: str
) -> None:
    """Of directions from two on: rows that all share one are converted at once, those of several a response at a time."""
    some = _bytes(sides, [route], [tokens], device=device, directions=2)

    assert 0 < some <= _bytes(sides, [route], [2 * tokens], device=device, directions=2)
    assert some < _bytes(sides, [route], [tokens], device=device, directions=4)
    one = _bytes(sides, [route], [tokens], device=device)
    assert 0 < one <= _bytes(sides, [route], [2 * tokens], device=device)


@settings(deadline=None)
@given(SIDES, st.sampled_from(["direct", "dual", "pcg"]), st.sampled_from(["cpu", "cuda"]))
def test_which_side_is_the_longer_does_not_matter(sides: tuple[int, int], route: str, device: str) -> None:
    assert _bytes(sides, [route], device=device) == _bytes(sides[::-1], [route], device=device)


@settings(deadline=None)
@given(SIDES, st.permutations(["direct", "dual", "pcg"]))
def test_groups_are_solved_one_after_another(sides: tuple[int, int], routes: list[str]) -> None:
    sizes = [1000, 1000, 1000]

    mixed = _bytes(sides, routes, sizes)

    assert mixed == max(_bytes(sides, [route] * 3, sizes) for route in routes)
    assert mixed > _bytes(sides, [], sizes)


def test_the_dual_takes_the_square_of_its_rows() -> None:
    few, many = (_bytes((48, 8), ["dual"], [tokens]) for tokens in (2_000, 20_000))

    assert many - few > 8 * (20_000**2 - 2_000**2)


def test_precisions_differ_by_the_bytes_of_their_rows() -> None:
    fp64, fp32, fast = (_bytes((48, 8), [], device="cuda", precision=precision) for precision in PRECISIONS)

    in_float64 = 3 * 8  # what float32 rows are taken to where sums and scores are made; float16 ones stay what they are
    assert (fp64 - fp32, fp32 - fast) == (1000 * 56 * 4, 1000 * 56 * (2 + in_float64))
