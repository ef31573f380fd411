"""What the trace needs to know of responses, on small jagged batches."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer_ext.influence import InfluenceConfig, Responses
from trainer_ext.verl_plugin.responses import (
    acceptance,
    contrasted,
    first_tokens,
    group_numbers,
    leading_response_tokens,
    per_response,
    predicting_positions,
    row_numbers,
)


def jagged(rows: list[list[float]], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def test_the_reward_functions_own_verdict_goes_before_the_threshold() -> None:
    extra = [{"reward_extra_info": {"acc": 0.0}}, {"reward_extra_info": {}}, {}, {"reward_extra_info": {"acc": True}}]
    accepted = acceptance(torch.tensor([1.0, 0.6, 0.5, 0.0]), extra, threshold=0.5)
    assert accepted.tolist() == [False, True, False, True]


def test_responses_of_one_prompt_share_a_number() -> None:
    assert group_numbers(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def test_advantages_are_read_off_each_rows_first_token() -> None:
    assert first_tokens(jagged([[1.5, 1.5], [-2.0], [0.0, 0.0, 0.0]])).tolist() == [1.5, -2.0, 0.0]


def test_rows_without_a_token_of_the_model_are_padding() -> None:
    assert row_numbers(jagged([[1, 1], [0], [0, 1], [0, 0]])).tolist() == [0, -1, 1, -1]


def test_only_groups_with_both_kinds_have_a_contrast() -> None:
    responses = Responses(
        group=torch.tensor([0, 0, 1, 1]),
        accepted=torch.tensor([True, False, True, True]),
        advantage=torch.tensor([1.0, -1.0, 0.0, 0.0]),
    )
    assert contrasted(responses, InfluenceConfig(scope="per_prompt")).tolist() == [True, True, False, False]
    assert contrasted(responses, InfluenceConfig(scope="all_selected")).all()


def test_the_first_tokens_that_the_model_wrote_are_chosen() -> None:
    mask = jagged([[1, 0, 1, 1], [1]])
    assert [t.tolist() for t in leading_response_tokens(mask, -1)] == [[0, 2, 3], [0]]
    assert [t.tolist() for t in leading_response_tokens(mask, 2)] == [[0, 2], [0]]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4),
    st.booleans(),
)
def test_positions_point_at_the_token_before_the_one_predicted(shapes: list[tuple[int, int]], packed: bool) -> None:
    """Lay token numbers out as the pass does, then look them up: token t of response b must follow its position."""
    lengths = torch.tensor([prompt + response for prompt, response in shapes])
    responses = torch.tensor([response for _, response in shapes])
    tokens = [torch.arange(response) for _, response in shapes]
    positions = predicting_positions(lengths, responses, tokens, packed)
    rows = [[(b, i) for i in range(int(n))] for b, n in enumerate(lengths)]
    width = int(lengths.max())
    flat = [cell for row in rows for cell in (row if packed else row + [None] * (width - len(row)))]
    expected = [(b, prompt + t - 1) for b, (prompt, response) in enumerate(shapes) for t in range(response)]
    assert [flat[position] for position in positions.tolist()] == expected


def test_values_return_to_their_rows_and_padding_rows_stay_empty() -> None:
    rows = torch.tensor([0, -1, 1])
    values = per_response(
        torch.tensor([10.0, 20.0, 30.0]),
        response=torch.tensor([0, 1, 1]),
        token=torch.tensor([1, 0, 1]),
        rows=rows,
        lengths=[3, 1, 2],
        empty=-1.0,
    )
    assert [row.tolist() for row in values.unbind()] == [[-1.0, 10.0, -1.0], [-1.0], [20.0, 30.0]]
