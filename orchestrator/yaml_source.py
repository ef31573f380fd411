"""YAML with line numbers: plain data, and for every key and item the place where it was written.

Like PyYAML's safe loader but for three things, in which it agrees with OmegaConf: a key twice in one mapping is
refused, `1e-5` is a number, and dates stay text. Footgun kept from YAML 1.1: unquoted `yes`, `no`, `on` and `off` are
booleans.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import SpecError

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of the document."""

COMMAND_LINE = "command line"

_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*)?(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
_DATE = "tag:yaml.org,2002:timestamp"

MAX_DEPTH = 30
MAX_VALUES = 200_000
"""Bounds against anchors that contain themselves or multiply."""


@dataclass(frozen=True)
class Mark:
    """Where a value was written."""

    file: Path | str
    line: int | None = None


@dataclass
class Source:
    """Plain data with the place of each of its parts."""

    data: dict[str, Any]
    marks: dict[KeyPath, Mark] = field(default_factory=dict)

    def put(self, path: KeyPath, value: Any, mark: Mark) -> None:
        """Set one value, creating the mappings above it; what was below it is forgotten.

        Raises:
            KeyError: something above it is not a mapping; the argument is the path of that.
        """
        target: Any = self.data
        for depth, key in enumerate(path[:-1], start=1):
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
            if not isinstance(target, dict):
                raise KeyError(path[:depth])
        target[path[-1]] = value
        self.marks = {known: at for known, at in self.marks.items() if known[: len(path)] != path}
        self.marks[path] = mark

    def graft(self, path: KeyPath, other: Source) -> None:
        """Put another document in the place of one value, keeping that document's own marks."""
        mark = other.marks[()]
        self.put(path, other.data, mark)
        self.marks |= {path + below: at for below, at in other.marks.items()}

    def error(self, path: KeyPath, message: str, hint: str | None = None) -> SpecError:
        """An error at `path`, placed at the nearest part above it whose place is known."""
        for length in range(len(path), -1, -1):
            if (mark := self.marks.get(path[:length])) is not None:
                return SpecError(message, file=mark.file, line=mark.line, key=dotted(path), hint=hint)
        return SpecError(message, key=dotted(path), hint=hint)


def dotted(path: KeyPath) -> str:
    """`parameters.factor[1]`, as the error messages write it."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def read(path: Path) -> Source:
    """Read a YAML file whose top is a mapping.

    Raises:
        SpecError: no such file, not YAML, a key twice, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot read it: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        raise SpecError("is not UTF-8 text", file=path) from error
    return parse(text, path)


def parse(text: str, file: Path | str) -> Source:
    """The same for a text; `file` is what the errors name."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise SpecError("is empty", file=file)
        marks: dict[KeyPath, Mark] = {}
        _place(node, (), file, marks)
        data = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _syntax_error(error, file) from error
    except RecursionError:  # PyYAML's own, before `_place` can count
        raise SpecError("is nested too deeply or too large", file=file) from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise SpecError("must be a mapping of keys to values", file=file, line=1)
    return Source(data, marks)


def value(text: str) -> Any:
    """One value as YAML understands it, for words of the command line.

    Raises:
        ValueError: not YAML.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(getattr(error, "problem", None) or str(error)) from error
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """The safe loader with numbers and dates as OmegaConf reads them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _place(node: yaml.Node, path: KeyPath, file: Path | str, marks: dict[KeyPath, Mark]) -> None:
    """Note the line of every key and item. An anchor's content is placed where it is used last."""
    marks.setdefault(path, Mark(file, node.start_mark.line + 1))
    if len(path) > MAX_DEPTH or len(marks) > MAX_VALUES:
        raise SpecError("is nested too deeply or too large", file=file, line=node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line, key = key_node.start_mark.line + 1, str(key_node.value)
            if key in seen:
                here = dotted((*path, key))
                raise SpecError(f"is already set on line {seen[key]}", file=file, line=line, key=here)
            seen[key] = line
            marks[(*path, key)] = Mark(file, line)
            _place(value_node, (*path, key), file, marks)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _place(item, (*path, index), file, marks)


def _syntax_error(error: yaml.YAMLError, file: Path | str) -> SpecError:
    mark = getattr(error, "problem_mark", None)
    message = getattr(error, "problem", None) or str(error)
    return SpecError(f"not valid YAML: {message}", file=file, line=mark.line + 1 if mark else None)
