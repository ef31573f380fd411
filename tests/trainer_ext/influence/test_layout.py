"""Whatever the order of tokens and the groups of responses, each response's rows are its tokens and nobody else's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer_ext.influence import InfluenceConfig, Responses
from trainer_ext.influence.contrast import contrast_matrix, response_weights
from trainer_ext.influence.layout import Layout, layout_of

CPU = torch.device("cpu")
PER_PROMPT = InfluenceConfig(scope="per_prompt", contrastive_agg="sum")


def _responses(group: list[int], accepted: list[bool]) -> Responses:
    return Responses(torch.tensor(group), torch.tensor(accepted), torch.ones(len(group)))


def _layout(response: Tensor, responses: Responses, config: InfluenceConfig = PER_PROMPT) -> Layout:
    return layout_of(response, responses, config, CPU)


@st.composite
def batches(draw: st.DrawFn, together: bool | None = None) -> tuple[Tensor, Responses]:
    """Up to 7 responses of up to 3 prompts; tokens in runs of one response (`together`), dealt out, or either."""
    count = draw(st.integers(1, 7))
    lengths = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    order = draw(st.permutations(range(count)))
    response = [row for row in order for _ in range(lengths[row])]
    if not (draw(st.booleans()) if together is None else together):
        response = list(draw(st.permutations(response)))
    group = draw(st.lists(st.integers(-1, 1), min_size=count, max_size=count))
    accepted = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return torch.tensor(response, dtype=torch.int64), _responses(group, accepted)


def _taking_part(response: Tensor, responses: Responses, per_prompt: bool) -> list[list[int]]:
    """The groups with both classes and at least one token, in the order of their labels."""
    labels = responses.group.tolist() if per_prompt else [0] * responses.count
    groups = [[row for row in range(responses.count) if labels[row] == label] for label in sorted(set(labels))]
    return [
        rows
        for rows in groups
        if len({bool(responses.accepted[row]) for row in rows}) == 2 and any((response == row).any() for row in rows)
    ]


@settings(max_examples=300, deadline=None)
@given(batches(), st.sampled_from(["per_prompt", "all_selected", "global"]))
def test_rows_of_a_response_are_its_tokens_in_their_order(batch: tuple[Tensor, Responses], scope: str) -> None:
    response, responses = batch
    config = InfluenceConfig.from_mapping({"scope": scope, "contrastive_agg": "sum"})

    layout = layout_of(response, responses, config, CPU)

    groups = _taking_part(response, responses, per_prompt=scope == "per_prompt")
    members = [row for rows in groups for row in rows]
    token_of_row = torch.arange(len(response)) if layout.order is None else layout.order
    assert (layout.rows, len(layout.spans), len(layout.groups)) == (len(token_of_row), len(members), len(groups))
    for (start, end), row in zip(layout.spans, members, strict=True):
        assert token_of_row[start:end].tolist() == (response == row).nonzero().flatten().tolist()
    owner = [members.index(row) if row in members else -1 for row in response[token_of_row].tolist()]
    assert layout.owner.tolist() == owner


@settings(max_examples=300, deadline=None)
@given(batches())
def test_rows_of_a_group_are_those_of_its_responses(batch: tuple[Tensor, Responses]) -> None:
    response, responses = batch

    layout = _layout(response, responses)

    first = 0
    for group, rows in zip(layout.groups, _taking_part(response, responses, per_prompt=True), strict=True):
        assert (group.responses.start, group.responses.stop) == (first, first + len(rows))
        first += len(rows)
        mine = [number for number in layout.owner.tolist() if group.responses.start <= number < group.responses.stop]
        assert layout.owner[group.tokens].tolist() == mine
        assert group.size == len(mine) > 0


@settings(deadline=None)
@given(batches(together=True))
def test_tokens_that_stand_together_are_worked_on_where_they_lie(batch: tuple[Tensor, Responses]) -> None:
    response, responses = batch

    layout = _layout(response, responses)

    assert layout.order is None
    assert layout.rows == len(response)


@settings(deadline=None)
@given(batches(together=True))
def test_tokens_that_stand_apart_are_brought_together(batch: tuple[Tensor, Responses]) -> None:
    response, responses = batch
    response = torch.cat([response, torch.arange(responses.count), torch.arange(responses.count)])
    split = bool((torch.unique_consecutive(response).bincount() > 1).any())  # one response alone cannot be split

    layout = _layout(response, responses)

    assert (layout.order is not None) is split
    if layout.order is not None:
        taking_part = [row for rows in _taking_part(response, responses, per_prompt=True) for row in rows]
        assert sorted(layout.order.tolist()) == [t for t, row in enumerate(response.tolist()) if row in taking_part]


def test_a_group_between_others_is_a_slice_and_one_around_another_is_not() -> None:
    responses = _responses([0, 1, 1, 0], [True, True, False, False])
    response = torch.tensor([0, 0, 1, 2, 2, 3])

    outer, inner = _layout(response, responses).groups

    assert inner.tokens == slice(2, 5)
    assert isinstance(outer.tokens, Tensor)
    assert outer.tokens.tolist() == [0, 1, 5]


def test_groups_without_contrast_or_token_take_no_part() -> None:
    group, accepted = [0, 0, 1, 1, 2, 2], [True, False, True, True, True, False]
    response = torch.tensor([2, 2, 0, 3])  # prompt 1 has one class, prompt 2 no token

    layout = _layout(response, _responses(group, accepted))

    assert [(g.tokens, g.size) for g in layout.groups] == [(slice(2, 3), 1)]
    assert layout.owner.tolist() == [-1, -1, 0, -1]


@pytest.mark.parametrize("response", [[], [0, 0]])
def test_a_batch_without_any_contrast_has_no_group(response: list[int]) -> None:
    layout = _layout(torch.tensor(response, dtype=torch.int64), _responses([0, 0], [True, True]))

    assert (layout.spans, layout.groups) == ((), ())
    assert layout.owner.tolist() == [-1] * len(response)
    assert [len(part) for part in layout.tiles(8)] == [0, 0, 0]


@pytest.mark.parametrize("excluded", [False, True])
def test_weights_of_all_groups_stand_block_by_block(excluded: bool) -> None:
    config = InfluenceConfig(contrastive_agg="mean", exclude_self_response=excluded)
    responses = _responses([4, 2, 4, 2, 4], [True, False, False, True, False])
    response = torch.tensor([0, 1, 2, 3, 4])

    layout = _layout(response, responses, config)

    blocks = []
    for rows in ([1, 3], [0, 2, 4]):
        weights = response_weights(responses.accepted[rows], responses.advantage[rows], config)
        assert weights is not None
        blocks.append(contrast_matrix(weights, responses.accepted[rows], config))
    assert torch.equal(layout.weights, torch.block_diag(*blocks))
    assert all(torch.equal(group.omega, block) for group, block in zip(layout.groups, blocks, strict=True))
    assert layout.group_of.tolist() == [0, 0, 1, 1, 1]


@settings(deadline=None)
@given(batches(), st.integers(1, 5))
def test_tiles_cover_every_response_once_and_cross_none(batch: tuple[Tensor, Responses], most: int) -> None:
    layout = _layout(*batch)

    start, end, number = layout.tiles(most)

    assert {part.dtype for part in (start, end, number)} == {torch.int32}
    assert ((end - start >= 1) & (end - start <= most)).all()
    covered = torch.full((layout.rows,), -1)
    for first, last, owner in zip(start.tolist(), end.tolist(), number.tolist(), strict=True):
        assert (covered[first:last] == -1).all()
        covered[first:last] = owner
    assert torch.equal(covered, layout.owner)


@settings(deadline=None)
@given(batches(), st.integers(1, 5))
def test_membership_adds_the_tiles_of_a_response(batch: tuple[Tensor, Responses], most: int) -> None:
    layout = _layout(*batch)
    start, end, _ = layout.tiles(most)

    tokens = layout.membership(most) @ (end - start).double()

    assert tokens.tolist() == [last - first for first, last in layout.spans]


@pytest.mark.parametrize("table", [Layout.tiles, Layout.membership])
def test_tables_are_made_once_for_each_length(table: Callable[[Layout, int], object]) -> None:
    layout = _layout(torch.tensor([0, 0, 0, 1]), _responses([0, 0], [True, False]))

    assert table(layout, 2) is table(layout, 2)
    assert [len(layout.tiles(most)[0]) for most in (1, 2, 3)] == [4, 3, 2]
