"""How far the fast answers are from the exact ones.

The judge is the engine's own float64 path on the unrounded factors (which the tests hold against brute force), on the
same device and at the full number of tokens: what rounding does depends on how many terms are summed. Every other
precision gets the factors in the form in which it stores them, so that the error of storing is part of the error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer_ext.bench.synthetic import stored_factors
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses, score_module

PRECISIONS = ("fast", "fp32")


def exact_scores(exact: ModuleFactors, responses: Responses, config: InfluenceConfig) -> Tensor:
    """Scores [T] of one module in float64, from factors that were not rounded; `config` has precision fp64.

    Raises:
        ValueError: another precision.
    """
    if config.precision != "fp64":
        raise ValueError(f"precision: the judge is fp64, got {config.precision}")
    return score_module(exact, responses, config).scores


def score_error(exact: ModuleFactors, responses: Responses, config: InfluenceConfig, wanted: Tensor) -> float:
    """rms relative score error of the config's precision, factors rounded as it stores them, against `wanted` [T]."""
    scores = score_module(stored_factors(exact, config.precision), responses, config).scores
    return relative_rms(scores, wanted)


def relative_rms(scores: Tensor, wanted: Tensor) -> float:
    """rms(scores - wanted) / rms(wanted) over the tokens that should have a score, in float64.

    NaN where one of them has none, or where there is none.
    """
    known = torch.isfinite(wanted)
    target = wanted[known].double()
    return float((scores[known].double() - target).norm() / target.norm())
