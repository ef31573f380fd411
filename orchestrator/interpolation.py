"""Which leaves of a configuration can change when some keys do: OmegaConf's interpolations read as text. Pure.

A path is a dotted key; the root is the empty path. The analysis is conservative: where the text does not tell what an
interpolation reads (a computed key, an unknown resolver, an escape) it counts as reading the root, that is, everything.
A needless dependency costs time; a missed one would give a point a stale value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

ROOT = ""

_READABLE_RESOLVERS = {"oc.select", "oc.env", "oc.deprecated", "oc.dict.keys", "oc.dict.values"}
_RESOLVER = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:")
_BRACE = re.compile(r"\$?\{|\}")
_OPAQUE = re.compile(r"[\\'\"]")
_SEPARATORS = re.compile(r"[${}:,()\s]+")


def leaves(tree: Mapping[Any, Any], above: str = ROOT) -> Iterator[tuple[str, Any]]:
    """Path and value of every leaf; a list and an empty mapping are leaves."""
    for key, value in tree.items():
        path = join(above, str(key))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def references(path: str, value: Any) -> frozenset[str]:
    """The paths that the interpolations in a leaf may read; empty for a leaf without any."""
    if isinstance(value, str):
        return frozenset(_read(path, value)) if "${" in value else frozenset()
    if isinstance(value, Mapping):
        return frozenset().union(*(references(join(path, str(key)), inner) for key, inner in value.items()))
    if isinstance(value, list):
        return frozenset().union(*(references(join(path, str(index)), inner) for index, inner in enumerate(value)))
    return frozenset()


def _read(path: str, text: str) -> Iterator[str]:
    if _OPAQUE.search(text) or _is_computed(text) or not _READABLE_RESOLVERS.issuperset(_RESOLVER.findall(text)):
        yield ROOT
        return
    for word in _SEPARATORS.split(text):
        key = word.lstrip(".")
        up = len(word) - len(key)
        key = re.sub(r"[\[\].]+", ".", key).strip(".")
        if key or up:
            yield join(_above(path, up), key) if up else key


def _is_computed(text: str) -> bool:
    """Whether an interpolation stands inside another one as anything but a whole argument after a comma.

    `${oc.select:a,${b}}` reads `a` and `b`; what `${oc.select:${a}.b}` reads depends on a value.
    """
    inside: list[bool] = []  # for each open brace: whether it is an interpolation within another
    for brace in _BRACE.finditer(text):
        if brace[0] == "}":
            if inside and inside.pop() and not text[brace.end() :].lstrip().startswith((",", "}")):
                return True
        elif inside or brace[0] == "${":
            nested = bool(inside) and brace[0] == "${"
            if nested and not text[: brace.start()].rstrip().endswith(","):
                return True
            inside.append(nested)
    return False


def _above(path: str, levels: int) -> str:
    """`a.b.c` one level up is `a.b`: what a leading dot means in a relative interpolation."""
    return ".".join(path.split(".")[:-levels])


def join(above: str, key: str) -> str:
    return f"{above}.{key}" if above and key else above or key


def related(one: str, other: str) -> bool:
    """Whether one path is the other, holds it, or lies in it."""
    return one == other or ROOT in (one, other) or one.startswith(other + ".") or other.startswith(one + ".")


class Reach:
    """The effect of changing some keys of one configuration.

    Args:
        refs: for every leaf of the configuration, what it reads (`references`).
        changed: the keys that overrides set or delete.
        reads: what the new values read.
    """

    def __init__(self, refs: Mapping[str, frozenset[str]], changed: Iterable[str], reads: Iterable[str] = ()) -> None:
        sources = _through_interpolations(refs, changed)
        self.affected = _affected(refs, sources)
        """Leaves whose value may become another."""
        self.needed = _needed(refs, self.affected, sources | set(reads))
        """Those, and all that the affected ones and the new values read in turn."""


def _through_interpolations(refs: Mapping[str, frozenset[str]], changed: Iterable[str]) -> set[str]:
    """Setting `a.b.c` where `a.b` is an interpolation sets the same key in what `a.b` points to."""
    found: set[str] = set()
    waiting = list(changed)
    while waiting:
        key = waiting.pop()
        if key in found:
            continue
        found.add(key)
        parts = key.split(".")
        for length in range(1, len(parts)):
            waiting += refs.get(".".join(parts[:length]), ())
    return found


def _affected(refs: Mapping[str, frozenset[str]], sources: set[str]) -> set[str]:
    affected = {leaf for leaf in refs if any(related(leaf, key) for key in sources)}
    moved = sources | affected
    while True:
        more = {
            leaf
            for leaf, read in refs.items()
            if read and leaf not in affected and any(related(key, other) for key in read for other in moved)
        }
        if not more:
            return affected
        affected |= more
        moved = more


def _needed(refs: Mapping[str, frozenset[str]], affected: set[str], starts: set[str]) -> set[str]:
    needed = set(affected)
    waiting = set(starts).union(*(refs[leaf] for leaf in affected))
    while waiting:
        more = {leaf for leaf in refs if leaf not in needed and any(related(leaf, key) for key in waiting)}
        needed |= more
        waiting = set[str]().union(*(refs[leaf] for leaf in more))
    return needed
