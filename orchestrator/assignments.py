"""The command line's `key=value` words, put over a sweep file.

A key of the sweep file (dotted: `parameters.factor=[64]`, `budget.max_parallel=2`) replaces that key, its value read as
YAML. Any other `key=value`, `+key=value` or `~key` is a Hydra override and joins `overrides`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestrator import yaml_source
from orchestrator.errors import SpecError
from orchestrator.suggest import nearest
from orchestrator.yaml_source import COMMAND_LINE, KeyPath, Mark, Source, dotted

_SPLITS = {"parameters": 1, "alias": 1, "replicates": 1, "zip": 2}
"""Below these fields a key may hold dots of its own: `parameters.trainer.lr` has two parts."""

_NEAR = 0.8
"""`influence=...` is Hydra's although it looks a little like `include`: only real typing errors are refused."""


def apply_assignments(source: Source, words: Sequence[str], fields: Collection[str]) -> None:
    """Put `words` over `source`, in order.

    Args:
        source: the sweep file; changed in place.
        words: `key=value`, `+key=value` or `~key`.
        fields: the keys of a sweep file.

    Raises:
        SpecError: a word that is neither, or that looks like a mistyped key.
    """
    for word in words:
        key, equals, text = word.partition("=")
        if not equals and not key.startswith("~"):
            raise SpecError(f"`{word}` is not key=value", file=COMMAND_LINE)
        if key.split(".")[0] in fields:
            _set(source, _path(key), text)
        else:
            _refuse_slips(source, key, text, fields)
            _append_override(source, word)


def _path(key: str) -> KeyPath:
    return tuple(key.split(".", maxsplit=_SPLITS.get(key.split(".")[0], -1)))


def _set(source: Source, path: KeyPath, text: str) -> None:
    try:
        source.put(path, yaml_source.value(text), Mark(COMMAND_LINE))
    except ValueError as error:
        raise SpecError(f"not valid YAML: {error}", file=COMMAND_LINE, key=dotted(path)) from None
    except KeyError as error:
        above = dotted(error.args[0])
        raise SpecError(f"`{above}` is not a mapping in this sweep", file=COMMAND_LINE, key=dotted(path)) from None


def _refuse_slips(source: Source, key: str, text: str, fields: Collection[str]) -> None:
    """What Hydra would answer with less sense: a parameter's short name, a mistyped key of the sweep file."""
    for field in ("parameters", "replicates", "alias"):
        names = source.data.get(field)
        if isinstance(names, dict) and key in names:
            hint = f"write {'parameters' if field == 'alias' else field}.{key}=[{text}]"
            raise SpecError("is a parameter of this sweep", file=COMMAND_LINE, key=key, hint=hint)
    first, dot, rest = key.partition(".")
    if (field_name := nearest(first, fields, cutoff=_NEAR)) is not None:
        raise SpecError("unknown key", file=COMMAND_LINE, key=key, hint=f"did you mean `{field_name}{dot}{rest}`?")


def _append_override(source: Source, word: str) -> None:
    overrides = source.data.get("overrides") or []
    if not isinstance(overrides, list):
        return  # the model refuses it, with its line
    source.data["overrides"] = [*overrides, word]
    source.marks[("overrides", len(overrides))] = Mark(COMMAND_LINE)
