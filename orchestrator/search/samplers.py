"""Optuna's samplers and pruners by name or dotted path. Optuna is imported when one is made.

A sampler is made anew for every trial, from the search's seed and the trial's number. So what it proposes follows from the
trials so far and nothing else, and a search that was killed and resumed goes on as one that was not.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import EnvironmentProblem, SpecError
from orchestrator.search.spec import PruneSpec, SamplerSpec, SearchSpec
from orchestrator.suggest import did_you_mean

SAMPLERS: Mapping[str, str] = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
    "cmaes": "CmaEsSampler",
    "nsga2": "NSGAIISampler",
    "gp": "GPSampler",
}
PRUNERS: Mapping[str, str] = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "threshold": "ThresholdPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}
SINGLE_OBJECTIVE = ("cmaes",)
WANTS_VALUES = ("cmaes", "nsga2", "gp")
"""Learn from completed trials alone: one that did not fit is told with the worst values so far."""
_NEEDS: Mapping[str, tuple[str, ...]] = {"cmaes": ("cmaes",), "gp": ("torch", "scipy")}


def trial_seed(seed: int, number: int) -> int:
    """The sampler's seed for one trial, 32 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")


def make_sampler(search: SearchSpec, number: int) -> Any:
    """The sampler that proposes trial `number`.

    Raises:
        EnvironmentProblem: it needs a package that is not installed.
        SpecError: no such sampler or argument.
    """
    spec = search.sampler
    if package := missing_package(spec.name, importlib.util.find_spec):
        needed = " ".join(_NEEDS[spec.name])
        raise EnvironmentProblem(f"search.sampler: {spec.name} needs {package}: pip install {needed}")
    arguments = spec.arguments
    if spec.name == "grid":  # its seed shuffles the grid, which must stay as it is
        arguments = {"search_space": {name: list(domain.values() or ()) for name, domain in search.domains.items()}}
        return _made("sampler", spec, "optuna.samplers", SAMPLERS, {**arguments, **spec.arguments, "seed": search.seed})
    return _made("sampler", spec, "optuna.samplers", SAMPLERS, arguments, trial_seed(search.seed, number))


def missing_package(sampler: str, find: Callable[[str], object | None]) -> str | None:
    """The first package that a sampler needs beside Optuna and `find` does not find."""
    return next((package for package in _NEEDS.get(sampler, ()) if find(package) is None), None)


def make_pruner(search: SearchSpec) -> Any:
    """The pruner that the sweep file asks for, or one that never prunes.

    Raises:
        SpecError: no such pruner or argument.
    """
    import optuna

    if search.prune is None:
        return optuna.pruners.NopPruner()
    return _made("prune", search.prune, "optuna.pruners", PRUNERS, search.prune.arguments)


def _made(
    key: str,
    spec: SamplerSpec | PruneSpec,
    module: str,
    known: Mapping[str, str],
    arguments: Mapping[str, Any],
    seed: int | None = None,
) -> Any:
    path = f"{module}.{known[spec.name]}" if spec.name in known else spec.name
    holder, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(holder), name)
        accepted = inspect.signature(kind).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SpecError(f"cannot import {path}: {error}", key=f"search.{key}") from None
    for argument in arguments:
        if argument not in accepted and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            raise SpecError(
                f"{name} has no argument `{argument}`", key=f"search.{key}", hint=did_you_mean(argument, accepted)
            )
    if seed is not None and "seed" in accepted:
        arguments = {"seed": seed, **arguments}
    try:
        with warnings.catch_warnings():  # Optuna calls some of its samplers experimental, every time
            warnings.simplefilter("ignore")
            return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{name}: {error}", key=f"search.{key}") from None
