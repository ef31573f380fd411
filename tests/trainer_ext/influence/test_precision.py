"""What `auto` stands for, and how far each precision goes."""

from __future__ import annotations

import pytest
import torch

from trainer_ext.influence import InfluenceConfig
from trainer_ext.influence.precision import PRECISIONS, resolve, score_dtype, tolerance


@pytest.mark.parametrize(("device", "expected"), [("cpu", "fp32"), ("cuda", "fast"), ("cuda:1", "fast")])
def test_auto_is_fast_on_a_gpu_alone(device: str, expected: str) -> None:
    assert resolve("auto", device) == expected
    assert resolve("auto", torch.device(device)) == expected


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_given_precision_is_kept_on_every_device(precision: str, device: str) -> None:
    assert resolve(precision, device) == precision


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision: 'half' is not one of auto, fp64, fp32, fast"):
        resolve("half", "cpu")


def test_a_given_tolerance_goes_before_that_of_the_precision() -> None:
    for precision in PRECISIONS:
        assert tolerance(InfluenceConfig(residual_tolerance=0.01), precision) == 0.01


@pytest.mark.parametrize("given", [0.0, -1.0])
def test_the_tolerance_is_that_of_the_precision(given: float) -> None:
    config = InfluenceConfig(residual_tolerance=given)

    assert [tolerance(config, precision) for precision in PRECISIONS] == [1e-12, 1e-6, 3e-4]


def test_true_leave_one_out_with_fast_goes_ten_times_further() -> None:
    config = InfluenceConfig(true_loo=True, exclude_self_response=True)

    assert [tolerance(config, precision) for precision in PRECISIONS] == [1e-12, 1e-6, pytest.approx(3e-5)]


def test_response_source_is_solved_to_the_end_in_every_precision() -> None:
    config = InfluenceConfig(hessian_source="response")

    assert {tolerance(config, precision) for precision in PRECISIONS} == {1e-12}


def test_scores_are_float64_with_fp64_alone() -> None:
    assert [score_dtype(precision) for precision in PRECISIONS] == [torch.float64, torch.float32, torch.float32]
