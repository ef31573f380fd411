"""From a trial's parameters to a point of the sweep, and from a sweep file to the trials that it begins with. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice, product

from orchestrator import expression
from orchestrator.errors import SpecError
from orchestrator.expand import RawPoint, expand
from orchestrator.model import Scalar
from orchestrator.naming import POINT_NAME_LENGTH, point_names, safe_name
from orchestrator.overrides import assignment
from orchestrator.search.rules import active
from orchestrator.search.samplers import make_pruner, make_sampler
from orchestrator.search.spec import SearchSpec
from orchestrator.spec_model import SweepSpec

Params = dict[str, Scalar]

MOST_PROBES = 32


def search_of(spec: SweepSpec) -> SearchSpec:
    assert spec.search is not None
    return spec.search


def fixed_parameters(spec: SweepSpec) -> Params:
    """Parameters with one value, which every trial has."""
    searched = search_of(spec).params
    return {name: values[0] for name, values in spec.parameters.items() if name not in searched}


def grid_trials(spec: SweepSpec) -> list[Params]:
    """The trials to begin with: the points of `parameters` and `include`, as far as they are searched.

    What such a point leaves open, the sampler chooses.
    """
    searched = search_of(spec).params
    if not spec.include and not any(name in searched for name in spec.parameters):
        return []
    found: list[Params] = []
    for point in expand(spec):
        params = {name: value for name, value in point.parameters.items() if name in searched}
        if params not in found:
            found.append(params)
    return found


def is_excluded(spec: SweepSpec, params: Mapping[str, Scalar]) -> bool:
    """Whether an expression of `exclude` holds; one that reads a parameter that is not set does not."""
    values = {**fixed_parameters(spec), **params}
    parsed = [expression.parse(text) for text in spec.exclude]
    return any(one.names <= values.keys() and one.holds(values) for one in parsed)


def raw_point(spec: SweepSpec, number: int, params: Mapping[str, Scalar], taken: Collection[str] = ()) -> RawPoint:
    """The point of one trial, before its configuration is composed.

    Args:
        number: of the trial; its place among the points.
        taken: names of other points.
    """
    parameters = {**fixed_parameters(spec), **params}
    template = (spec.job_name or "{name}-t{index}").replace("{index}", str(number))
    name = point_names(template, spec.name, [parameters])[0]
    if name in taken:
        suffix = f"-t{number}"
        name = safe_name(name, POINT_NAME_LENGTH - len(suffix)) + suffix
    return RawPoint(
        index=number,
        name=name,
        parameters=parameters,
        replicate={},
        overrides=(*spec.overrides, *(assignment(spec.target(key), value) for key, value in parameters.items())),
    )


def probes(spec: SweepSpec) -> Iterator[RawPoint]:
    """Points at the corners of the search, at most `MOST_PROBES`: to check overrides and to bound what a trial may take."""
    domains = search_of(spec).domains
    corners = product(*(domain.corners() for domain in domains.values()))
    seen: list[Params] = []
    for values in islice(corners, MOST_PROBES):
        params = active(search_of(spec), fixed_parameters(spec), dict(zip(domains, values, strict=True)))
        if params not in seen:
            seen.append(params)
            yield raw_point(spec, len(seen) - 1, params)


def check_search(spec: SweepSpec) -> None:
    """What can be said of a search before it starts, beyond the rules of the file.

    Raises:
        SpecError: more grid points than trials, or no such sampler, pruner or argument.
        EnvironmentProblem: the sampler needs a package that is not installed.
    """
    search = search_of(spec)
    grid = grid_trials(spec)
    if len(grid) > search.trials:
        message = f"{len(grid)} points of the grid run first, and there are {search.trials} trials"
        raise spec.error(("search", "trials"), message, "raise it, or name fewer points")
    try:
        make_sampler(search, 0)
        make_pruner(search)
    except SpecError as error:  # with its key alone, as neither knows the file
        raise spec.error(tuple((error.key or "search").split(".")), error.message, error.hint) from None


def trial_count(spec: SweepSpec) -> int:
    """How many trials there will be at most; the sampler grid has an end of its own."""
    search = search_of(spec)
    if search.sampler.name != "grid":
        return search.trials
    size = 1
    for domain in search.domains.values():
        size *= len(domain.values() or ())
    return min(search.trials, size + len(grid_trials(spec)))
