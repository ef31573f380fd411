"""From a sweep file to a `SweepSpec`, or to the list of everything that is wrong with it.

`load(path, assignments)` reads the file, puts the command line's `key=value` words over it, and checks everything that
can be known without composing a configuration. Every mistake is a `SpecError` with file, line, key and the nearest
valid key, and all of them are reported at once; nothing is written before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from orchestrator import yaml_source
from orchestrator.assignments import apply_assignments
from orchestrator.errors import SpecError
from orchestrator.spec_model import SweepSpec, default_config_dir
from orchestrator.spec_rules import broken_rules, is_config_file
from orchestrator.suggest import did_you_mean
from orchestrator.yaml_source import KeyPath, Source

__all__ = ["SweepSpec", "load"]


def load(path: Path, assignments: Sequence[str] = (), *, configs: Path | None = None) -> SweepSpec:
    """Read and check a sweep file.

    Args:
        path: the sweep file.
        assignments: the command line's words: `key=value` for a key of the sweep file, else a Hydra override.
        configs: where named configs are; by default trainer_ext's.

    Raises:
        SpecError: one or more mistakes, each with its place.
    """
    source = yaml_source.read(_existing(path))
    apply_assignments(source, assignments, tuple(SweepSpec.model_fields))
    for key in ("pools", "triage", "runai"):
        _inline(key, source, path.parent)
    try:
        spec = SweepSpec.model_validate(source.data)
    except ValidationError as error:
        raise SpecError.of_all([_located(problem, source) for problem in error.errors()]) from None
    spec = _with_config_path(spec, path.parent).located_in(source)
    if problems := broken_rules(spec, configs or default_config_dir()):
        raise SpecError.of_all(problems)
    return spec


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    others = [str(path.parent / file.name) for file in sorted(path.parent.glob("*.y*ml"))]
    raise SpecError("no such sweep file", file=path, hint=did_you_mean(str(path), others))


def _inline(key: str, source: Source, folder: Path) -> None:
    """Put the content of a file where its name stands instead of a mapping."""
    name = source.data.get(key)
    if not isinstance(name, str):
        return
    file = folder / name
    if not file.is_file():
        near = did_you_mean(name, [f.name for f in folder.glob("*.y*ml")])
        raise source.error((key,), f"no such file: {file}", near)
    source.graft((key,), yaml_source.read(file))


def _with_config_path(spec: SweepSpec, folder: Path) -> SweepSpec:
    if not is_config_file(spec.config):
        return spec
    return spec.model_copy(update={"config": str((folder / spec.config).resolve())})


def _located(problem: Any, source: Source) -> SpecError:
    """One of pydantic's errors in our words and at its place in the file."""
    path: KeyPath = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return source.error(path, "unknown key", did_you_mean(str(path[-1]), _keys_beside(path)))
    if problem["type"] == "missing":
        return source.error(path, "is required")
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    shown = path[0] not in ("notify", "runai")  # who writes a URL where its reference belongs does not want it in a log
    if shown and problem["type"] != "value_error" and isinstance(given, str | int | float):
        message = f"{message[:1].lower()}{message[1:]}, not {given!r}"
    return source.error(path, message)


def _keys_beside(path: KeyPath) -> list[str]:
    """The valid keys of the mapping that holds the last part of `path`."""
    model: Any = SweepSpec
    for key in path[:-1]:
        fields = getattr(model, "model_fields", {})
        if key in fields:  # else the place of an item in a list or a mapping, whose model is known already
            inner = fields[key].annotation
            model = next((part for part in _parts(inner) if hasattr(part, "model_fields")), inner)
    return list(getattr(model, "model_fields", ()))


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)
