"""What the keys of a sweep file must say of each other. Each rule yields every breach it finds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from orchestrator import expression
from orchestrator.errors import SpecError
from orchestrator.model import Scalar
from orchestrator.naming import BUILT_IN, placeholders
from orchestrator.overrides import assignment, override_key
from orchestrator.preflight.models import KNOWN, known_shape
from orchestrator.runai_spec import wrong_in_pool
from orchestrator.search.rules import search_rules
from orchestrator.spec_model import DEFAULT_ALIAS, RETRY_BUDGETS, SweepSpec
from orchestrator.suggest import did_you_mean, nearest
from orchestrator.yaml_source import KeyPath

Rule = Callable[[SweepSpec], Iterator[SpecError]]

_TARGET = re.compile(r"\+{0,2}[A-Za-z_][\w/@-]*(?:\.[\w@/-]+)*", re.ASCII)
_OVERRIDE = re.compile(r"(?:\+{0,2}[^=\s~+][^=\s]*=.*|~[^=\s]+(?:=.*)?)", re.DOTALL)


def broken_rules(spec: SweepSpec, configs: Path) -> list[SpecError]:
    """Every breach, in the order of the rules.

    Args:
        spec: a sweep whose single values are valid.
        configs: folder of the named Hydra configs; its sub-folders are the config groups.
    """
    problems = list(_config(spec, configs)) + list(_names(spec, _groups(spec, configs)))
    return problems + [problem for rule in _RULES for problem in rule(spec)]


def is_config_file(config: str) -> bool:
    """Whether `config` names a file of the user's rather than a config of trainer_ext."""
    return config.endswith((".yaml", ".yml"))


def _config(spec: SweepSpec, configs: Path) -> Iterator[SpecError]:
    if is_config_file(spec.config):
        if not Path(spec.config).is_file():
            yield spec.error(("config",), f"no such file: {spec.config}")
        return
    known = [file.stem for file in sorted(configs.glob("*.yaml"))]
    if spec.config not in known:
        hint = did_you_mean(spec.config, known) or f"there are {', '.join(known) or 'none'}"
        yield spec.error(("config",), f"no such config: {spec.config}", hint)


def _groups(spec: SweepSpec, configs: Path) -> set[str]:
    folders = [configs, Path(spec.config).parent] if is_config_file(spec.config) else [configs]
    return {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()}


def _names(spec: SweepSpec, groups: set[str]) -> Iterator[SpecError]:
    """Each name that is swept must lead to a key of the configuration."""
    known = {*spec.alias, *DEFAULT_ALIAS, *groups}
    for path, name in _named(spec):
        if name in known or ("." in name and _TARGET.fullmatch(name)):
            continue
        hint = did_you_mean(name, known) or f"declare it: alias: {{{name}: some.key}}"
        yield spec.error(path, f"`{name}` is neither an alias, a dotted key nor a config group", hint)


def _named(spec: SweepSpec) -> Iterator[tuple[KeyPath, str]]:
    """Every place where a parameter is named."""
    yield from _axis_places(spec)
    for index, point in enumerate(spec.include):
        yield from ((("include", index, name), name) for name in point)


def _axis_places(spec: SweepSpec) -> Iterator[tuple[KeyPath, str]]:
    yield from ((("parameters", name), name) for name in spec.parameters)
    for group, columns in spec.zip.items():
        yield from ((("zip", group, name), name) for name in columns)
    yield from ((("replicates", name), name) for name in spec.replicates)
    searched = spec.search.params if spec.search else ()
    yield from ((("search", "params", name), name) for name in searched if name not in spec.parameters)


def _aliases(spec: SweepSpec) -> Iterator[SpecError]:
    for name, target in spec.alias.items():
        if not _TARGET.fullmatch(target):
            yield spec.error(("alias", name), f"`{target}` is not a key of the configuration", "write a dotted key")
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            yield spec.error(("alias", name), "a short name is one word of letters, digits and underscores")
        if name in BUILT_IN:
            yield spec.error(("alias", name), f"`{{{name}}}` has a meaning of its own in job_name; take another name")


def _one_axis_a_key(spec: SweepSpec) -> Iterator[SpecError]:
    """No name twice, no key behind two names, and no axis over a key that `overrides` sets."""
    behind: dict[str, str] = {}
    for path, name in _axis_places(spec):
        key = override_key(spec.target(name))
        if key in behind:
            other = behind[key]
            message = "is also swept elsewhere" if other == name else f"sets `{key}`, and so does `{other}`"
            yield spec.error(path, message, "an axis stands once in parameters, zip or replicates")
        behind.setdefault(key, name)
    for index, override in enumerate(spec.overrides):
        if (name := behind.get(override_key(override), "")) and _OVERRIDE.fullmatch(override):
            hint = f"drop it, or set the values of `{name}`"
            yield spec.error(("overrides", index), f"`{override}` would be lost: `{name}` sweeps this key", hint)


def _distinct_values(spec: SweepSpec) -> Iterator[SpecError]:
    for field, axes in (("parameters", spec.parameters), ("replicates", spec.replicates)):
        for name, values in axes.items():
            for index in _repeated([_spelling(value) for value in values]):
                yield spec.error((field, name, index), f"the value {values[index]!r} is already in this list")


def _zip_columns(spec: SweepSpec) -> Iterator[SpecError]:
    for group, columns in spec.zip.items():
        if not columns:
            yield spec.error(("zip", group), "has no columns", "write {name: [values], other: [values]}")
        elif len({len(values) for values in columns.values()}) > 1:
            lengths = ", ".join(f"{name} has {len(values)}" for name, values in columns.items())
            yield spec.error(("zip", group), f"columns that move together need one length: {lengths}")
        else:
            rows = [", ".join(map(_spelling, row)) for row in zip(*columns.values(), strict=True)]
            for index in _repeated(rows):
                yield spec.error(("zip", group), f"row {index + 1} ({rows[index]}) is already in it")


def _spelling(value: Scalar) -> str:
    """Tells 1 from 1.0 and from true, as Hydra does."""
    return assignment("", value)


def _repeated(items: list[str]) -> list[int]:
    """Where something stands that stood before."""
    return [index for index, item in enumerate(items) if item in items[:index]]


def _includes(spec: SweepSpec) -> Iterator[SpecError]:
    for index, point in enumerate(spec.include):
        if not point:
            yield spec.error(("include", index), "sets nothing", "write {name: value}")


def _excludes(spec: SweepSpec) -> Iterator[SpecError]:
    known = list(spec.axes)
    for index, text in enumerate(spec.exclude):
        try:
            unknown = sorted(expression.parse(text).names - set(known))
        except SpecError as error:
            yield spec.error(("exclude", index), error.message, error.hint)
            continue
        for name in unknown:
            hint = did_you_mean(name, known) or f"there are {', '.join(known) or 'none'}; words need quotes"
            yield spec.error(("exclude", index), f"`{name}` is no parameter of this sweep", hint)


def _job_name(spec: SweepSpec) -> Iterator[SpecError]:
    known = [*spec.axes, *(name for point in spec.include for name in point), *BUILT_IN]
    for name in placeholders(spec.job_name or ""):
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(dict.fromkeys(known))}"
            yield spec.error(("job_name",), f"unknown placeholder {{{name}}}", hint)


def _overrides(spec: SweepSpec) -> Iterator[SpecError]:
    for index, override in enumerate(spec.overrides):
        if not _OVERRIDE.fullmatch(override):
            yield spec.error(("overrides", index), f"`{override}` is not key=value, +key=value or ~key")


def _ladder(spec: SweepSpec) -> Iterator[SpecError]:
    ladder, pools = spec.resources.ladder, spec.pools
    for index, name in enumerate(ladder):
        path: KeyPath = ("resources", "ladder", index)
        if name not in pools:
            hint = did_you_mean(name, pools) or f"pools has {', '.join(pools) or 'none'}"
            yield spec.error(path, f"unknown pool `{name}`", hint)
        elif 0 < pools[name].gpus < spec.resources.gpus and not _whole_nodes(spec, pools[name].gpus):
            message = f"a node of `{name}` has {pools[name].gpus} GPUs, a point asks for {spec.resources.gpus}"
            yield spec.error(path, message)
    for index, (small, large) in enumerate(pairwise(ladder), start=1):
        less, more = (pools[name].memory_mib if name in pools else None for name in (small, large))
        if less is not None and more is not None and less >= more:
            message = f"`{large}` ({more} MiB) does not have more memory than `{small}` ({less} MiB) before it"
            yield spec.error(("resources", "ladder", index), message, "order the ladder from small to large")
    for name, count in Counter(ladder).items():
        if count > 1:
            yield spec.error(("resources", "ladder"), f"`{name}` stands in it {count} times")


def _whole_nodes(spec: SweepSpec, gpus: int) -> bool:
    """Run:ai takes several nodes for one job, all of them whole."""
    return spec.backend == "runai" and spec.resources.gpus % gpus == 0


POOL_KEYS = (
    *("gpus", "memory_mib", "patch"),
    *(
        "partition",
        "constraint",
        "account",
        "qos",
        "reservation",
        "gres",
        "cpus",
        "container",
        "container_mounts",
        "extra",
    ),
    *("node_pool", "extended_resources", "priority", "preemptibility"),
)
"""Ours, Slurm's, Run:ai's. Others may be the key of some backend, unless they look like a slip."""
_SLIP = 0.8


def _pools(spec: SweepSpec) -> Iterator[SpecError]:
    for pool, keys in spec.pools.items():
        for key in keys.model_extra or {}:
            meant = None if key in POOL_KEYS else nearest(key, POOL_KEYS, _SLIP)
            if meant:
                yield spec.error(("pools", pool, key), "is no key of a pool", f"did you mean `{meant}`?")


def _runai_pools(spec: SweepSpec) -> Iterator[SpecError]:
    if spec.backend != "runai":
        return
    for pool, keys in spec.pools.items():
        for key, must_be in wrong_in_pool(keys.model_extra or {}).items():
            yield spec.error(("pools", pool, key), must_be)


def _retry(spec: SweepSpec) -> Iterator[SpecError]:
    for cause in spec.retry.budgets:
        if cause not in RETRY_BUDGETS:
            hint = did_you_mean(cause, RETRY_BUDGETS) or f"there are {', '.join(RETRY_BUDGETS)}"
            yield spec.error(("retry", "budgets", cause), "is no cause that can be tried again", hint)


def _patches(spec: SweepSpec) -> Iterator[SpecError]:
    written: dict[KeyPath, dict[str, str]] = {
        **{("retry", cause, "patch"): patch for cause, patch in spec.retry.patches.items()},
        **{("pools", name, "patch"): pool.patch for name, pool in spec.pools.items()},
    }
    for place, patch in written.items():
        for key, text in patch.items():
            path: KeyPath = (*place, key)
            try:
                unknown = sorted(expression.parse(text).names - {"x"})
            except SpecError as error:
                yield spec.error(path, error.message, error.hint)
                continue
            if unknown:
                yield spec.error(path, f"reads `{unknown[0]}`", "a patch knows x, the present value, alone")


def _preflight(spec: SweepSpec) -> Iterator[SpecError]:
    model = spec.preflight.model
    if model is not None and known_shape(model) is None:
        hint = did_you_mean(model, KNOWN) or f"there are {', '.join(KNOWN)}"
        yield spec.error(("preflight", "model"), f"the shapes of `{model}` are not in the table", hint)


def _budget(spec: SweepSpec) -> Iterator[SpecError]:
    hours, time, gpus = spec.budget.gpu_hours, spec.resources.time_s, spec.resources.gpus
    if hours is not None and time is not None and gpus * time / 3600 > hours:
        worst = f"{gpus} GPUs for {time / 3600:g} hours"
        hint = "raise it, or lower resources.time"
        yield spec.error(("budget", "gpu_hours"), f"does not cover a single attempt, which may take {worst}", hint)


ROOT_VERDICTS = (
    "gpu_oom",
    "host_oom",
    "node_failure",
    "time_limit",
    "preempted",
    "cancelled",
    "config_error",
    "code_error",
)
"""What a line of a log can prove; the others follow from outputs, from steps or from nothing."""
CASCADE_VERDICTS = ("node_failure", "code_error")


def _patterns(spec: SweepSpec) -> Iterator[SpecError]:
    codes = [pattern.code for pattern in spec.triage.patterns]
    for index in _repeated(codes):
        yield spec.error(("triage", "patterns", index, "code"), f"`{codes[index]}` names another pattern already")
    for index, pattern in enumerate(spec.triage.patterns):
        path: KeyPath = ("triage", "patterns", index, "verdict")
        may = {"root": ROOT_VERDICTS, "cascade": CASCADE_VERDICTS, "confirmation": ()}[pattern.role]
        if pattern.role == "root" and pattern.verdict is None:
            yield spec.error(path, "a root needs a verdict", f"one of {', '.join(may)}")
        elif pattern.verdict is not None and pattern.verdict.value not in may:
            hint = f"one of {', '.join(may)}" if may else "leave it out"
            yield spec.error(path, f"a {pattern.role} cannot lead to {pattern.verdict.value}", hint)


_RULES: tuple[Rule, ...] = (
    _aliases,
    _one_axis_a_key,
    _distinct_values,
    _zip_columns,
    _includes,
    _excludes,
    _job_name,
    _overrides,
    _ladder,
    _pools,
    _runai_pools,
    _retry,
    _patches,
    _budget,
    _preflight,
    _patterns,
    search_rules,
)
