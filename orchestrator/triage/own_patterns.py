"""The failure signatures that a sweep file adds to the built-in ones, and whether their examples hold."""

from __future__ import annotations

import re

from orchestrator.errors import SpecError
from orchestrator.spec_model import PatternSpec, SweepSpec
from orchestrator.triage import patterns
from orchestrator.triage.evidence import Role
from orchestrator.triage.patterns import Pattern, PatternBook


def book_of(spec: SweepSpec) -> PatternBook:
    """The built-in signatures with the sweep's own before them: whoever writes one means it."""
    return patterns.builtin().with_first(tuple(_pattern(own) for own in spec.triage.patterns))


def check_examples(spec: SweepSpec) -> None:
    """Try every example of the sweep's own patterns on the book that its logs will be read with.

    Raises:
        SpecError: a line that must match does not get the pattern's code, or one that must not does; or a code is taken.
    """
    book = book_of(spec)
    taken = {pattern.code for pattern in patterns.builtin().patterns}
    problems = []
    for index, own in enumerate(spec.triage.patterns):
        if own.code in taken:
            path = ("triage", "patterns", index, "code")
            problems.append(spec.error(path, f"`{own.code}` is a built-in pattern", "take another name"))
        problems += _wrong_examples(spec, book, index, own)
    if problems:
        raise SpecError.of_all(problems)


def _wrong_examples(spec: SweepSpec, book: PatternBook, index: int, own: PatternSpec) -> list[SpecError]:
    problems = []
    for place, line in enumerate(own.match):
        found = book.classify(line)
        if found is None or found.code != own.code:
            problems.append(spec.error(("triage", "patterns", index, "match", place), _why(book, own, line, found)))
    for place, line in enumerate(own.reject):
        found = book.classify(line)
        if found is not None and found.code == own.code:
            problems.append(
                spec.error(("triage", "patterns", index, "reject", place), "is recognised, and must not be")
            )
    return problems


def _why(book: PatternBook, own: PatternSpec, line: str, found: Pattern | None) -> str:
    """Why a line that must match does not."""
    if found is not None:
        return f"is taken by `{found.code}`, which stands before"
    if not any(literal in line for literal in own.literals):
        return "holds none of the pattern's literals"
    if re.search(own.regex, line):
        return f"is not recognised: from {line[len(book.without_advice(line)) :][:40]!r} on it counts as advice"
    return "is not recognised: the regex does not fit"


def _pattern(own: PatternSpec) -> Pattern:
    return Pattern(
        code=own.code,
        role=Role(own.role),
        verdict=own.verdict,
        literals=own.literals,
        regex=re.compile(own.regex),
        match=own.match,
        reject=own.reject,
    )
