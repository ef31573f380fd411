"""verl's metric lines, `step:1 - actor/loss:0.07 - num_turns/min:np.int32(2) - ...`, wherever they stand in a line.

Other processes write into the same console, so a metric line may begin in the middle of a line, end in someone else's
words, or be followed by the next one without a line break. Keys contain no blanks; that is what tells a metric from prose.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# `training/global_step:1 - training/epoch:0` is a metric called global_step, not the beginning of a line
_START = re.compile(r"(?<![_/.\-])step:(\d{1,12}) - ")
_NUMBER = r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf|True|False)"
_VALUE = re.compile(rf"np\.\w+\(({_NUMBER})\)|np\.(True|False)_|({_NUMBER})")
_PAIR = re.compile(rf"([^\s:]\S*?):(np\.\w+\({_NUMBER}\)|np\.(?:True|False)_|{_NUMBER})(?![\w.])")
_WRAPPER = re.compile(rf"np\.\w+\(({_NUMBER})\)")
_SEPARATOR = " - "
_VALIDATION = ("val-", "val/")


@dataclass(frozen=True)
class StepLine:
    """What a piece of console text says about training steps, and everything else that stands in it."""

    steps: tuple[tuple[int, dict[str, float]], ...]
    """(step, metric -> value), in order."""
    rest: str


def parse_line(text: str) -> StepLine:
    """Take the metric lines out of a piece of console text without colour codes.

    Values that are not numbers are left out. True and False count as 1 and 0.
    """
    starts = list(_starts(text))
    if not starts:
        return StepLine((), text)
    noise = [text[: starts[0].start()]]
    steps = []
    ends = [start.start() for start in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=True):
        metrics = _take_metrics(text[start.end() : end], noise)
        if metrics:
            steps.append((int(start[1]), metrics))
    return StepLine(tuple(steps), _SEPARATOR.join(noise))


def _starts(text: str) -> Iterator[re.Match[str]]:
    at = text.find("step:")  # much faster than letting the regex search
    while at >= 0:
        if match := _START.match(text, at):
            yield match
        at = text.find("step:", at + 1)


def _take_metrics(text: str, noise: list[str]) -> dict[str, float]:
    """`key:value - key:value ...` as a mapping; tokens that are not just that are also appended to `noise`."""
    metrics = _clean_metrics(text)
    if metrics is not None:
        return metrics
    metrics = {}
    for token in text.split(_SEPARATOR):
        key, _, value = token.rpartition(":")
        try:
            if not key or " " in token:
                raise ValueError
            metrics[sys.intern(key)] = float(value)
        except ValueError:
            _take_unusual(token, metrics, noise)
    return metrics


def _clean_metrics(text: str) -> dict[str, float] | None:
    """The same for text without any noise, five times as fast: rewritten as JSON, whose parser is in C. None: not so clean."""
    if '"' in text or "\\" in text:
        return None
    bare = _WRAPPER.sub(r"\1", text).replace(_SEPARATOR, ',"')
    if " " in bare or "\t" in bare:
        return None
    try:
        metrics = json.loads('{"' + bare.replace(":", '":') + "}")
        if not set(map(type, metrics.values())) <= {int, float}:
            return None
        return dict(zip(map(sys.intern, metrics), map(float, metrics.values()), strict=True))
    except (ValueError, OverflowError):  # not JSON, or an integer of hundreds of digits
        return None


def _take_unusual(token: str, metrics: dict[str, float], noise: list[str]) -> None:
    """A number in numpy's words, one with something else behind it, or no metric at all."""
    pair = _PAIR.match(token)
    if pair and (value := _VALUE.fullmatch(pair[2])):
        metrics[sys.intern(pair[1])] = _number(value)
    if pair is None or pair.end() < len(token):
        noise.append(token)


def _number(match: re.Match[str]) -> float:
    text = match[1] or match[2] or match[3]
    return {"True": 1.0, "False": 0.0}[text] if text in ("True", "False") else float(text)


class StepStore:
    """The steps of one log as they come, in order or not.

    verl may log a step twice (training, then validation): the metrics are united, the later value wins.
    """

    def __init__(self) -> None:
        self.restarted = False
        """Steps began again after the highest one so far."""
        self._metrics: dict[int, dict[str, float]] = {}
        self._first_seen: dict[int, int] = {}
        self._highest = 0
        self._last_key: str | None = None

    def add(self, line: int, found: Sequence[tuple[int, dict[str, float]]], *, unterminated: bool = False) -> None:
        """Metric lines found on a line of the log. An unterminated one counts only as far as it is surely whole."""
        for index, (step, metrics) in enumerate(found):
            is_cut = unterminated and index == len(found) - 1
            whole = self._whole_part(metrics) if is_cut else metrics
            if whole:
                self._add(line, step, whole)
                self._last_key = next(reversed(metrics))

    def metrics(self) -> dict[int, dict[str, float]]:
        return dict(sorted(self._metrics.items()))

    def places(self) -> dict[int, int]:
        """step -> the line on which it was first seen."""
        return dict(sorted(self._first_seen.items()))

    def lines(self) -> list[int]:
        """Lines on which training steps were first seen, ascending."""
        return sorted(self._first_seen[step] for step in training_steps(self._metrics))

    def _whole_part(self, metrics: dict[str, float]) -> dict[str, float]:
        """A line without an end was written completely if it reaches the metric that ended the line before it.

        Its last number may still be cut, so that one is left out.
        """
        *whole, last = metrics
        return {key: metrics[key] for key in whole} if last == self._last_key else {}

    def _add(self, line: int, step: int, metrics: dict[str, float]) -> None:
        known = self._metrics.get(step)
        if step > self._highest:
            self._highest, self.restarted = step, False
        elif step > 0 and (known is None or _contradicts(known, metrics)):
            self.restarted = True
        self._metrics[step] = {**(known or {}), **metrics}
        self._first_seen.setdefault(step, line)


def training_steps(metrics: Mapping[int, Mapping[str, float]]) -> tuple[int, ...]:
    """The steps that were trained, ascending: step 0 is validation before training, and validation alone is no step."""
    return tuple(
        sorted(
            step
            for step, values in metrics.items()
            if step > 0 and any(not name.startswith(_VALIDATION) for name in values)
        )
    )


def _contradicts(known: Mapping[str, float], metrics: Mapping[str, float]) -> bool:
    """Whether a step was logged again with other values. The same line printed twice is no contradiction."""
    return any(
        known[name] != value and not (math.isnan(known[name]) and math.isnan(value))
        for name, value in metrics.items()
        if name in known
    )
