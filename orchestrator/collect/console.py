"""Reads a job's console log in one pass: metric lines, failure signatures, and whether it breaks off.

Logs reach gigabytes and nearly every line says nothing. The log is therefore read in blocks, and only lines that contain
one of a few literal byte strings are looked at; searching those costs less than splitting the block into lines would.
Everything depends on the bytes alone, never on where a block ends, so a log that still grows can be fed as it comes.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from orchestrator.collect.card import CardMemory
from orchestrator.collect.line_marks import rank_of, time_of
from orchestrator.collect.samples import BEGINS, SampleFollower
from orchestrator.collect.step_lines import StepStore, parse_line
from orchestrator.collect.total_steps import TotalSteps
from orchestrator.collect.tracebacks import HEADER, Traceback, TracebackFollower
from orchestrator.model import Verdict
from orchestrator.triage import patterns
from orchestrator.triage.evidence import PLAIN_EXCEPTION, Role, Signature

BLOCK = 1 << 18
MAX_LINE = 1 << 20
"""Of a longer line the rest is not looked at."""
MAX_SIGNATURE_LINE = 1 << 14
"""Failure signatures are searched in so much of a line."""
MAX_TEXT = 600
"""Characters of a line that are kept as evidence."""
KEEP = 16
"""Signatures of one code that are kept from the beginning of the log, and as many from its end."""

_COLOUR = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_STEP = b"step:"
_HEADER = HEADER.encode()
_SAMPLE = BEGINS.encode()


@dataclass(frozen=True)
class ConsoleFacts:
    steps: dict[int, dict[str, float]]
    """step -> metric -> value, ascending. Step 0 is verl's validation before training."""
    signatures: tuple[Signature, ...]
    """By line."""
    lines: int
    bytes: int
    truncated: bool
    """The last line has no end."""
    restarted: bool
    """Steps began again after the highest one had been reached."""
    total_steps: int | None
    """How many steps the job said it would train."""
    card_mib: int | None = None
    """Physical memory of one card, where it was asked for and the log names it."""
    places: Mapping[int, str] = field(default_factory=dict)
    """step -> `file:line` of its first metrics."""


def parse_console(
    source: Path | BinaryIO,
    *,
    name: str = "console.log",
    book: patterns.PatternBook | None = None,
    find_card: bool = False,
    block: int = BLOCK,
) -> ConsoleFacts:
    """Read a whole log.

    Args:
        name: how the signatures call it.
        book: the signatures to look for; None: the built-in ones.
        find_card: look for the card as well, which costs a tenth more time.

    Raises:
        OSError: the file cannot be read.
    """
    parser = ConsoleParser(name, book, CardMemory() if find_card else None)
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            _feed_all(parser, file, block)
    else:
        _feed_all(parser, source, block)
    return parser.finish()


def _feed_all(parser: ConsoleParser, file: BinaryIO, block: int) -> None:
    while data := file.read(block):
        parser.feed(data)


class ConsoleParser:
    """Takes the log in pieces of any size.

    Memory: the metrics of every step, a bounded number of signatures, and one block.
    """

    def __init__(
        self, name: str = "console.log", book: patterns.PatternBook | None = None, card: CardMemory | None = None
    ) -> None:
        self._book = book or patterns.builtin()
        self._card = card
        self._name = name
        self._signatures = _SignatureStore(name)
        self._steps = StepStore()
        self._total = TotalSteps()
        self._tracebacks = TracebackFollower()
        self._samples = SampleFollower()
        self._literals = (_STEP, _HEADER, _SAMPLE, *self._book.literals)
        self._harmless_at = -1
        self._line = 1
        self._bytes = 0
        self._tail = b""
        self._skipping = False
        """The tail's line is longer than MAX_LINE; what comes until its end is dropped."""

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut:
            self._whole_lines(self._tail + data[:cut])
            self._tail, self._skipping = data[cut:], False
        elif not self._skipping:
            self._tail += data
        if len(self._tail) > MAX_LINE:
            self._tail, self._skipping = self._tail[:MAX_LINE], True

    def finish(self) -> ConsoleFacts:
        """The facts; the parser must not be fed afterwards."""
        truncated = bool(self._tail)
        if truncated:
            self._look_at_piece(self._tail[:MAX_LINE], unterminated=True)
        self._add_exceptions(self._tracebacks.close())
        return ConsoleFacts(
            steps=self._steps.metrics(),
            signatures=self._signatures.all(self._steps.lines()),
            lines=self._line - 1 + truncated,
            bytes=self._bytes,
            truncated=truncated,
            restarted=self._steps.restarted,
            total_steps=self._total.value,
            card_mib=self._card.mib if self._card else None,
            places={step: f"{self._name}:{line}" for step, line in self._steps.places().items()},
        )

    def _whole_lines(self, data: bytes) -> None:
        """Look at the lines of a piece that ends with a line end."""
        at = 0
        for start in self._candidates(data):
            at = self._follow(data, at, until=start)
            self._line += data.count(b"\n", at, start)
            at = self._one_line(data, start)
        at = self._follow(data, at, until=len(data))
        self._line += data.count(b"\n", at)

    def _candidates(self, data: bytes) -> list[int]:
        """Where the lines begin that contain any of the literals, ascending."""
        starts = set()
        card = self._card.literals if self._card else ()
        for literal in (*self._literals, *self._total.literals, *card):
            at = data.find(literal)
            while at >= 0:
                starts.add(data.rfind(b"\n", 0, at) + 1)
                end = data.find(b"\n", at)
                at = data.find(literal, end) if end >= 0 else -1
        return sorted(starts)

    def _follow(self, data: bytes, at: int, until: int) -> int:
        """While a traceback or a sample is open every line counts; returns where the first line begins that does not."""
        while at < until and (self._tracebacks.is_open or self._samples.is_open):
            at = self._one_line(data, at)
        return at

    def _one_line(self, data: bytes, start: int) -> int:
        """Look at the line that begins at `start`; returns where the next one begins."""
        end = data.find(b"\n", start)
        if end < 0:  # the piece ends with a carriage return: its line goes on
            self._look(data[start:])
            return len(data)
        self._look(data[start:end])
        self._line += 1
        return end + 1

    def _look(self, line: bytes) -> None:
        for piece in line.split(b"\r"):  # progress bars overwrite themselves
            self._look_at_piece(piece[:MAX_LINE])

    def _look_at_piece(self, raw: bytes, *, unterminated: bool = False) -> None:
        if not raw:
            return
        plain = _COLOUR.sub(b"", raw) if b"\x1b" in raw else raw
        if _STEP in plain:
            parsed = parse_line(plain.decode("utf-8", "replace"))
            self._steps.add(self._line, parsed.steps, unterminated=unterminated)
            text = parsed.rest[:MAX_SIGNATURE_LINE]
        else:
            text = plain[:MAX_SIGNATURE_LINE].decode("utf-8", "replace")
        self._total.look(text)
        if self._card:
            self._card.look(text)
        self._look_for_signatures(text)

    def _look_for_signatures(self, text: str) -> None:
        if self._samples.covers(self._line, text):
            return
        if HEADER in text:
            if self._line != self._harmless_at + 1:
                self._add_exceptions(self._tracebacks.begin(self._line, text))
            return
        if any(phrase in text for phrase in self._book.harmless_before_traceback):
            self._harmless_at = self._line
        ended = self._tracebacks.feed(self._line, text)
        self._add_exceptions(ended)
        if any(traceback.complete for traceback in ended) or self._tracebacks.quotes(text):
            return
        pattern = self._book.classify(text)
        if pattern is not None:
            self._signatures.add(pattern.code, pattern.role, pattern.verdict, self._line, text)

    def _add_exceptions(self, ended: list[Traceback]) -> None:
        for traceback in ended:
            pattern = self._book.classify_exception(traceback.text, traceback.where)
            said = (traceback.line, traceback.text, traceback.where, traceback.prefix)
            if pattern is None:
                self._signatures.add(PLAIN_EXCEPTION, Role.ROOT, Verdict.CODE_ERROR, *said)
            elif traceback.complete:  # what an incomplete one ends with was seen as a line of its own
                self._signatures.add(pattern.code, pattern.role, pattern.verdict, *said)


class _SignatureStore:
    """The first and the last signatures of each code: a log may repeat one a million times."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._first: dict[str, list[Signature]] = {}
        self._last: dict[str, deque[Signature]] = {}

    def add(
        self,
        code: str,
        role: Role,
        verdict: Verdict | None,
        line: int,
        text: str,
        where: str | None = None,
        prefix: str = "",
    ) -> None:
        readable = "".join(char if char.isprintable() else " " for char in text[:MAX_TEXT]).strip()
        marked = prefix + text
        rank, time = rank_of(marked), time_of(marked)
        signature = Signature(code, role, verdict, line, readable, where, file=self._file, rank=rank, time=time)
        first = self._first.setdefault(code, [])
        if len(first) < KEEP:
            first.append(signature)
        else:
            self._last.setdefault(code, deque(maxlen=KEEP)).append(signature)

    def all(self, step_lines: list[int]) -> tuple[Signature, ...]:
        """By line; `step_lines`, ascending, are the lines on which training steps were first seen."""
        kept = [
            *itertools.chain.from_iterable(self._first.values()),
            *itertools.chain.from_iterable(self._last.values()),
        ]
        kept.sort(key=lambda signature: signature.line)
        return tuple(
            replace(signature, steps_after=len(step_lines) - bisect.bisect_right(step_lines, signature.line))
            for signature in kept
        )
