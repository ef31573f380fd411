from __future__ import annotations

import math

import pytest
import torch

from trainer_ext.bench.accuracy import exact_scores, relative_rms, score_error
from trainer_ext.bench.cases import named_cases
from trainer_ext.bench.synthetic import Batch, exact_factors

CASE = named_cases(["f32_per_prompt"])[0]


def test_relative_rms_is_over_the_tokens_that_have_a_score() -> None:
    wanted = torch.tensor([3.0, math.nan, 4.0])
    assert relative_rms(torch.tensor([3.0, 7.0, 4.0]), wanted) == 0
    assert relative_rms(torch.tensor([3.3, math.nan, 4.4]), wanted) == pytest.approx(0.1)


def test_a_score_that_is_missing_makes_the_error_nan() -> None:
    assert math.isnan(relative_rms(torch.tensor([3.0, math.nan]), torch.tensor([3.0, 4.0])))


def test_float32_is_near_float64_and_not_it(batch: Batch) -> None:
    exact = exact_factors(batch, 5, 4, seed=0)
    wanted = exact_scores(exact, batch.responses, CASE.config(factor=32, precision="fp64"))
    assert wanted.dtype == torch.float64
    error = score_error(exact, batch.responses, CASE.config(factor=32, precision="fp32"), wanted)
    assert 0 < error < 1e-4


def test_the_judge_is_float64(batch: Batch) -> None:
    with pytest.raises(ValueError, match="fp64, got fp32"):
        exact_scores(exact_factors(batch, 3, 2, seed=0), batch.responses, CASE.config(factor=32, precision="fp32"))
