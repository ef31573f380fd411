"""Every example of patterns.yaml, and that mistakes in such a file are named."""

from __future__ import annotations

import pytest
import yaml

from orchestrator.model import Verdict
from orchestrator.triage import patterns
from orchestrator.triage.evidence import Role

BOOK = patterns.builtin()
MATCHES = [(pattern.code, line) for pattern in BOOK.patterns for line in pattern.match if not pattern.where]
REJECTS = [line for pattern in BOOK.patterns for line in pattern.reject]


def look(line: str) -> patterns.Pattern | None:
    """As the console parser does: what ends a traceback needs no word of the prefilter."""
    return BOOK.classify_exception(line) if patterns.EXCEPTION.match(line) else BOOK.classify(line)


@pytest.mark.parametrize(("code", "line"), MATCHES)
def test_a_line_that_must_match_gets_its_code_and_no_other(code: str, line: str) -> None:
    found = look(line)
    assert found is not None
    assert found.code == code


@pytest.mark.parametrize("line", REJECTS)
def test_a_line_that_must_not_match_is_no_evidence_at_all(line: str) -> None:
    found = look(line)
    assert found is None, f"taken for {found.code}"


@pytest.mark.parametrize("line", [line for _, line in MATCHES])
def test_a_process_prefix_hides_no_signature(line: str) -> None:
    found = BOOK.classify(f"(WorkerDict pid=4121, ip=10.0.0.7) {line}")
    if any(word in line for word in BOOK.prefilter):
        assert found is not None
    else:
        assert patterns.EXCEPTION.match(line), (
            "Ray's prefix is cut off in front of a traceback's lines, and of no others"
        )


@pytest.mark.parametrize("line", [line for _, line in MATCHES])
def test_the_same_words_as_advice_are_no_evidence(line: str) -> None:
    assert BOOK.classify(f"Some common causes include: {line}") is None


def test_a_fact_before_advice_in_one_line_stays_evidence() -> None:
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB. This may be caused by fragmentation."
    assert BOOK.without_advice(line).endswith("Tried to allocate 2 GiB. ")
    found = BOOK.classify(line)
    assert found is not None
    assert found.verdict is Verdict.GPU_OOM


def test_a_pattern_may_ask_for_the_frame_that_raised() -> None:
    line = "RuntimeError: CUDA error: out of memory"
    found = [BOOK.classify_exception(line, where) for where in ("pin_memory.py:57 in pin_memory", "a.py:3 in f", None)]
    assert [pattern and pattern.code for pattern in found] == ["pinned_memory", "cuda_oom", "cuda_oom"]


def test_every_root_has_a_verdict_and_codes_are_unique() -> None:
    codes = [pattern.code for pattern in BOOK.patterns]
    assert len(set(codes)) == len(codes)
    assert all(pattern.verdict is not None for pattern in BOOK.patterns if pattern.role is Role.ROOT)


ENTRY = {
    "code": "x",
    "role": "root",
    "verdict": "gpu_oom",
    "literals": ["boom"],
    "regex": "boom",
    "match": ["boom"],
    "reject": ["calm"],
}


def book(**changes: object) -> str:
    entries = [{**ENTRY, **changes}]
    return yaml.safe_dump(
        {"prefilter": ["boom"], "advice": ["maybe"], "harmless_before_traceback": [], "patterns": entries}
    )


def test_a_book_of_ones_own_is_read() -> None:
    own = patterns.load(book())
    assert own.classify("it went boom") is own.patterns[0]
    assert own.classify("maybe it went boom") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "villain"}, "x: 'villain' is not a valid Role"),
        ({"verdict": "bad_luck"}, "x: 'bad_luck' is not a valid Verdict"),
        ({"verdict": None}, "x: a root needs a verdict"),
        ({"regex": "("}, "x: missing \\)"),
        ({"match": []}, "x: needs at least one line that matches"),
        ({"reject": []}, "x: needs at least one line that matches and one that does not"),
        ({"match": ["bang"]}, "x: no word of `prefilter` in 'bang'"),
        ({"colour": "red"}, "needs exactly the keys"),
    ],
)
def test_a_mistake_in_a_book_names_the_pattern(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patterns.load(book(**changes))


def test_a_book_without_its_lists_is_refused() -> None:
    with pytest.raises(ValueError, match="expected exactly these lists"):
        patterns.load("patterns: []")
