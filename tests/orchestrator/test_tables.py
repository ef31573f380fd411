from __future__ import annotations

from orchestrator.ledger import PointRow, View
from orchestrator.model import PointState
from orchestrator.tables import points_table


def test_a_point_that_was_stopped_before_it_ran_says_why_and_nothing_else() -> None:
    point = PointRow("s", "a", 0, "a", {}, {}, (), "hash", PointState.BLOCKED, "the budget is used up", False)
    table = points_table("s", View.of([point], []))
    verdict = next(column for column in table.columns if column.header == "verdict")
    assert list(verdict.cells) == ["the budget is used up"]
