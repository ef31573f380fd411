"""Failure signatures as data: loads and checks `patterns.yaml`, and names a line of a log.

Advice is cut off before a line is compared: torch prints what happened and what one might try in one line, and Ray lists
every cause that it can think of. Taking a guess for evidence sends a job to a larger and dearer node for nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import yaml

from orchestrator.model import Verdict
from orchestrator.triage.evidence import Role

_KEYS = frozenset({"code", "role", "verdict", "literals", "regex", "match", "reject"})
EXCEPTION = re.compile(r"(?:[a-z_]\w*\.)+[A-Z]\w*: |(?:[A-Z]\w*)?(?:Error|Exception|Interrupt)\b")
"""A line of a pattern's examples that is seen as the end of a traceback."""
_LISTS = ("prefilter", "advice", "harmless_before_traceback", "patterns")


@dataclass(frozen=True)
class Pattern:
    code: str
    role: Role
    verdict: Verdict | None
    literals: tuple[str, ...]
    """The regex fits only lines that contain one of these."""
    regex: re.Pattern[str]
    match: tuple[str, ...]
    """Lines that must get this code."""
    reject: tuple[str, ...]
    """Lines that must get no code at all."""
    where: re.Pattern[str] | None = None
    """Searched in the innermost frame of a traceback; a line that ends none does not fit then."""

    def fits(self, fact: str, where: str | None) -> bool:
        """Whether a line without its advice is this failure, given the frame that raised it."""
        if self.where is not None and not (where and self.where.search(where)):
            return False
        return self.regex.search(fact) is not None


@dataclass(frozen=True)
class PatternBook:
    patterns: tuple[Pattern, ...]
    """In order: the first that fits a line names it."""
    prefilter: tuple[str, ...]
    """A line without any of these cannot fit any pattern."""
    advice: re.Pattern[str]
    harmless_before_traceback: tuple[str, ...]

    @property
    def literals(self) -> tuple[bytes, ...]:
        """Lines without any of these say nothing that this book knows of."""
        return tuple(text.encode() for text in (*self.prefilter, *self.harmless_before_traceback))

    def classify(self, line: str) -> Pattern | None:
        """The pattern that fits a line without colour codes, or None; the end of a traceback: `classify_exception`."""
        if not any(word in line for word in self.prefilter):
            return None
        return self._first_fit(line, None)

    def classify_exception(self, text: str, where: str | None = None) -> Pattern | None:
        """The same for the last line of a traceback, which is one even where no word of `prefilter` is in it.

        Args:
            where: the innermost frame, `trainer.py:120 in fit`.
        """
        return self._first_fit(text, where)

    def _first_fit(self, line: str, where: str | None) -> Pattern | None:
        candidates = [pattern for pattern in self.patterns if any(text in line for text in pattern.literals)]
        if not candidates:
            return None
        fact = self.without_advice(line)
        return next((pattern for pattern in candidates if pattern.fits(fact, where)), None)

    def with_first(self, own: tuple[Pattern, ...]) -> PatternBook:
        """This book with somebody's own patterns before all others."""
        if not own:
            return self
        words = dict.fromkeys(literal for pattern in own for literal in pattern.literals)
        return replace(self, patterns=(*own, *self.patterns), prefilter=(*self.prefilter, *words))

    def without_advice(self, line: str) -> str:
        """The line up to the first phrase of advice."""
        found = self.advice.search(line)
        return line[: found.start()] if found else line


@functools.cache
def builtin() -> PatternBook:
    """The signatures that come with this package."""
    return load(resources.files(__package__).joinpath("patterns.yaml").read_text(encoding="utf-8"))


def load(text: str) -> PatternBook:
    """Parse and check signatures in the form of `patterns.yaml`.

    Raises:
        ValueError: says which pattern is wrong, and how.
    """
    data = yaml.safe_load(text)
    if not isinstance(data, dict) or set(data) != set(_LISTS) or not all(isinstance(data[key], list) for key in _LISTS):
        raise ValueError(f"expected exactly these lists: {', '.join(_LISTS)}")
    patterns = tuple(_pattern(entry) for entry in data["patterns"])
    codes = [pattern.code for pattern in patterns]
    if repeated := {code for code in codes if codes.count(code) > 1}:
        raise ValueError(f"codes used twice: {', '.join(sorted(repeated))}")
    for pattern in patterns:
        for line in pattern.match:
            if not (any(word in line for word in data["prefilter"]) or EXCEPTION.match(line)):
                raise ValueError(f"{pattern.code}: no word of `prefilter` in {line!r}")
    return PatternBook(
        patterns=patterns,
        prefilter=tuple(data["prefilter"]),
        advice=_compile("advice", "|".join(f"(?:{phrase})" for phrase in data["advice"])),
        harmless_before_traceback=tuple(data["harmless_before_traceback"]),
    )


def _pattern(entry: Mapping[str, Any]) -> Pattern:
    if not isinstance(entry, dict) or set(entry) - {"where"} != _KEYS:
        raise ValueError(f"a pattern needs exactly the keys {', '.join(sorted(_KEYS))}: {entry!r}")
    code = entry["code"]
    if not entry["match"] or not entry["reject"]:
        raise ValueError(f"{code}: needs at least one line that matches and one that does not")
    try:
        role, verdict = Role(entry["role"]), entry["verdict"] and Verdict(entry["verdict"])
    except ValueError as error:
        raise ValueError(f"{code}: {error}") from error
    if role is Role.ROOT and verdict is None:
        raise ValueError(f"{code}: a root needs a verdict")
    return Pattern(
        code=code,
        role=role,
        verdict=verdict,
        literals=tuple(entry["literals"]),
        regex=_compile(code, entry["regex"]),
        match=tuple(entry["match"]),
        reject=tuple(entry["reject"]),
        where=_compile(code, entry["where"]) if "where" in entry else None,
    )


def _compile(code: str, regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise ValueError(f"{code}: {error}") from error
