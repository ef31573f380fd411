"""What projection leaves of a module's response gradients, and the sizes it makes of the modules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainer_ext.influence.against_truth import factors_of, responses_of
from tests.truth.brute_force import Floats, outer_products, pair_summary
from tests.truth.cases import Case, random_batch
from trainer_ext.influence import InfluenceConfig, ModuleFactors, projection_dims
from trainer_ext.influence.projection import Projection
from trainer_ext.influence.projection_fidelity import ProjectionFidelity, compare_projection, projection_table

PAIRS = ("acc-acc", "rej-rej", "acc-rej")


def _raw_dots(case: Case) -> Floats:
    """g_r . g_r' from gradients that are materialised, [R, R]."""
    gradients = outer_products(case.inputs, case.output_grads)
    summed = np.stack([gradients[case.response == r].sum(axis=0) for r in range(len(case.group))])
    return summed @ summed.T


def _assert_close(found: torch.Tensor, expected: Floats) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_the_projection_table_has_one_row_for_modules_that_are_alike() -> None:
    dims: dict[str, tuple[int, int]] = {}
    peak: dict[str, int] = defaultdict(int)
    for layer in range(3):
        for kind, pair in (("q_proj", (48, 48)), ("k_proj", (48, 8)), ("gate_proj", (48, 280))):
            dims[f"model.layers.{layer}.mlp.{kind}"] = pair
            peak[f"model.layers.{layer}.mlp.{kind}"] = 1000 * layer + pair[1]
    dims["model.layers.3.mlp.q_proj"], peak["model.layers.3.mlp.q_proj"] = (24, 48), 7

    rows = projection_table(dims, peak)

    assert [(r.module_type, r.modules, r.k_in, r.k_out, r.dim, r.peak_bytes) for r in rows] == [
        ("q_proj", 3, 48, 48, 2304, 2048),
        ("k_proj", 3, 48, 8, 384, 2008),
        ("gate_proj", 3, 48, 280, 13440, 2280),
        ("q_proj", 1, 24, 48, 1152, 7),
    ]


def _full(case: Case, k_in: int, k_out: int) -> ModuleFactors:
    """Another module that saw the same tokens."""
    rng = np.random.default_rng(60)
    tokens = len(case.response)
    return factors_of(
        replace(case, inputs=rng.normal(size=(tokens, k_in)) + 0.3, output_grads=rng.normal(size=(tokens, k_out)))
    )


def test_a_projection_that_changes_nothing_is_perfect() -> None:
    batch = random_batch(seed=61)
    factors = factors_of(batch)

    fidelity = compare_projection(factors, factors, responses_of(batch))

    _assert_close(fidelity.projected, _raw_dots(batch))
    _assert_close(fidelity.unprojected, _raw_dots(batch))
    assert fidelity.correlation == pytest.approx(1)
    assert fidelity.relative_error_of_self_dots == 0


def test_sides_that_saw_different_tokens_are_refused() -> None:
    batch = random_batch(seed=66)
    factors = factors_of(batch)
    shorter = ModuleFactors(factors.inputs[1:], factors.output_grads[1:], factors.response[1:])

    with pytest.raises(
        ValueError, match=r"compare_projection: response 0 has \d+ projected and \d+ unprojected tokens"
    ):
        compare_projection(shorter, factors, responses_of(batch))


def test_exponents_count_on_both_sides_of_a_comparison() -> None:
    batch = random_batch(seed=67)
    factors = factors_of(batch)
    power = torch.arange(factors.tokens) % 7 - 3
    split = replace(factors, exponent=power.to(torch.int8))
    scaled = replace(factors, inputs=torch.ldexp(factors.inputs, power[:, None]))

    fidelity = compare_projection(split, scaled, responses_of(batch))

    torch.testing.assert_close(fidelity.projected, fidelity.unprojected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_projection_that_scales_is_told_from_one_that_turns(scale: float) -> None:
    batch = random_batch(seed=62)
    factors = factors_of(batch)

    fidelity = compare_projection(replace(factors, inputs=factors.inputs * scale), factors, responses_of(batch))

    assert fidelity.correlation == pytest.approx(1)
    assert fidelity.relative_error_of_self_dots == pytest.approx(abs(scale**2 - 1))


def test_a_comparison_reports_both_sides_by_class() -> None:
    batch = random_batch(seed=63)
    full = _full(batch, 5, 6)
    projected = replace(full, inputs=full.inputs[:, :3])

    fidelity = compare_projection(projected, full, responses_of(batch))

    upper = torch.triu_indices(9, 9, offset=1)
    pairs = torch.stack([m[upper[0], upper[1]] for m in (fidelity.projected, fidelity.unprojected)])
    assert fidelity.correlation == pytest.approx(float(torch.corrcoef(pairs)[0, 1]))
    assert 0 < fidelity.relative_error_of_self_dots < 1
    _assert_close(
        fidelity.unprojected,
        _raw_dots(replace(batch, inputs=full.inputs.numpy(), output_grads=full.output_grads.numpy())),
    )
    means = sorted(row.mean for row in fidelity.rows)
    expected = sorted(
        pair_summary(dots.numpy(), batch.group, batch.accepted, within_prompts=within, pair=pair).mean
        for dots in (fidelity.projected, fidelity.unprojected)
        for within in (True, False)
        for pair in PAIRS
    )
    assert means == pytest.approx(expected)


def test_ranks_are_compared_as_one_without_pairs_between_them() -> None:
    batch = random_batch(seed=71)
    full = _full(batch, 5, 6)
    alone = compare_projection(replace(full, inputs=full.inputs[:, :3]), full, responses_of(batch))

    twice = ProjectionFidelity.joined([alone, alone])

    assert twice.correlation == pytest.approx(alone.correlation)
    assert twice.relative_error_of_self_dots == pytest.approx(alone.relative_error_of_self_dots)
    assert [row.pairs for row in twice.rows] == [2 * row.pairs for row in alone.rows]


@pytest.mark.parametrize("seed", range(4))
def test_random_projections_keep_similarities_the_better_the_wider_they_are(seed: int) -> None:
    """Responses lean one way or the other, so that there are similarities to keep: between gradients of pure noise a
    projection of this size leaves none."""
    batch = random_batch(seed=64, tokens=200)
    lean = np.where(batch.response % 2 == 0, 0.5, -0.5)[:, None]
    full = _full(batch, 96, 64)
    full = replace(full, output_grads=full.output_grads + torch.from_numpy(lean))

    def fidelity(factor: int) -> float:
        config = InfluenceConfig(projection_dim_factor=factor)
        k_in, k_out = projection_dims(96, 64, config)
        sides = (
            Projection(96, k_in, seed=seed, module="m", side="in"),
            Projection(64, k_out, seed=seed, module="m", side="out"),
        )
        projected = replace(full, inputs=sides[0](full.inputs), output_grads=sides[1](full.output_grads))
        return compare_projection(projected, full, responses_of(batch)).correlation

    assert fidelity(1) == pytest.approx(1)
    assert fidelity(2) > 0.9
    assert fidelity(2) > fidelity(8) > fidelity(32)
