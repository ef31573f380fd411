from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer_ext.influence import ModuleFactors, Responses


def _factors(**changes: Any) -> ModuleFactors:
    fields = {"inputs": torch.ones(4, 3), "output_grads": torch.ones(4, 2), "response": torch.tensor([0, 0, 1, 1])}
    return ModuleFactors(**{**fields, **changes})


def _responses(**changes: Any) -> Responses:
    fields = {
        "group": torch.tensor([0, 0]),
        "accepted": torch.tensor([True, False]),
        "advantage": torch.tensor([1.0, -1.0]),
    }
    return Responses(**{**fields, **changes})


def test_sizes_are_read_off_the_tensors() -> None:
    factors = _factors()

    assert (factors.tokens, factors.k_in, factors.k_out) == (4, 3, 2)
    assert _responses().count == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": torch.ones(4)}, r"ModuleFactors.inputs: expected .* 2 dimension.* shape \(4,\)"),
        ({"inputs": torch.ones(4, 3, dtype=torch.int64)}, "ModuleFactors.inputs: expected floating point"),
        ({"output_grads": torch.ones(3, 2)}, r"one row per token in each field, got .*'output_grads': 3"),
        ({"output_grads": torch.ones(4, 0)}, "k_in and k_out must be positive, got 3 and 0"),
        ({"response": torch.zeros(4, dtype=torch.int32)}, "ModuleFactors.response: expected torch.int64"),
        ({"response": torch.zeros(4, 1, dtype=torch.int64)}, r"with 1 dimension, got .* shape \(4, 1\)"),
        ({"response": torch.zeros(4, dtype=torch.int64, device="meta")}, r"one device, got \['cpu', 'meta'\]"),
        (
            {"output_grads": torch.tensor([[1.0, 1], [1, 1], [1, float("nan")], [1, float("inf")]])},
            "ModuleFactors.output_grads: 2 of 8 values are not finite, the first in row 2",
        ),
    ],
)
def test_wrong_factors_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _factors(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": torch.tensor([0.0, 1.0])}, "Responses.group: expected torch.int64"),
        ({"accepted": torch.tensor([1, 0])}, "Responses.accepted: expected torch.bool"),
        ({"advantage": torch.tensor([1, 0])}, "Responses.advantage: expected floating point"),
        ({"advantage": torch.tensor([1.0])}, "one row per response in each field, got .*'advantage': 1"),
        ({"advantage": torch.tensor([1.0, float("inf")])}, "Responses.advantage: 1 of 2 values are not finite"),
    ],
)
def test_wrong_responses_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _responses(**changes)
