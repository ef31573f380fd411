"""The order in which things happened, from lines that arrive in another."""

from __future__ import annotations

from orchestrator.triage.evidence import Role, Signature, in_time


def sign(name: str, line: int, time: str | None = None, file: str = "console.log") -> Signature:
    return Signature(name, Role.ROOT, "code_error", line, name, file=file, time=time)


def order(*signatures: Signature) -> list[str]:
    return [signature.code for signature in in_time(signatures)]


def test_lines_without_stamps_keep_their_order() -> None:
    assert order(sign("a", 1), sign("b", 2), sign("c", 9)) == ["a", "b", "c"]


def test_a_stamp_that_is_earlier_than_those_before_it_counts() -> None:
    late, early = sign("late", 10, "11-21 10:04:00.000000"), sign("early", 20, "11-21 10:03:00.000000")
    assert order(late, early) == ["early", "late"]


def test_a_line_without_a_stamp_is_as_late_as_what_stands_before_it() -> None:
    stamped = sign("stamped", 10, "11-21 10:04:00.000000")
    assert order(stamped, sign("after", 11), sign("early", 20, "11-21 10:03:00.000000")) == [
        "early",
        "stamped",
        "after",
    ]


def test_a_stamp_of_another_clock_does_not_count() -> None:
    ours, hosts = sign("ours", 10, "11-21 10:04:00.000000"), sign("hosts", 20, "11-21 02:04:01.000000")
    assert order(ours, hosts) == ["ours", "hosts"]


def test_several_logs_are_put_in_order_by_their_stamps() -> None:
    first = sign("rank 0", 5, "11-21 10:05:00.000000", "rank0.log")
    second = sign("rank 3", 90, "11-21 10:03:00.000000", "rank3.log")
    assert order(first, second) == ["rank 3", "rank 0"]
