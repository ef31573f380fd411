"""The figures of one settled point, from its evidence, its attempts and its score files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger import AttemptRow
from orchestrator.search.fidelity import NotComparable, fidelity
from orchestrator.search.figures import FIDELITY, Figure
from orchestrator.triage.evidence import GIB, Evidence


class NoFigure(ValueError):
    """A point has no such figure; the message says why, for the user."""


@dataclass(frozen=True)
class Facts:
    """What figures are taken from."""

    evidence: Evidence
    history: tuple[AttemptRow, ...]
    gpus: int
    """Of one attempt."""
    folder: Path
    """Of the attempt that decided."""
    reference: Callable[[], Path]
    """The first score file of the point's reference; raises `NoFigure`."""


def read_figure(figure: Figure, facts: Facts) -> float:
    """Raises: NoFigure: it was not measured or not logged."""
    if figure.name == FIDELITY:
        return _fidelity(facts)
    if figure.is_series:
        return figure.reduce(_series(figure.name, facts.evidence))
    value = _resource(figure.name, facts)
    if value is None:
        raise NoFigure(f"{figure.name} was not measured")
    return value


def _series(name: str, evidence: Evidence) -> list[float]:
    """By step, ascending."""
    group, _, statistic = name.partition("/")
    if group == "npz":
        files = sorted((file for file in evidence.npz if file.error is None), key=lambda file: file.step or 0)
        found = [getattr(file, statistic) for file in files]
    else:
        found = [values.get(name) for _, values in sorted(evidence.metrics.items())]
    values = [float(value) for value in found if value is not None]
    if not values:
        raise NoFigure(f"{name} was not logged")
    return values


def _resource(name: str, facts: Facts) -> float | None:
    last = facts.history[-1]
    match name:
        case "memory":
            return facts.evidence.gpu_peak_bytes and facts.evidence.gpu_peak_bytes / GIB
        case "host_memory":
            return facts.evidence.host_peak_bytes and facts.evidence.host_peak_bytes / GIB
        case "seconds":
            return _seconds(last)
        case "gpu_hours":
            return sum(_seconds(attempt) or 0.0 for attempt in facts.history) * facts.gpus / 3600
    raise NoFigure(f"{name} is no figure")


def _seconds(attempt: AttemptRow) -> float | None:
    if attempt.started_at is None or attempt.ended_at is None:
        return None
    return attempt.ended_at - attempt.started_at


def _fidelity(facts: Facts) -> float:
    own, reference = first_scores(facts.folder, facts.evidence), facts.reference()
    try:
        return fidelity(own, reference)
    except NotComparable as error:
        raise NoFigure(f"{FIDELITY}: {error}") from None


def first_scores(folder: Path, evidence: Evidence) -> Path:
    """The score file of the first step that has one. Raises: NoFigure: there is none."""
    files = sorted((file for file in evidence.npz if file.error is None), key=lambda file: file.step or 0)
    if not files:
        raise NoFigure(f"{FIDELITY}: there is no score file")
    return folder / files[0].file
