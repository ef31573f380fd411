"""What the keys of `search` must say of each other and of the rest of a sweep file. Each rule yields every breach it finds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from orchestrator import expression
from orchestrator.errors import SpecError
from orchestrator.model import Scalar
from orchestrator.search.figures import FIDELITY, parse_figure
from orchestrator.search.samplers import PRUNERS, SAMPLERS, SINGLE_OBJECTIVE
from orchestrator.search.spec import SearchSpec
from orchestrator.suggest import did_you_mean
from orchestrator.yaml_source import KeyPath

if TYPE_CHECKING:
    from orchestrator.spec_model import SweepSpec


MOST_GRID = 10_000
"""Combinations that a grid may have: all of them are looked through for each trial."""


def search_rules(spec: SweepSpec) -> Iterator[SpecError]:
    """Of a sweep without `search`, none."""
    search = spec.search
    if search is None:
        return
    yield from _axes(spec, search)
    yield from _values(spec, search)
    yield from _conditions(spec, search)
    yield from _reference(spec, search)
    yield from _named(spec, search)
    yield from _pruning(spec, search)


def _axes(spec: SweepSpec, search: SearchSpec) -> Iterator[SpecError]:
    if spec.zip:
        yield spec.error(("zip",), "cannot be crossed with a search", "write the points under include")
    if spec.replicates:
        hint = "set the seed in overrides, and repeat the best points in a sweep of their own"
        yield spec.error(("replicates",), "a search tries each configuration once", hint)
    for name, values in spec.parameters.items():
        if name not in search.params and len(values) > 1:
            hint = f"search it, search.params: {{{name}: choice(...)}}, or give one value"
            yield spec.error(("parameters", name), "has several values and is not searched", hint)
    for index, point in enumerate(spec.include):
        for name in point:
            if name not in search.params:
                yield spec.error(("include", index, name), "is not searched", "name it under search.params")


def _values(spec: SweepSpec, search: SearchSpec) -> Iterator[SpecError]:
    """Grid points are trials, so their values must lie in the domains."""
    domains = search.domains
    places: list[tuple[KeyPath, str, Scalar]] = [
        (("parameters", name, index), name, value)
        for name, values in spec.parameters.items()
        for index, value in enumerate(values)
    ]
    places += [
        (("include", index, name), name, value)
        for index, point in enumerate(spec.include)
        for name, value in point.items()
    ]
    for path, name, value in places:
        if name in domains and not domains[name].contains(value):
            yield spec.error(path, f"{value!r} is not in {domains[name]}, which search.params.{name} says")


def _conditions(spec: SweepSpec, search: SearchSpec) -> Iterator[SpecError]:
    known = [*search.params, *(name for name in spec.parameters if name not in search.params)]
    for name, text in search.when.items():
        if name not in search.params:
            hint = did_you_mean(name, search.params) or f"there are {', '.join(search.params)}"
            yield spec.error(("search", "when", name), "is not searched", hint)
        try:
            unknown = sorted(expression.parse(text).names - set(known))
        except SpecError as error:
            yield spec.error(("search", "when", name), error.message, error.hint)
            continue
        for other in unknown:
            hint = did_you_mean(other, known) or f"there are {', '.join(known)}; words need quotes"
            yield spec.error(("search", "when", name), f"`{other}` is no parameter of this search", hint)
    try:
        in_order(search)
    except ValueError as error:
        yield spec.error(("search", "when"), str(error))


def in_order(search: SearchSpec) -> list[str]:
    """The parameters such that each stands after those that its condition reads.

    Raises:
        ValueError: conditions that wait for each other.
    """
    needs = {name: _reads(search.when.get(name)) & search.params.keys() for name in search.params}
    ordered: list[str] = []
    while len(ordered) < len(needs):
        free = [name for name in needs if name not in ordered and needs[name] <= set(ordered)]
        if not free:
            rest = ", ".join(sorted(needs.keys() - set(ordered)))
            raise ValueError(f"the conditions of {rest} wait for each other")
        ordered += free
    return ordered


def applies(search: SearchSpec, name: str, values: Mapping[str, Scalar]) -> bool:
    """Whether a parameter is set, given those before it; a condition over one that is not set does not hold."""
    text = search.when.get(name)
    if text is None:
        return True
    condition = expression.parse(text)
    return condition.names <= values.keys() and condition.holds(values)


def active(search: SearchSpec, fixed: Mapping[str, Scalar], params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Those of `params` whose conditions hold."""
    kept: dict[str, Scalar] = {}
    for name in in_order(search):
        if name in params and applies(search, name, {**fixed, **kept}):
            kept[name] = params[name]
    return {name: kept[name] for name in search.params if name in kept}


def _reads(text: str | None) -> frozenset[str]:
    try:
        return expression.parse(text).names if text else frozenset()
    except SpecError:
        return frozenset()


def _reference(spec: SweepSpec, search: SearchSpec) -> Iterator[SpecError]:
    wanted = FIDELITY in [figure.name for figure in (*search.figures, *(limit.figure for limit in search.limits))]
    if wanted and not search.reference:
        hint = "write reference: {factor: 32}: the same point with this value"
        yield spec.error(("search",), "fidelity compares each point with a reference, and none is named", hint)
    if search.reference and not wanted:
        yield spec.error(("search", "reference"), "nothing is compared with it", f"add {FIDELITY} to the objectives")
    for name, value in search.reference.items():
        path = ("search", "reference", name)
        domain = search.domains.get(name)
        if domain is None:
            yield spec.error(path, "is not searched", did_you_mean(name, search.params))
        elif not domain.contains(value):
            yield spec.error(path, f"{value!r} is not in {domain}, which search.params.{name} says")
        elif value not in spec.parameters.get(name, ()):
            hint = f"add parameters.{name}: [{value}], with every value of what else is searched"
            yield spec.error(path, "the references must be among the points of the grid, which run first", hint)
    if search.reference:
        yield from _without_reference(spec, search)


def _without_reference(spec: SweepSpec, search: SearchSpec) -> Iterator[SpecError]:
    """Trials differ from their reference in `search.reference` alone, so the grid needs every value of the rest."""
    path = ("search", "reference")
    for name, domain in search.domains.items():
        if name in search.reference or name in search.when:
            continue
        values = domain.values()
        if values is None:
            hint = f"name {name} under search.reference as well, or search a choice(...) of it"
            yield spec.error(path, f"no grid holds a reference for every {name} of {domain}", hint)
            continue
        for value in islice((value for value in values if value not in spec.parameters.get(name, ())), 1):
            hint = f"add it to parameters.{name}, or name {name} under search.reference"
            yield spec.error(path, f"a trial with {name}={value} has no reference in the grid", hint)


def _named(spec: SweepSpec, search: SearchSpec) -> Iterator[SpecError]:
    name = search.sampler.name
    if "." not in name and name not in SAMPLERS:
        hint = did_you_mean(name, SAMPLERS) or f"there are {', '.join(SAMPLERS)}, or a dotted path"
        yield spec.error(("search", "sampler"), f"there is no sampler `{name}`", hint)
    if name in SINGLE_OBJECTIVE and len(search.objectives) > 1:
        yield spec.error(("search", "sampler"), f"{name} takes one objective", "tpe, nsga2 and gp take several")
    for argument, instead in (
        ("seed", "search.seed"),
        *((("search_space", "search.params"),) if name == "grid" else ()),
    ):
        if argument in search.sampler.arguments:
            message = "each trial has a sampler of its own, which takes it from elsewhere"
            yield spec.error(("search", "sampler", argument), message, f"set {instead}")
    if name == "grid":
        size = math.prod(len(domain.values() or ()) for domain in search.domains.values())
        if size > MOST_GRID:
            message = f"the sampler grid would go through {size} combinations; {MOST_GRID} are the most"
            yield spec.error(("search", "sampler"), message, "make the domains smaller, or take another sampler")
        for param, domain in search.domains.items():
            if domain.values() is None:
                hint = "write int(...) or choice(...)"
                yield spec.error(("search", "params", param), f"the sampler grid cannot go through {domain}", hint)
        if search.when:
            yield spec.error(("search", "when"), "the sampler grid knows no conditions", "take another sampler")


def _pruning(spec: SweepSpec, search: SearchSpec) -> Iterator[SpecError]:
    prune = search.prune
    if prune is None:
        return
    if "." not in prune.name and prune.name not in PRUNERS:
        hint = did_you_mean(prune.name, PRUNERS) or f"there are {', '.join(PRUNERS)}, or a dotted path"
        yield spec.error(("search", "prune"), f"there is no pruner `{prune.name}`", hint)
    if len(search.objectives) > 1:
        yield spec.error(("search", "prune"), "only a search for one objective can be pruned")
    try:
        figure = parse_figure(prune.metric) if prune.metric else search.figures[0]
    except ValueError as error:
        yield spec.error(("search", "prune", "metric"), str(error))
        return
    if not figure.is_series or figure.name.startswith("npz/"):
        hint = "name one: prune: {metric: critic/score/mean}"
        yield spec.error(("search", "prune"), f"`{figure.name}` is no metric that is logged while a job runs", hint)
