from __future__ import annotations

import pytest
import torch

from trainer_ext.bench.synthetic import (
    MEAN_SHARE,
    Batch,
    exact_factors,
    make_batch,
    make_responses,
    response_lengths,
    stored_factors,
)
from trainer_ext.influence import ModuleFactors

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("tokens", [0, 5, 96, 97, 1000, 733_870])
def test_lengths_sum_to_the_tokens(tokens: int) -> None:
    lengths = response_lengths(tokens, 96, generator())
    assert sum(lengths) == tokens
    assert len(lengths) == 96
    assert min(lengths) >= (1 if tokens >= 96 else 0)


def test_lengths_spread_around_their_mean() -> None:
    lengths = torch.tensor(response_lengths(733_870, 96, generator()), dtype=torch.float64)
    assert 0.3 < float(lengths.std() / lengths.mean()) < 0.9


def test_lengths_without_a_response_are_refused() -> None:
    with pytest.raises(ValueError, match="1 response or more"):
        response_lengths(10, 0, generator())


def test_tokens_lie_together_by_response_and_responses_in_no_order(batch: Batch) -> None:
    order = batch.response.unique_consecutive()
    assert sorted(order.tolist()) == list(range(18))
    assert order.tolist() != list(range(18))
    assert batch.response.bincount(minlength=18).tolist() == list(batch.lengths)


@pytest.mark.parametrize("per_prompt", [2, 3, 16])
def test_every_prompt_has_both_sides_and_normalised_advantages(per_prompt: int) -> None:
    responses = make_responses(20, per_prompt, generator())
    accepted = responses.accepted.unflatten(0, (20, per_prompt)).sum(dim=1)
    assert bool(((accepted > 0) & (accepted < per_prompt)).all())
    assert bool(((accepted - per_prompt // 2).abs() <= 1).all())
    advantage = responses.advantage.unflatten(0, (20, per_prompt))
    torch.testing.assert_close(advantage.mean(dim=1), torch.zeros(20, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(advantage.std(dim=1), torch.ones(20, dtype=torch.float64))
    assert bool(((advantage > 0) == responses.accepted.unflatten(0, (20, per_prompt))).all())


def test_a_prompt_with_one_response_is_refused() -> None:
    with pytest.raises(ValueError, match="--per-prompt 2 or more"):
        make_responses(3, 1, generator())


def test_factors_are_a_function_of_their_seed(batch: Batch) -> None:
    first, again, other = (exact_factors(batch, 6, 5, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.output_grads, again.output_grads)
    assert not torch.equal(first.inputs, other.inputs)


@pytest.fixture(scope="module")
def wide() -> ModuleFactors:
    return exact_factors(make_batch(6000, prompts=6, per_prompt=16, seed=0, device=CPU), 24, 16, seed=0)


def test_inputs_have_a_massive_mean_and_a_power_law_beside_it(wide: ModuleFactors) -> None:
    u = wide.inputs.double()
    energy = u.square().sum(dim=1).mean()
    mean = u.mean(dim=0)
    assert float(mean.square().sum() / energy) == pytest.approx(MEAN_SHARE, abs=0.1)
    spectrum = torch.linalg.eigvalsh((u - mean).T @ (u - mean)).flip(0)
    assert float(spectrum[0] / spectrum[-1]) == pytest.approx(24, rel=0.5)


def test_a_few_tokens_hold_most_of_the_trace(wide: ModuleFactors) -> None:
    weight = wide.output_grads.double().square().sum(dim=1).sort(descending=True).values
    assert float(weight[:600].sum() / weight.sum()) > 0.6


def test_tokens_of_a_response_have_something_in_common() -> None:
    batch = make_batch(6000, prompts=2, per_prompt=5, seed=0, device=CPU)
    v = exact_factors(batch, 8, 40, seed=0).output_grads.double()
    direction = v / v.norm(dim=1, keepdim=True)
    mean = torch.stack([direction[batch.response == r].mean(dim=0) for r in range(10)])
    # 600 independent directions would leave a mean of squared length 1 / 600
    assert float(mean.square().sum(dim=1).mean()) > 0.05


def test_the_stored_form_of_fast_is_float16_and_within_its_rounding(wide: ModuleFactors) -> None:
    stored = stored_factors(wide, "fast")
    assert stored.exponent is not None
    assert stored.inputs.dtype == stored.output_grads.dtype == torch.float16
    scale = torch.ldexp(torch.ones(len(stored.exponent), dtype=torch.float64), stored.exponent.int())

    def gradients(factors: ModuleFactors) -> torch.Tensor:
        return factors.output_grads.double()[:, :, None] * factors.inputs.double()[:, None, :]

    exact, rounded = gradients(wide), gradients(stored) * scale[:, None, None]
    error = (rounded - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert 0 < float(error.max()) < 1e-3


def test_the_other_precisions_store_what_they_compute_with(wide: ModuleFactors) -> None:
    assert stored_factors(wide, "fp32") is wide
    assert torch.equal(stored_factors(wide, "fp64").inputs, wide.inputs.double())
