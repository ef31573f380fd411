"""On a GPU: the same scores as on the CPU in every mode, each precision within its bound, and memory as measured.

Needs no more than torch, numpy and pytest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.against_truth import (
    combinations,
    factors_of,
    name,
    relative_error,
    responses_of,
    truth,
)
from tests.truth.cases import CASES
from trainer_ext.influence import (
    InfluenceConfig,
    ModuleFactors,
    Responses,
    score_batch,
    score_module,
)
from trainer_ext.influence.similarity import similarity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

DEVICE = torch.device("cuda")
SCOPES = ("per_prompt", "all_selected", "global")
SOURCES = ("token", "response")
OWN: tuple[dict[str, Any], ...] = (
    {"exclude_self_response": False},
    {"exclude_self_response": True},
    {"exclude_self_response": True, "true_loo": True},
)
BOUND = {"fp32": 1e-5, "fast": 1e-3}
"""Root mean square of the error over that of the float64 scores."""
RAGGED = [0, 1, 300, 1, 0, 37, 128, 129, 3, 64, 1, 0]
"""Tokens of each response: none, one, and numbers about the widths of tiles."""


def _config(**options: Any) -> InfluenceConfig:
    return InfluenceConfig.from_mapping(options)


def _responses(prompts: int, per_prompt: int, device: torch.device | str) -> Responses:
    """A third accepted in each prompt."""
    row = torch.arange(prompts * per_prompt)
    accepted = row % 3 == 0
    advantage = torch.where(accepted, 1.0, -0.4) + 0.01 * row
    return Responses((row // per_prompt).to(device), accepted.to(device), advantage.to(device))


def _factors(
    response: Tensor, k_in: int, k_out: int, device: torch.device | str, dtype: torch.dtype = torch.float64
) -> ModuleFactors:
    """Inputs with a common mean, token norms over two orders of magnitude; the same numbers on every device."""
    random = torch.Generator().manual_seed(k_in * 1000 + k_out)
    tokens = len(response)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    inputs = normal(tokens, k_in) * torch.linspace(1, 0.1, k_in) + 0.5
    output_grads = 1e-4 * normal(tokens, k_out) * normal(tokens, 1).exp()
    return ModuleFactors(inputs.to(device, dtype), output_grads.to(device, dtype), response.to(device))


def _ragged(device: torch.device | str) -> tuple[dict[str, ModuleFactors], Responses]:
    """Two modules of different shape; responses interleaved."""
    random = torch.Generator().manual_seed(0)
    response = torch.arange(len(RAGGED)).repeat_interleave(torch.tensor(RAGGED))
    response = response[torch.randperm(len(response), generator=random)]
    modules = {"q": _factors(response, 6, 5, device), "up": _factors(response, 4, 16, device)}
    return modules, _responses(3, 4, device)


def _rms(found: Tensor, exact: Tensor) -> float:
    """NaN at different tokens is without bound."""
    if not torch.equal(found.isnan(), exact.isnan()):
        return float("inf")
    kept = ~exact.isnan()
    return float((found.double() - exact)[kept].norm() / exact[kept].norm())


def _kinds() -> list[dict[str, Any]]:
    """Every combination of mode, source, solver, true leave-one-out and unit norm."""
    plain = combinations(hessian_mode=("identity",), token_unit_norm=(False, True), exclude_self_response=(False, True))
    solved = combinations(hessian_source=SOURCES, solver=("auto", "direct", "dual"), token_unit_norm=(False, True))
    iterated = combinations(hessian_source=SOURCES, solver=("pcg",), residual_tolerance=(1e-12,))
    return plain + [kind | own for kind in solved + iterated for own in OWN]


@pytest.mark.parametrize("agg", ["sum", "mean", "advantage"])
@pytest.mark.parametrize("scope", SCOPES)
def test_float64_scores_are_those_of_the_cpu(scope: str, agg: str) -> None:
    for kind in _kinds():
        config = _config(scope=scope, contrastive_agg=agg, precision="fp64", **kind)

        on_cpu, on_gpu = (score_batch(*_ragged(device), config).scores for device in ("cpu", DEVICE))

        assert on_gpu.device.type == DEVICE.type
        assert relative_error(on_gpu, on_cpu.numpy()) < 1e-9, name(kind)


@pytest.mark.parametrize("case", CASES)
def test_float64_scores_equal_the_definition(case: str) -> None:
    batch = CASES[case]()
    for kind in _kinds():
        for scope in ("per_prompt", "all_selected"):
            factors = factors_of(batch)

            result = score_module(
                factors, responses_of(batch), _config(scope=scope, precision="fp64", **kind), device=DEVICE
            )

            assert result.scores.device == factors.inputs.device
            assert relative_error(result.scores, truth(batch, scope=scope, **kind)) < 1e-9, f"{scope}-{name(kind)}"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_each_precision_keeps_its_bound(scope: str, source: str) -> None:
    response = torch.randint(0, 24, (20_000,), generator=torch.Generator().manual_seed(1))
    responses = _responses(4, 6, DEVICE)
    exact_rows, rows = (_factors(response, 24, 40, DEVICE, dtype) for dtype in (torch.float64, torch.float32))
    unit = [{"token_unit_norm": True, "solver": "direct", **own} for own in OWN]
    routes = [{"solver": solver, **own} for solver in ("auto", "direct", "dual") for own in OWN]
    iterated = [{"solver": "pcg", **own} for own in OWN] if source == "token" else []
    wrong = []
    for kind in [{"hessian_mode": "identity", **OWN[1]}, *routes, *iterated, *unit]:
        options = {"scope": scope, "hessian_source": source, **kind}
        exact = score_module(exact_rows, responses, _config(precision="fp64", **options)).scores
        for precision, bound in BOUND.items():
            result = score_module(rows, responses, _config(precision=precision, **options))
            if not _rms(result.scores, exact) < bound:
                wrong.append(f"{precision}-{name(kind)}: {_rms(result.scores, exact):.1e} by {result.route}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("k_in", "k_out"), [(1, 1), (1, 7), (9, 2), (7, 5), (16, 16), (5, 33), (66, 30), (17, 130), (64, 64)]
)
def test_no_width_is_special(k_in: int, k_out: int) -> None:
    response = torch.arange(12).repeat_interleave(torch.tensor(RAGGED)).repeat(4)
    rows, responses = _factors(response, k_in, k_out, DEVICE, torch.float32), _responses(3, 4, DEVICE)
    for scope in ("per_prompt", "all_selected"):
        for solver in ("auto", "direct", "dual", "pcg"):
            for source in SOURCES if solver != "pcg" else ("token",):
                for own in OWN:
                    options = {"scope": scope, "solver": solver, "hessian_source": source, **own}
                    exact = score_module(
                        rows, responses, _config(precision="fp64", residual_tolerance=1e-12, **options)
                    ).scores
                    for precision in BOUND:
                        scores = score_module(rows, responses, _config(precision=precision, **options)).scores
                        # an edge of the kernels would be off by far more than small batches are by rounding
                        assert _rms(scores, exact) < 10 * BOUND[precision], f"{precision}-{name(options)}"


@pytest.mark.parametrize("precision", ["fp64", *BOUND])
def test_a_batch_longer_than_any_block(precision: str) -> None:
    response = torch.randint(0, 12, (150_001,), generator=torch.Generator().manual_seed(2))
    rows, responses = _factors(response, 8, 12, DEVICE, torch.float32), _responses(3, 4, DEVICE)
    for scope in ("per_prompt", "all_selected"):
        exact = score_module(
            rows, responses, _config(precision="fp64", scope=scope, solver="direct", exclude_self_response=True)
        ).scores
        for solver in ("direct", "pcg"):
            options = {"precision": precision, "scope": scope, "solver": solver, "exclude_self_response": True}
            scores = score_module(rows, responses, _config(**options)).scores
            assert _rms(scores, exact) < {"fp64": 1e-8, **BOUND}[precision], name(options)


@pytest.mark.parametrize("scale", [1e-8, 1e5])
@pytest.mark.parametrize("precision", BOUND)
def test_no_precision_depends_on_the_scale_of_the_gradients(precision: str, scale: float) -> None:
    response = torch.arange(12).repeat_interleave(torch.tensor(RAGGED)).repeat(8)
    rows, responses = _factors(response, 16, 12, DEVICE, torch.float32), _responses(3, 4, DEVICE)
    scaled = replace(rows, output_grads=rows.output_grads * scale)
    for solver in ("auto", "direct", "dual", "pcg"):
        for own in OWN:
            exact = score_module(
                scaled, responses, _config(precision="fp64", residual_tolerance=1e-12, solver=solver, **own)
            ).scores
            scores = score_module(scaled, responses, _config(precision=precision, solver=solver, **own)).scores
            assert _rms(scores, exact) < 5 * BOUND[precision], f"{solver}-{name(own)}"


def _rounded(factors: ModuleFactors) -> ModuleFactors:
    """float16 rows between 1/2 and 1 at their largest, under one power of two a token."""
    halves, powers = [], []
    for rows in (factors.inputs, factors.output_grads):
        _, power = torch.frexp(rows.abs().amax(dim=1))
        halves.append(torch.ldexp(rows, -power[:, None]).half())
        powers.append(power)
    return ModuleFactors(halves[0], halves[1], factors.response, (powers[0] + powers[1]).to(torch.int8))


def test_rounded_rows_with_exponents_are_what_fast_would_round_to_itself() -> None:
    modules, responses = _ragged(DEVICE)
    rows = modules["up"]
    for kind in ({"hessian_mode": "identity"}, *combinations(hessian_source=SOURCES, solver=("direct", "dual", "pcg"))):
        for own in OWN if "solver" in kind else OWN[:2]:
            config = _config(precision="fast", **kind, **own)
            inside, stored = (score_module(f, responses, config).scores for f in (rows, _rounded(rows)))

            assert _rms(stored, inside.double()) < 1e-4, name(kind | own)


def test_exponents_scale_tokens() -> None:
    modules, responses = _ragged(DEVICE)
    plain = modules["q"]
    power = torch.randint(-20, 20, (plain.tokens,), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    scaled = replace(plain, output_grads=torch.ldexp(plain.output_grads, power[:, None]))
    split = replace(plain, exponent=power.to(torch.int8))
    for precision, bound in {"fp64": 1e-9, "fp32": 1e-4, "fast": 1e-2}.items():
        tolerance = 1e-12 if precision == "fp64" else -1.0
        for solver in ("direct", "dual", "pcg"):
            config = _config(
                precision=precision, solver=solver, exclude_self_response=True, residual_tolerance=tolerance
            )
            found, expected = (score_module(f, responses, config).scores for f in (split, scaled))
            assert _rms(found, expected.double()) < bound, f"{precision}-{solver}"


def test_the_same_batch_gives_the_same_scores_again() -> None:
    modules, responses = _ragged(DEVICE)
    for precision in ("fp64", *BOUND):
        for kind in _kinds():
            config = _config(precision=precision, **{**kind, "residual_tolerance": -1.0})
            first, second = (score_module(modules["up"], responses, config).scores for _ in range(2))
            assert torch.equal(first[~first.isnan()], second[~second.isnan()]), f"{precision}-{name(kind)}"


@pytest.mark.parametrize("precision", ["fp64", *BOUND])
@pytest.mark.parametrize("solver", ["direct", "dual", "pcg"])
def test_peak_bytes_cover_what_the_allocator_saw_and_not_much_more(solver: str, precision: str) -> None:
    response = torch.arange(24).repeat_interleave(250)
    rows, responses = _factors(response, 24, 40, DEVICE, torch.float32), _responses(4, 6, DEVICE)
    config = _config(scope="all_selected", solver=solver, precision=precision, exclude_self_response=True)
    score_module(rows, responses, config)  # what is kept from call to call is there
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()

    result = score_module(rows, responses, config)

    held = torch.cuda.max_memory_allocated() - before
    assert 0.9 * held - 2**21 <= result.peak_bytes <= 4 * held + 2**21


@pytest.mark.parametrize("precision", ["fp64", *BOUND])
@pytest.mark.parametrize("own", OWN, ids=name)
def test_many_modules_add_up_whatever_they_wait_for(own: dict[str, Any], precision: str) -> None:
    """More systems of one size than are solved together, sizes mixed, four groups a module."""
    response = torch.randint(0, 24, (3_000,), generator=torch.Generator().manual_seed(4))
    responses = _responses(4, 6, DEVICE)
    shapes = [(24, 20), (24, 20), (16, 16), (20, 24), (7, 5)] * 5
    wide, plain = (
        {
            f"{i}.q_proj": replace(rows, inputs=rows.inputs * (1 + i))
            for i, rows in enumerate(_factors(response, k_in, k_out, DEVICE, dtype) for k_in, k_out in shapes)
        }
        for dtype in (torch.float64, torch.float32)
    )
    options: dict[str, Any] = {"solver": "direct", "contrastive_agg": "sum", **own}
    exact = sum(score_module(one, responses, _config(precision="fp64", **options)).scores for one in wide.values())

    runs = [score_batch(plain, responses, _config(precision=precision, **options)) for _ in range(3)]

    assert isinstance(exact, Tensor)
    assert set(runs[0].routes) == set(runs[0].residuals) == set(plain)
    for run in runs:
        assert _rms(run.scores, exact) < {"fp64": 1e-6, **BOUND}[precision]  # factors were float32 before
        assert torch.equal(run.scores, runs[0].scores)


def test_a_damping_too_small_is_named_with_its_module() -> None:
    response = torch.arange(24).repeat_interleave(4)
    modules = {f"{i}.q_proj": _factors(response, 24, 20, DEVICE) for i in range(3)}
    config = _config(scope="all_selected", solver="direct", precision="fp64", reg_lambda=1e-300)

    with pytest.raises(ValueError, match=r"\d\.q_proj: reg_lambda"):
        score_batch(modules, _responses(4, 6, DEVICE), config)


def test_factors_on_the_host_are_scored_on_the_device_and_scores_come_back() -> None:
    modules, responses = _ragged("cpu")
    config = _config(precision="fp64", exclude_self_response=True)

    result = score_batch(modules, responses, config, device=DEVICE)

    assert result.scores.device.type == "cpu"
    torch.testing.assert_close(result.scores, score_batch(modules, responses, config).scores, equal_nan=True)


def test_every_phase_takes_time_of_the_device() -> None:
    modules, responses = _ragged(DEVICE)

    timing = score_batch(modules, responses, _config(exclude_self_response=True)).timing

    assert all(seconds > 0 for seconds in timing.values())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_similarity_is_that_of_the_cpu(scope: str, source: str) -> None:
    config = _config(scope=scope, hessian_source=source, precision="fp64")
    on_cpu, on_gpu = (similarity(*_ragged(device), config) for device in ("cpu", DEVICE))

    for matrix in ("raw_dot", "hinv_dot"):
        exact, found = (getattr(result, matrix).cpu().numpy() for result in (on_cpu, on_gpu))
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-9 * np.nanmax(np.abs(exact)))
