from __future__ import annotations

import itertools

import pytest

from trainer_ext.bench.cases import named_cases
from trainer_ext.bench.shapes import ModuleShape
from trainer_ext.bench.work import Group, Work, as_mapping, batch_work, bound, module_work, scope_groups
from trainer_ext.influence import InfluenceConfig


def config(name: str) -> InfluenceConfig:
    return named_cases([name])[0].config(factor=32, precision="fp32")


TOKEN, RESPONSE, IDENTITY = (config(name) for name in ("f32_all_selected", "f32_response", "f32_identity"))


def multiplications(*ranges: range) -> int:
    """How often the innermost statement of nested loops runs."""
    return sum(1 for _ in itertools.product(*ranges))


def triangle(k: int) -> int:
    return sum(1 for a in range(k) for b in range(k) if a <= b)


def test_distinct_entries_of_a_token_hessian_are_pairs_of_pairs() -> None:
    k_in, k_out, tokens = 3, 4, 50
    entries = {
        (min(a, c), max(a, c), min(b, d), max(b, d))
        for a, c in itertools.product(range(k_in), repeat=2)
        for b, d in itertools.product(range(k_out), repeat=2)
    }
    work = module_work(k_in, k_out, [Group(tokens, 5)], TOKEN, "fp32")
    assert work.curvature == 2 * tokens * len(entries)


def test_products_are_counted_as_nested_loops_would() -> None:
    k_in, k_out, tokens, responses = 3, 4, 50, 5
    dim = k_in * k_out
    work = module_work(k_in, k_out, [Group(tokens, responses)], TOKEN, "fp32")
    assert work.gradients == work.scoring == 2 * multiplications(range(tokens), range(k_in), range(k_out))
    assert work.directions == 2 * multiplications(range(responses), range(responses), range(dim))
    # of two triangular solves, each has D (D + 1) / 2 products a right-hand side
    assert work.solve == pytest.approx(responses * 2 * 2 * triangle(dim), rel=1 / dim)
    # of a Cholesky factor, column j subtracts j products from each of the entries on and below the diagonal
    cholesky = sum(2 for j in range(dim) for i in range(j, dim) for _ in range(j))
    assert work.factor == pytest.approx(cholesky, rel=2 / dim)


def test_few_tokens_are_counted_by_their_gram_matrix() -> None:
    k_in, k_out, tokens, responses = 6, 8, 4, 3
    work = module_work(k_in, k_out, [Group(tokens, responses)], TOKEN, "fp32")
    assert work.curvature == 2 * triangle(tokens) * (k_in + k_out)
    assert work.factor == tokens**3 / 3
    products = multiplications(range(responses), range(tokens), range(tokens + k_in * k_out))
    assert work.solve == 2 * products


def test_response_source_is_counted_by_its_gram_matrix_and_identity_without_one() -> None:
    group = Group(tokens=70, responses=5)
    work = module_work(6, 8, [group], RESPONSE, "fp32")
    assert (work.curvature, work.factor) == (2 * triangle(5) * 48, 5**3 / 3)
    assert work.solve == 2 * multiplications(range(5), range(5), range(5 + 48))
    plain = module_work(6, 8, [group], IDENTITY, "fp32")
    assert (plain.curvature, plain.factor, plain.solve) == (0, 0, 0)
    assert plain.flops == work.gradients + work.scoring + work.directions


def test_the_figures_of_a_gate_module_at_the_reference_shape() -> None:
    work = module_work(48, 280, [Group(733_870, 96)], TOKEN, "fast")
    assert work.curvature == pytest.approx(6.79e13, rel=2e-3)
    assert work.factor == pytest.approx(8.09e11, rel=1e-3)
    assert work.solve == pytest.approx(3.5e10, rel=1e-2)
    assert work.bytes == 733_870 * (2 * (328 * 2 + 1) + 4)


@pytest.mark.parametrize(("precision", "size"), [("fast", 7 * 2 + 1), ("fp32", 7 * 4), ("fp64", 7 * 8)])
def test_bytes_are_the_stored_factors_twice_and_the_scores_once(precision: str, size: int) -> None:
    assert module_work(3, 4, [Group(10, 2), Group(20, 2)], IDENTITY, precision).bytes == 30 * (2 * size + 4)


def test_groups_follow_the_scope() -> None:
    lengths = [3, 4, 5, 6]
    assert scope_groups(lengths, 2, config("f32_per_prompt")) == [Group(7, 2), Group(11, 2)]
    assert scope_groups(lengths, 2, config("f32_all_selected")) == [Group(18, 4)]


def test_a_batch_is_the_sum_of_its_modules() -> None:
    shapes = [ModuleShape(("q_proj",), 3, 4, count=2), ModuleShape(("k_proj",), 3, 2, count=1)]
    groups = [Group(50, 5), Group(9, 5)]
    total = batch_work(shapes, groups, TOKEN, "fp32")
    singly = [module_work(3, 4, groups, TOKEN, "fp32")] * 2 + [module_work(3, 2, groups, TOKEN, "fp32")]
    assert total.flops == pytest.approx(sum(work.flops for work in singly))
    assert total.bytes == sum(work.bytes for work in singly)
    parts = {name: value for name, value in as_mapping(total).items() if name not in ("bytes", "flops")}
    assert sum(parts.values()) == pytest.approx(total.flops)


def test_the_nearer_bound_is_the_one_that_alone_takes_longer() -> None:
    work = Work(scoring=600.0, bytes=40.0)
    limits = bound(work, 10.0, gemm_flops=200.0, copy_bytes=20.0)
    assert (limits.flops_per_s, limits.flops_share) == (60.0, 0.3)
    assert (limits.bytes_per_s, limits.bytes_share) == (4.0, 0.2)
    assert (limits.floor_s, limits.nearer) == (3.0, "arithmetic")
    assert bound(work, 10.0, gemm_flops=200.0, copy_bytes=10.0).nearer == "memory"
