from __future__ import annotations

from trainer_ext.bench.failures import Failures


def test_an_error_becomes_a_line_and_the_next_measurement_runs() -> None:
    told: list[str] = []
    failures = Failures(told.append)
    with failures.noted("gate"):
        raise ValueError("no room\nand more")
    with failures.noted("down"):
        pass
    assert failures.lines == ["gate: ValueError: no room"]
    assert "test_failures.py" in told[0]


def test_an_error_without_words_is_named_by_its_type() -> None:
    failures = Failures(lambda _: None)
    with failures.noted("gate"):
        raise MemoryError
    assert failures.lines == ["gate: MemoryError: no message"]
