from __future__ import annotations

from pathlib import Path

from orchestrator.collect.tail import Tail


def test_only_whole_new_lines_are_given_and_each_of_them_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.new_lines() == []
    for text, lines in [(b"one\ntw", [b"one"]), (b"", []), (b"o\nthree\n", [b"two", b"three"]), (b"four", [])]:
        with path.open("ab") as file:
            file.write(text)
        assert tail.new_lines() == lines


def test_a_file_that_was_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    path.write_bytes(b"first\nsecond\n")
    tail.new_lines()
    path.write_bytes(b"again\n")
    assert tail.new_lines() == [b"again"]


def test_of_much_news_the_end_is_read_from_a_whole_line_on(tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    path.write_bytes(b"".join(b"line %05d\n" % n for n in range(1_000)))
    tail = Tail(path, most=35)
    assert tail.new_lines() == [b"line 00997", b"line 00998", b"line 00999"]
    with path.open("ab") as file:
        file.write(b"line 01000\n")
    assert tail.new_lines() == [b"line 01000"]
