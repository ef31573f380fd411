from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_ext.influence import InfluenceConfig, projection_dims
from trainer_ext.influence.projection import (
    JointProjection,
    Projection,
    kept_dtype,
    product_first,
    rademacher_signs,
)

GOLDEN = "69ffb3f96c5c4f93d0e8c7674bc7c24def436ef5d9e3cd1ecf7fa2bd1b6479f3"


def _checksum(signs: torch.Tensor) -> str:
    return hashlib.sha256(signs.numpy().tobytes()).hexdigest()


def test_signs_never_change() -> None:
    # the same on every rank, after every restart: scores of runs on both sides of a change here would not compare
    signs = rademacher_signs(37, 11, seed=5, module="model.layers.3.mlp.down_proj", side="in")

    assert _checksum(signs) == GOLDEN


def test_signs_differ_by_seed_module_and_side() -> None:
    drawn = {
        _checksum(rademacher_signs(64, 8, seed=seed, module=module, side=side))
        for seed in (0, 1)
        for module in ("a", "b")
        for side in ("in", "out")
    }

    assert len(drawn) == 8


def test_signs_are_balanced_and_uncorrelated() -> None:
    signs = rademacher_signs(4096, 16, seed=0, module="m", side="out").double()

    correlations = signs.T @ signs / 4096 - torch.eye(16, dtype=torch.float64)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean(dim=0).abs().max() < 5 / 64
    assert correlations.abs().max() < 5 / 64


def test_projection_preserves_inner_products_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1, 512, generator=generator, dtype=torch.float64)
    products = [
        float(
            Projection(512, 64, seed=seed, module="m", side="in")(x)
            @ Projection(512, 64, seed=seed, module="m", side="in")(y).T
        )
        for seed in range(200)
    ]

    spread = float(x.norm() * y.norm()) / 8  # standard deviation of one draw, at most
    assert abs(sum(products) / 200 - float(x @ y.T)) < 4 * spread / 200**0.5


def test_projections_in_one_product_are_what_each_is_alone() -> None:
    parts = [Projection(12, k, seed=0, module=str(k), side="in") for k in (5, 12, 1, 3)]
    rows = torch.randn(9, 12, dtype=torch.float64)
    joint = JointProjection(parts)

    for positions in (torch.tensor([7, 2]), torch.arange(8, -1, -1), None):
        wanted = rows if positions is None else rows[positions]
        for found, part in zip(joint(rows, positions), parts, strict=True):
            torch.testing.assert_close(found.values(), part(wanted))


def test_rows_are_gathered_before_the_product_only_where_few_are_wanted() -> None:
    assert [product_first(wanted, 100) for wanted in (0, 49, 50, 100)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("rows", "device", "kept"),
    [
        (torch.bfloat16, "cuda", torch.bfloat16),
        (torch.float16, "cuda", torch.float16),
        (torch.float32, "cuda", torch.int8),
        (torch.bfloat16, "cpu", torch.int8),
        (torch.float64, "cpu", torch.int8),
    ],
)
def test_signs_are_kept_in_the_rows_type_only_where_its_product_is_exact(
    rows: torch.dtype, device: str, kept: torch.dtype
) -> None:
    assert kept_dtype(rows, torch.device(device)) == kept


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", [(3,), (48, 48, 8), (7, 5)])
def test_sums_of_half_precision_rows_on_a_gpu_are_those_of_float64(dtype: torch.dtype, widths: tuple[int, ...]) -> None:
    parts = [Projection(1536, k, seed=0, module=str(i), side="in") for i, k in enumerate(widths)]
    rows = torch.randn(700, 1536, device="cuda").to(dtype)
    positions = torch.randperm(700, device="cuda")[:600]

    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = JointProjection(parts)(rows, positions)

    for part, sums in zip(parts, found, strict=True):
        expected = part(rows[positions].double())
        assert sums.values().dtype == torch.float32
        assert (sums.values() - expected).norm() < 1e-6 * expected.norm()


def test_a_side_of_full_width_is_left_alone() -> None:
    rows = torch.randn(5, 7)

    assert torch.equal(Projection(7, 7, seed=0, module="m", side="in")(rows), rows)


@pytest.mark.parametrize(
    ("given_dtype", "result"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_projection_computes_in_float32_or_more(given_dtype: torch.dtype, result: torch.dtype) -> None:
    assert Projection(8, 2, seed=0, module="m", side="in")(torch.ones(3, 8, dtype=given_dtype)).dtype == result


def test_autocast_does_not_round_a_projection() -> None:
    project, rows = Projection(64, 8, seed=0, module="m", side="in"), torch.randn(3, 64)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = project(rows)

    assert torch.equal(inside, project(rows))


@pytest.mark.parametrize(
    ("features", "factor", "cap", "dims"),
    [
        ((1536, 8960), 32, -1, (48, 280)),
        ((1536, 8960), 32, 2500, (48, 52)),
        ((1536, 8960), 512, -1, (3, 17)),
        ((100, 50), 512, -1, (1, 1)),
        ((8, 8), 1, -1, (8, 8)),
        ((8, 8), 1, 20, (4, 5)),
        ((8, 8), 1, 1, (1, 1)),
    ],
)
def test_projection_dims(features: tuple[int, int], factor: int, cap: int, dims: tuple[int, int]) -> None:
    assert projection_dims(*features, InfluenceConfig(projection_dim_factor=factor, max_hessian_dim=cap)) == dims


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(-1, 500))
def test_projection_dims_fit_the_cap_and_shrink_the_larger_side(n_in: int, n_out: int, factor: int, cap: int) -> None:
    free = projection_dims(n_in, n_out, InfluenceConfig(projection_dim_factor=factor))
    capped = projection_dims(n_in, n_out, InfluenceConfig(projection_dim_factor=factor, max_hessian_dim=cap))

    assert all(1 <= k <= k_free for k, k_free in zip(capped, free, strict=True))
    if cap < 1 or free[0] * free[1] <= cap:
        assert capped == free
    else:
        assert capped[0] * capped[1] <= cap
        # undoing the last step would not fit
        assert max((capped[0] + 1) * capped[1], capped[0] * (capped[1] + 1)) > cap
