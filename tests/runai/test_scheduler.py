"""The scheduler of the double: gangs, priorities, and who gives way."""

from __future__ import annotations

from tests.runai.scheduler import Node, Placed, Waiting, decide

NODES = (Node("a", "h100"), Node("b", "h100"), Node("c", "h200"))


def waiting(
    id_: str, *pods: int, pools: tuple[str, ...] = ("h100",), priority: int = 40, since: float = 0.0
) -> Waiting:
    return Waiting(id_, pods or (8,), pools, priority, since)


def placed(
    id_: str, node: str, priority: int = 40, preemptible: bool = True, since: float = 0.0, gpus: int = 8
) -> Placed:
    return Placed(id_, (node,), (gpus,), priority, preemptible, since)


def test_a_workload_of_eight_takes_a_whole_node() -> None:
    decision = decide(NODES, [placed("there", "a")], [waiting("new")])
    assert decision.starts == {"new": ("b",)}


def test_a_gang_starts_together_or_not_at_all() -> None:
    assert decide(NODES, [placed("there", "a")], [waiting("pair", 8, 8)]).starts == {}
    assert decide(NODES, [], [waiting("pair", 8, 8)]).starts == {"pair": ("a", "b")}


def test_the_first_pool_is_tried_first_and_no_other_than_those_named() -> None:
    full = [placed("1", "a", preemptible=False), placed("2", "b", preemptible=False)]
    assert decide(NODES, full, [waiting("new", pools=("h100", "h200"))]).starts == {"new": ("c",)}
    assert decide(NODES, full, [waiting("new", pools=("h100",))]).starts == {}


def test_the_more_important_goes_first_then_who_came_first() -> None:
    one_node = NODES[2:]
    late_but_high = waiting("high", pools=("h200",), priority=125, since=9.0)
    early = waiting("early", pools=("h200",), since=1.0)
    later = waiting("later", pools=("h200",), since=2.0)
    assert decide(one_node, [], [later, early, late_but_high]).starts == {"high": ("c",)}
    assert decide(one_node, [], [later, early]).starts == {"early": ("c",)}


def test_the_newest_of_the_least_important_gives_way() -> None:
    there = [placed("old", "a", since=1.0), placed("new", "b", since=2.0)]
    assert decide(NODES[:2], there, [waiting("urgent", priority=125)]).evicted == ("new",)


def test_nobody_gives_way_to_an_equal_or_for_nothing() -> None:
    there = [placed("1", "a"), placed("2", "b", preemptible=False)]
    assert decide(NODES[:2], there, [waiting("equal", priority=40)]).evicted == ()
    assert decide(NODES[:2], there, [waiting("pair", 8, 8, priority=125)]).evicted == ()


def test_small_workloads_share_a_node() -> None:
    there = [placed("half", "a", gpus=4)]
    assert decide(NODES[:1], there, [waiting("other", 4)]).starts == {"other": ("a",)}
    assert decide(NODES[:1], there, [waiting("more", 5)]).starts == {}


def test_a_workload_keeps_away_from_nodes_that_it_excludes() -> None:
    asks = Waiting("new", (8,), ("h100",), 40, 0.0, excluded=("a",))
    assert decide(NODES, [], [asks]).starts == {"new": ("b",)}
