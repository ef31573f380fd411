"""Exchanges between ranks, on groups that are not all processes; and errors, which reach every rank and no further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.trainer_ext.influence.materialised import normal
from tests.trainer_ext.influence.over_ranks import RankPool
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.ranks import Ranks, RowsOfAllRanks

LAST_TWO = (1, 2)
"""Processes of a group whose ranks are 0 and 1."""


def _sum_and_largest(group: dist.ProcessGroup | None, _: torch.device, own: Tensor) -> Any:
    ranks = Ranks(group)
    return ranks.sum_at(own.clone(), 1), ranks.maximum(own.clone()), ranks.all_gather(own), ranks.broadcast(own, 1)


def test_sums_and_values_are_those_of_the_group(pool: RankPool) -> None:
    own = [torch.tensor([1.0, -2.0]), torch.tensor([10.0, -20.0])]

    (_, *first), (total, *second) = pool.ask(_sum_and_largest, own, LAST_TWO)

    assert total.tolist() == [11.0, -22.0]
    for largest, gathered, told in (first, second):
        assert largest.tolist() == [10.0, -2.0]
        assert gathered.tolist() == [[1.0, -2.0], [10.0, -20.0]]
        assert told.tolist() == [10.0, -20.0]


def _there_and_back(group: dist.ProcessGroup | None, _: torch.device, question: tuple[Tensor, list[int], int]) -> Any:
    rows, counts, rank = question
    ranks = Ranks(group)
    gathered = ranks.gather_rows(rows, counts, rank)
    return gathered, ranks.scatter_rows(None if gathered is None else 2 * gathered, counts, rows, rank)


@pytest.mark.parametrize("counts", [[2, 1, 3], [0, 3, 0], [1, 0, 2]])
@pytest.mark.parametrize("rank", [0, 2])
def test_rows_meet_on_one_rank_and_go_back(pool: RankPool, counts: list[int], rank: int) -> None:
    rows = normal(sum(counts), 4)

    answers = pool.ask(_there_and_back, [(part, counts, rank) for part in rows.split(counts)])

    for number, ((gathered, back), own) in enumerate(zip(answers, rows.split(counts), strict=True)):
        assert torch.equal(back, 2 * own)
        assert torch.equal(gathered, rows) if number == rank else gathered is None


def _numbers(group: dist.ProcessGroup | None, _: torch.device, own: list[int]) -> list[int]:
    return Ranks(group).numbers(own, 1)


def test_integers_keep_all_their_digits(pool: RankPool) -> None:
    assert pool.ask(_numbers, [[0, 0], [2**62 + 1, -5]], LAST_TWO) == [[2**62 + 1, -5]] * 2


# errors


@dataclass(frozen=True)
class Trouble:
    """What goes wrong on a rank."""

    error: Exception | None = None
    about: str = ""


def _troubled(group: dist.ProcessGroup | None, _: torch.device, trouble: Trouble) -> Any:
    """Two pieces of work with a collective between them, and an agreement; then the same without any trouble."""
    ranks = Ranks(group)

    def work(error: Exception | None) -> float:
        if error is not None:
            raise error
        return 1.0

    told: list[str] = []
    for error in (trouble.error, None):
        try:
            first = ranks.attempt(0.0, trouble.about, work, error)
            ranks.all_gather(torch.tensor([first]))
            told.append(str(ranks.each("", work, None)))
        except Exception as raised:
            told.append(f"{type(raised).__name__}: {raised}")
    return told


@pytest.mark.parametrize(
    ("trouble", "own", "others"),
    [
        (Trouble(ValueError("bad"), "q_proj"), "ValueError: q_proj: bad", "ValueError: rank 1: q_proj: bad"),
        (Trouble(ValueError("bad")), "ValueError: bad", "ValueError: rank 1: bad"),
        (Trouble(OSError("gone"), "q_proj"), "OSError: gone", "RuntimeError: rank 1: gone"),
        (Trouble(torch.OutOfMemoryError("full")), "OutOfMemoryError: full", "RuntimeError: rank 1: full"),
    ],
)
def test_an_error_of_one_rank_is_raised_on_all_and_then_forgotten(
    pool: RankPool, trouble: Trouble, own: str, others: str
) -> None:
    fine = Trouble()

    assert pool.ask(_troubled, [fine, trouble, fine]) == [[others, "1.0"], [own, "1.0"], [others, "1.0"]]


def test_of_two_errors_each_rank_raises_its_own_and_the_others_that_of_the_first(pool: RankPool) -> None:
    answers = pool.ask(_troubled, [Trouble(), Trouble(OSError("a")), Trouble(ValueError("b"))])

    assert [told for told, _ in answers] == ["RuntimeError: rank 1: a", "OSError: a", "ValueError: b"]


def _second_attempt(group: dist.ProcessGroup | None, _: torch.device, failing: bool) -> Any:
    ranks, done = Ranks(group), []
    ranks.attempt(None, "", [0].index, 1 if failing else 0)
    ranks.attempt(None, "", done.append, "second")
    try:
        ranks.agree()
    except ValueError:
        return done
    return None


def test_after_an_error_a_rank_attempts_nothing_more_until_it_is_raised(pool: RankPool) -> None:
    assert pool.ask(_second_attempt, [True, False], LAST_TWO) == [[], ["second"]]


def _member_of(*_: Any) -> str:
    other = dist.new_group([0])
    try:
        return str(Ranks(other).size)
    except ValueError as error:
        return str(error)


def test_a_process_outside_the_group_is_told(pool: RankPool) -> None:
    inside, *outside = pool.ask(_member_of, [None] * 3)

    assert inside == "1"
    assert all(told.startswith("group: this process is not a member") for told in outside)


# products with H


class _Unreadable(RowsOfAllRanks):
    """Rows of a rank that runs out of memory."""

    def _own(self, *_: Tensor | None) -> Tensor | None:
        raise torch.OutOfMemoryError("no memory for products")


@dataclass(frozen=True)
class Share:
    """What a rank has of the rows, and the question of the one that leads."""

    rows: TokenRows
    first: int
    directions: Tensor
    without: Tensor | None
    fails: bool = False


LEADER, DAMPING = 1, torch.tensor(0.25, dtype=torch.float64)


def _product(group: dist.ProcessGroup | None, _: torch.device, share: Share) -> Any:
    ranks = Ranks(group)
    kind = _Unreadable if share.fails else RowsOfAllRanks
    rows = kind.of(share.rows, ranks, LEADER, share.first)
    answer = None
    if ranks.rank == LEADER:
        answer = [rows.apply(share.directions.clone(), DAMPING, share.without) for _ in range(2)]
        rows.dismiss()
    else:
        rows.serve()
    try:
        ranks.agree()
    except (RuntimeError, torch.OutOfMemoryError) as error:
        return str(error), answer
    return "", answer


def _shares(without: Tensor | None, failing: int | None = None) -> tuple[TokenRows, Tensor, list[Share]]:
    """All rows as one rank would have them, directions, and three ranks' shares: six responses, the second without any."""
    owner = torch.tensor([0, 0, 1, 2, 2, 3, 4, 5, 5, 5])
    whole = TokenRows(normal(10, 4), normal(10, 3, seed=1), owner)
    directions = normal(6, 12, seed=2)
    tokens = [slice(0, 3), slice(3, 3), slice(3, 10)]
    shares = [
        Share(
            TokenRows(whole.large[at], whole.small[at], owner[at] - first), first, directions, without, rank == failing
        )
        for rank, (at, first) in enumerate(zip(tokens, (0, 2, 2), strict=True))
    ]
    return whole, directions, shares


@pytest.mark.parametrize("without", [None, torch.tensor([0, 1, 2, 5, 4, 3])])
def test_products_are_those_with_the_rows_of_all_ranks(pool: RankPool, without: Tensor | None) -> None:
    whole, directions, shares = _shares(without)

    answers = pool.ask(_product, shares)

    expected = whole.apply(directions, DAMPING, without)
    for product in answers[LEADER][1]:
        torch.testing.assert_close(product, expected, rtol=1e-13, atol=1e-13)
    assert [error for error, _ in answers] == [""] * 3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_cannot_make_a_product_spoils_it_and_ends_it_for_all(pool: RankPool, failing: int) -> None:
    answers = pool.ask(_product, _shares(None, failing)[2])

    assert all(product.isnan().all() for product in answers[LEADER][1])
    for rank, (error, _) in enumerate(answers):
        assert error == ("" if rank == failing else f"rank {failing}: ") + "no memory for products"
