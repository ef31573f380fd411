"""Many points from one composed configuration, each equal to composing it anew.

Composing verl's configuration takes 0.3 s and resolving its interpolations 50 ms, far too long for thousands of points.
Points of a sweep set the same few keys, so for each set of keys the configuration is cut in two: a small slice of all
that those keys can reach, which Hydra changes and OmegaConf resolves for every point, and the rest, resolved once.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from orchestrator.hydra_session import CompositionFailed, HydraSession, said
from orchestrator.interpolation import Reach, join, leaves, references

Config = dict[str, Any]


@dataclass(frozen=True)
class _Cut:
    slice: Any
    """`DictConfig`, unresolved: every leaf that the changed keys can reach, and what those leaves read."""
    rest: Config
    """Resolved: every leaf out of their reach."""


class Composed:
    """One composed configuration, ready to be changed by overrides many times over.

    Args:
        session: applies the overrides.
        config: the composed `DictConfig`; not changed.
    """

    def __init__(self, session: HydraSession, config: Any) -> None:
        from omegaconf import OmegaConf

        self._session = session
        self.tree = cast(Config, OmegaConf.to_container(config, resolve=False))
        self._references = {path: references(path, value) for path, value in leaves(self.tree)}
        self._cuts: dict[tuple[frozenset[str], frozenset[str]], _Cut] = {}

    def paths(self) -> list[str]:
        """Every dotted key that holds a value."""
        return list(self._references)

    def changed_by(self, overrides: Sequence[Any]) -> Config:
        """The resolved configuration with parsed overrides applied in order.

        What no override reaches is shared with the results of other calls: treat it as read-only.

        Raises:
            OverrideRefused: an override that cannot be.
            CompositionFailed: an interpolation cannot be resolved.
        """
        cut = self._cut(overrides)
        changed = copy.deepcopy(cut.slice)
        self._session.apply(overrides, changed)
        return _overlaid(cut.rest, _resolved(changed))

    def _cut(self, overrides: Sequence[Any]) -> _Cut:
        keys = frozenset(override.key_or_group for override in overrides)
        reads = frozenset[str]().union(*(references(item.key_or_group, item.value()) for item in overrides))
        if (keys, reads) not in self._cuts:
            self._cuts[keys, reads] = self._new_cut(keys, reads)
        return self._cuts[keys, reads]

    def _new_cut(self, keys: Collection[str], reads: Collection[str]) -> _Cut:
        reach = Reach(self._references, keys, reads)
        holders = {holder for key in keys for holder in _above(key)}
        return _Cut(
            slice=_struct(_pruned(self.tree, reach.needed | holders)),
            rest=_resolved(_struct(_pruned(self.tree, self._references.keys() - reach.affected))),
        )


def _struct(tree: Config) -> Any:
    """A `DictConfig` in struct mode, as Hydra leaves it: unknown keys are refused."""
    from omegaconf import OmegaConf

    config = OmegaConf.create(tree)
    OmegaConf.set_struct(config, True)
    return config


def _resolved(config: Any) -> Config:
    from omegaconf import OmegaConf

    try:
        return cast(Config, OmegaConf.to_container(config, resolve=True))
    except Exception as error:  # resolvers may raise anything
        raise CompositionFailed(said(error)) from None


def _above(key: str) -> list[str]:
    """`a.b.c` lies in `a` and `a.b`."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _pruned(tree: Mapping[Any, Any], keep: Collection[str], above: str = "") -> Config:
    """The leaves of `keep` with the mappings that hold them; a mapping named in `keep` stays even when it is empty."""
    kept: Config = {}
    for key, value in tree.items():
        path = join(above, str(key))
        if isinstance(value, Mapping) and value:
            inner = _pruned(value, keep, path)
            if inner or path in keep:
                kept[key] = inner
        elif path in keep:
            kept[key] = value
    return kept


def _overlaid(below: Config, above: Config) -> Config:
    """`above` put over `below`, mapping by mapping; untouched mappings of `below` are shared."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _overlaid(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
