"""What a searched parameter may be, in the notation of Hydra's Optuna sweeper. Pure.

interval(0.0001, 0.1, log)      a number between two bounds, both included
int(32, 512, log)               a whole number; a third number is the step: int(8, 64, 8)
choice(per_prompt, 'a b', 3)    one of these values
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.model import Scalar

_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_ARGUMENT = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,'"()]*?))\s*(?:,|$)""")
_FORMS = "interval(low, high, log), int(low, high, step, log) or choice(value, ...)"


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included; `log`: even on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    def contains(self, value: Scalar) -> bool:
        return _is_number(value) and self.low <= float(value or 0) <= self.high

    def corners(self) -> tuple[Scalar, ...]:
        return (self.low, self.high)

    def values(self) -> None:
        """Without end."""

    def __str__(self) -> str:
        return f"interval({self.low!r}, {self.high!r}{', log' * self.log})"


@dataclass(frozen=True)
class Integers:
    """Whole numbers low, low + step, ... up to `high`; `log`: even on a logarithmic scale, and then the step is 1."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def contains(self, value: Scalar) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= int(value or 0) <= self.high and (int(value or 0) - self.low) % self.step == 0

    def corners(self) -> tuple[Scalar, ...]:
        return (self.low, self.high - (self.high - self.low) % self.step)

    def values(self) -> Sequence[Scalar]:
        return range(self.low, self.high + 1, self.step)

    def __str__(self) -> str:
        return f"int({self.low}, {self.high}{f', {self.step}' if self.step != 1 else ''}{', log' * self.log})"


@dataclass(frozen=True)
class Choice:
    """One of a few values, without an order."""

    options: tuple[Scalar, ...]

    def contains(self, value: Scalar) -> bool:
        return any(type(value) is type(option) and value == option for option in self.options)

    def corners(self) -> tuple[Scalar, ...]:
        return self.options

    def values(self) -> tuple[Scalar, ...]:
        return self.options

    def __str__(self) -> str:
        return f"choice({', '.join(_spelled(option) for option in self.options)})"


Domain = Interval | Integers | Choice


def parse(text: str) -> Domain:
    """Read one domain.

    Raises:
        ValueError: not one of the three forms, or bounds that hold nothing; for the user.
    """
    call = _CALL.fullmatch(text)
    if call is None:
        raise ValueError(f"`{text}` is not {_FORMS}")
    arguments = list(_arguments(call[2]))
    match call[1]:
        case "choice":
            return _choice(arguments)
        case "interval" | "int":
            return _range(call[1], arguments)
    raise ValueError(f"there is no {call[1]}(); write {_FORMS}")


def _arguments(inner: str) -> Iterator[Scalar]:
    """The values between the parentheses; unquoted ones mean what they would in YAML."""
    at = 0
    while at < len(inner.rstrip()):
        found = _ARGUMENT.match(inner, at)
        if found is None or found.end() == at:
            raise ValueError(
                f"cannot read `{inner[at:].strip()}`; put words with commas, quotes or parentheses in quotes"
            )
        quoted = found[1] if found[1] is not None else found[2]
        if quoted is not None:
            yield re.sub(r"\\(.)", r"\1", quoted)
        elif not found[3]:
            raise ValueError("has an empty place between its commas")
        else:
            yield _scalar(found[3])
        at = found.end()
    if inner.rstrip().endswith(","):
        raise ValueError("has an empty place between its commas")


def _scalar(word: str) -> Scalar:
    constants: dict[str, Scalar] = {"true": True, "false": False, "null": None}
    if word.lower() in constants:
        return constants[word.lower()]
    for kind in (int, float):
        try:
            number = kind(word)
        except ValueError:
            continue
        if not math.isfinite(number):
            raise ValueError(f"`{word}` is no number to search at")
        return number
    return word


def _choice(values: list[Scalar]) -> Choice:
    if not values:
        raise ValueError("choice() needs values")
    for index, value in enumerate(values):
        for other in values[:index]:  # Optuna's journal takes equal values for one, as Python does: 1, 1.0 and true
            if value == other:
                same = type(value) is type(other)
                raise ValueError(
                    f"choice() names {_spelled(value)} twice"
                    if same
                    else f"choice() cannot tell {_spelled(value)} from {_spelled(other)}; put one in quotes, or leave it out"
                )
    return Choice(tuple(values))


def _range(form: str, arguments: list[Scalar]) -> Interval | Integers:
    log = "log" in arguments
    numbers = [value for value in arguments if value != "log"]
    if bad := [value for value in numbers if not _is_number(value)]:
        raise ValueError(f"{form}() takes numbers and the word log, not {_spelled(bad[0])}")
    most = 2 if form == "interval" else 3
    if not 2 <= len(numbers) <= most or len(arguments) - len(numbers) > 1:
        raise ValueError(f"{form}() has {len(arguments)} arguments; write {_FORMS}")
    low, high = numbers[0], numbers[1]
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if low > high:
        raise ValueError(f"{form}() holds nothing: {low} is above {high}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic scale begins above zero, not at {low}")
    if form == "interval":
        return Interval(float(low), float(high), log)
    step = numbers[2] if len(numbers) == 3 else 1
    if not all(isinstance(number, int) for number in (low, high, step)) or not isinstance(step, int) or step < 1:
        raise ValueError("int() takes whole numbers, and a step of 1 or more")
    if log and step != 1:
        raise ValueError("int() takes a step or log, not both")
    return Integers(int(low), int(high), step, log)


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_word(text: str) -> bool:
    """Whether it stays text without quotes: `true` and `inf` do not."""
    try:
        return isinstance(_scalar(text), str)
    except ValueError:
        return False


def _spelled(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    if re.fullmatch(r"[A-Za-z_][\w./-]*", value, re.ASCII) and _is_word(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
