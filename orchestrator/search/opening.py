"""Opening the search of a sweep, and refusing one that would not be the search that it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.clock import Clock
from orchestrator.compose import point_composer
from orchestrator.errors import UsageError
from orchestrator.model import Point
from orchestrator.paths import RootPaths
from orchestrator.search.driver import Search
from orchestrator.search.points import fixed_parameters, grid_trials, search_of
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store

DECIDES = ("config", "profile", "overrides", "parameters", "alias", "identity")
"""Keys of the sweep file without which trials are not of one search; those of `search`:"""
DECIDES_SEARCH = ("objectives", "params", "when", "constraints", "reference")


@contextmanager
def open_search(
    spec: SweepSpec, store: Store, paths: RootPaths, clock: Clock, predict: Callable[[Point], Point], gpus: int
) -> Iterator[Search | None]:
    """The search of a sweep, journal and store brought to say the same; None where the sweep file has none.

    Args:
        spec: the sweep; its lock is held.
        predict: adds what a point is expected to take.
        gpus: of one attempt.
    """
    if spec.search is None:
        yield None
        return
    from orchestrator.search.study import open_study  # imports Optuna

    search = search_of(spec)
    with point_composer(spec) as compose:
        study = open_study(paths.journal(spec.name), spec.name, search, fixed_parameters(spec), grid_trials(spec))
        opened = Search(spec, store, study, paths, clock, compose, predict, gpus)
        opened.begin()
        yield opened


def refuse_changed(before: Mapping[str, Any] | None, spec: SweepSpec) -> None:
    """A search goes on only as the search that it was; trials, sampler, seed and budget may change.

    Args:
        before: the sweep of this name as the store has it; None: there is none.

    Raises:
        UsageError: something that decides what a trial means has changed.
    """
    if before is None:
        return
    now, was, searched = spec.model_dump(mode="json"), before, before.get("search")
    if searched is None and spec.search is None:
        return
    if searched is None or spec.search is None:
        kind = "had no search" if searched is None else "was a search"
        raise UsageError(f"the sweep {spec.name} {kind} when it ran here; give this one another name")
    changed = [key for key in DECIDES if now[key] != was.get(key)]
    changed += [f"search.{key}" for key in DECIDES_SEARCH if now["search"][key] != searched.get(key)]
    if changed:
        raise UsageError(
            f"{', '.join(changed)} of the search {spec.name} changed since it ran here: its trials cannot be compared with "
            "what would follow; give this one another name"
        )
