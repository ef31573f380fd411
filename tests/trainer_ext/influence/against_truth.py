"""Between the oracle's cases and the engine: builds what the engine takes, and judges what it gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from tests.truth.brute_force import Floats, Integers, outer_products, token_influence
from tests.truth.cases import Case
from trainer_ext.influence import InfluenceConfig, ModuleFactors, ModuleResult, Responses, score_module

Options = dict[str, Any]

_ORACLE_OPTIONS = (
    "hessian_mode",
    "hessian_source",
    "scope",
    "contrastive_agg",
    "exclude_self_response",
    "leave_one_out",
    "reg_lambda",
    "true_loo",
    "token_unit_norm",
)
_ENGINE_OPTIONS = ("solver", "precision", "residual_tolerance")


def combinations(**axes: tuple[Any, ...]) -> list[Options]:
    """Every choice of one value an axis."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def name(options: Options) -> str:
    """Options as a test's name, or in a failure's message."""
    return "-".join(f"{key}={value}" if isinstance(value, bool) else str(value) for key, value in options.items())


def factors_of(case: Case, dtype: torch.dtype = torch.float64) -> ModuleFactors:
    return ModuleFactors(
        inputs=torch.from_numpy(case.inputs).to(dtype),
        output_grads=torch.from_numpy(case.output_grads).to(dtype),
        response=torch.from_numpy(case.response),
    )


def responses_of(case: Case) -> Responses:
    return Responses(
        group=torch.from_numpy(case.group),
        accepted=torch.from_numpy(case.accepted),
        advantage=torch.from_numpy(case.advantage),
    )


@cache
def _config(options: tuple[tuple[str, Any], ...]) -> InfluenceConfig:
    return InfluenceConfig(**dict(options))


def config_of(**options: Any) -> InfluenceConfig:
    """The config of these options; one for all that ask for the same, since checking one takes as long as a score."""
    return _config(tuple(sorted(options.items())))


def score(case: Case, **options: Any) -> ModuleResult:
    """The engine's answer, in float64 unless a precision is given."""
    return score_module(factors_of(case), responses_of(case), config_of(**{"precision": "fp64", **options}))


def truth(case: Case, gradients: Floats | None = None, **options: Any) -> Floats:
    """The oracle's answer [T]; `gradients` [T, D] in place of those of the case."""
    config = config_of(**options)
    return token_influence(
        outer_products(case.inputs, case.output_grads) if gradients is None else gradients,
        case.response,
        case.group,
        case.accepted,
        case.advantage,
        **{option: getattr(config, option) for option in _ORACLE_OPTIONS},
    )


def relative_error(found: torch.Tensor, expected: Floats, blocks: Integers | None = None) -> float:
    """Largest |difference| over the largest |expected|, the worst of all blocks.

    NaN at different tokens is an error without bound. Where all that is expected of a block is zero, so must be what
    is found.

    Args:
        blocks: [T] labels; tokens of one label are judged together. None: all together.
    """
    scores = found.double().cpu().numpy()
    if scores.shape != expected.shape or not np.array_equal(np.isnan(scores), np.isnan(expected)):
        return float("inf")
    blocks = np.zeros(len(expected), dtype=np.int64) if blocks is None else blocks
    return max((_block_error(scores[blocks == b], expected[blocks == b]) for b in np.unique(blocks)), default=0.0)


def _block_error(found: Floats, expected: Floats) -> float:
    finite = ~np.isnan(expected)
    error = np.abs(found[finite] - expected[finite]).max(initial=0.0)
    size = np.abs(expected[finite]).max(initial=0.0)
    return float(error / size) if size > 0 else float("inf" if error > 0 else 0.0)


def rms_error(found: torch.Tensor, expected: Floats) -> float:
    """Root mean square of the difference over that of what is expected; NaN at different tokens is without bound."""
    scores = found.double().cpu().numpy()
    if not np.array_equal(np.isnan(scores), np.isnan(expected)):
        return float("inf")
    return float(np.sqrt(np.nanmean((scores - expected) ** 2) / np.nanmean(expected**2)))


def disagreements(case: Case, every: list[Options], tolerance: float) -> Iterator[str]:
    """One line for each of the options with which the engine's float64 answer is not the oracle's.

    Prompts are judged one by one where they are scored one by one.
    """
    known: dict[str, Floats] = {}
    gradients = outer_products(case.inputs, case.output_grads)
    for options in every:
        asked = {key: value for key, value in options.items() if key not in _ENGINE_OPTIONS}
        if asked["scope"] == "global":
            asked["scope"] = "all_selected"  # one rank
        if name(asked) not in known:
            known[name(asked)] = truth(case, gradients, **asked)
        expected = known[name(asked)]
        try:
            result = score(case, **options)
        except Exception as failure:
            failure.add_note(f"with {name(options)}")
            raise
        prompts = case.group[case.response] if asked["scope"] == "per_prompt" else None
        error = relative_error(result.scores, expected, prompts)
        if not error < tolerance:
            yield f"{name(options)}: relative error {error:.1e} by route {result.route}, residual {result.residual}"
