"""Changes to a point's configuration that are no part of the point: those of the pool, and those of the retry policy.

    pools:
      h100: {gpus: 8, patch: {actor.ppo_max_token_len_per_gpu: "x/2"}}
    retry:
      gpu_oom: {patch: {rollout.gpu_memory_utilization: "x-0.1"}}

A key is a dotted key of the configuration, an alias of the sweep file, or an ending that only one key has. The expression
is one of `orchestrator.expression` in x, the present value; a whole number stays one. What was computed from the key when
the configuration was composed keeps its value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.expression import parse
from orchestrator.model import Pool, Scalar
from orchestrator.suggest import did_you_mean

VALUE = "x"


def of_pool(pool: Pool | None, config: Mapping[str, Any], alias: Mapping[str, str]) -> dict[str, Scalar]:
    """What a point's configuration has otherwise on a pool's nodes, by dotted key.

    Raises:
        SpecError: a key that does not exist or is no single value, or an expression that has no value for it.
    """
    change = pool.patch if pool else {}
    return {key: new for key, _, new, old in _values(change, config, alias) if not _same(new, old)}


def evaluate(change: Mapping[str, str], config: Mapping[str, Any], alias: Mapping[str, str]) -> dict[str, Scalar]:
    """New values by dotted key.

    Args:
        change: expressions by key, as written.
        config: what they apply to, earlier patches included.
        alias: the sweep file's short names.

    Raises:
        SpecError: a key that does not exist or is no single value, or an expression that has no other value for it.
    """
    found: dict[str, Scalar] = {}
    for key, text, new, old in _values(change, config, alias):
        if _same(new, old):
            raise SpecError(f"{key}: `{text}` leaves {old!r} as it is; a patch must change something")
        found[key] = new
    return found


def apply(config: Mapping[str, Any], patch: Mapping[str, Scalar]) -> dict[str, Any]:
    """A copy with other values; what is beside them is shared. Every key exists already."""
    changed = dict(config)
    for key, value in patch.items():
        changed = _with(changed, key.split("."), value)
    return changed


def find_key(config: Mapping[str, Any], name: str) -> str:
    """The dotted key that is called so, or ends so.

    Raises:
        SpecError: there is none, or more than one.
    """
    keys = dict(_leaves(config))
    if name in keys:
        return name
    ending = [key for key in keys if key.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise SpecError(
            f"`{name}` is the end of {len(ending)} keys", hint=f"write one of {', '.join(sorted(ending)[:5])}"
        )
    raise SpecError(f"the configuration has no single value `{name}`", hint=did_you_mean(name, keys))


def _values(
    change: Mapping[str, str], config: Mapping[str, Any], alias: Mapping[str, str]
) -> Iterator[tuple[str, str, Scalar, Scalar]]:
    """Dotted key, expression, new value and old one of each change."""
    for name, text in change.items():
        key = find_key(config, alias.get(name, name))
        old = look_up(config, key)
        yield key, text, _new_value(key, text, old), old


def _new_value(key: str, text: str, old: Scalar) -> Scalar:
    value: Scalar = parse(text).value({VALUE: old})
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SpecError(f"{key}: `{text}` is {value} where x is {old!r}")
        whole = isinstance(old, int) and not isinstance(old, bool)
        value = math.floor(value) if whole else float(f"{value:.12g}")  # 0.4 - 0.1 is 0.3, not 0.30000000000000004
    if not isinstance(value, str | int | float | None):
        raise SpecError(f"{key}: `{text}` is no single value")
    return value


def _same(value: Scalar, old: Scalar) -> bool:
    return type(value) is type(old) and value == old


def _leaves(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Scalar]]:
    """Every single value with its dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        elif value is None or isinstance(value, str | int | float):
            yield f"{above}{key}", value


def look_up(config: Mapping[str, Any], key: str) -> Scalar:
    """The value of a dotted key that exists."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value  # type: ignore[no-any-return]


def _with(config: Mapping[str, Any], keys: list[str], value: Scalar) -> dict[str, Any]:
    first, *rest = keys
    return {**config, first: _with(config[first], rest, value) if rest else value}
