"""The checks a reader would make by hand, each with what it stands on: figures, and the files and lines that hold them.

A check about which nothing is known is left out rather than passed. Points that never ran are judged by the first check
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reports import metrics
from reports.markdown import code, codes, literal
from reports.numbers import count, milliseconds, plural, statistics
from reports.sections.places import attempt_place, metric_places, npz_places
from reports.sections.points import jobs, tried
from reports.snapshot import PointSnapshot, SweepSnapshot
from trainer_ext import records

_MOST_PROBLEMS = 4
_LONGEST_EVIDENCE = 160
_WATCHED = ("actor/", "influence")
"""Metrics that must be finite; others (a correlation over one value) may be NaN by right."""
_OUT_OF_MEMORY = ("gpu_oom", "host_oom")
CENTRED = 1.0
"""A mean further from zero than this many standard deviations is no contrast between accepted and rejected responses."""


@dataclass(frozen=True)
class Check:
    title: str
    evidence: str
    """Markdown."""
    passed: bool


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    found = [check for check in checks(snapshot) if check is not None]
    return {"checks": found} if found else None


def checks(snapshot: SweepSnapshot) -> list[Check | None]:
    """All checks in reading order; None where there is nothing to go by."""
    ran = tried(snapshot)
    return [
        _succeeded(snapshot),
        _recovered(ran),
        _steps_complete(snapshot, ran),
        _rows_emitted(ran),
        _captured(ran),
        _timings(ran),
        _grad_norm_finite(ran),
        _no_cuda_errors(ran),
        _distribution(ran),
        _npz_intact(snapshot, ran),
        _pushed(snapshot),
    ]


def _succeeded(snapshot: SweepSnapshot) -> Check | None:
    points = snapshot.points
    if not points:
        return None
    bad = [point for point in points if point.state != "succeeded"]
    title = f"All {len(points):,} jobs succeeded" if len(points) > 1 else "The job succeeded"
    if bad:
        return Check(title, _problems(bad, lambda p: " ".join(part for part in (p.state, p.verdict) if part)), False)
    return Check(title, f"verdict `completed` from every deciding attempt's folder{_in(attempt_place(points))}", True)


def _recovered(ran: Sequence[PointSnapshot]) -> Check | None:
    """Every point that ran out of memory got through in the end."""
    hit = [point for point in ran if any(attempt.verdict in _OUT_OF_MEMORY for attempt in point.attempts[:-1])]
    if not hit:
        return None
    bad = [point for point in hit if point.state != "succeeded"]
    return Check("Out of memory, then recovered", _problems(bad or hit, _lineage), not bad)


def _lineage(point: PointSnapshot) -> str:
    first = next(attempt for attempt in point.attempts if attempt.verdict in _OUT_OF_MEMORY)
    seen = next((line for line in first.evidence if ".log:" in line), None)
    where = f"; {first.folder}/{seen}" if seen and first.folder else ""
    last = point.attempts[-1]
    then = f"{last.verdict or last.state}{f' on {last.pool}' if last.pool else ''}"
    return f"{first.verdict}{f' on {first.pool}' if first.pool else ''}, then {then}{where}"


def _steps_complete(snapshot: SweepSnapshot, ran: Sequence[PointSnapshot]) -> Check | None:
    expected = snapshot.expected_steps
    if expected is None or not ran:
        return None
    short = [point for point in ran if len(point.metrics) < expected]
    title = f"{plural(expected, 'step')} complete"
    if short:
        return Check(
            title, _problems(short, lambda p: f"{len(p.metrics)} of {expected} in {_file(p, records.METRICS)}"), False
        )
    return Check(title, f"{plural(len(ran), 'job')} with all steps{_in(metric_places(ran))}", True)


def _rows_emitted(ran: Sequence[PointSnapshot]) -> Check | None:
    return _series_check("`rows_emitted > 0` all steps", ran, metrics.ROWS_EMITTED, lambda value: value > 0, _counts)


def _captured(ran: Sequence[PointSnapshot]) -> Check | None:
    return _series_check("Captured response tokens", ran, metrics.CAPTURED, lambda value: value > 0, _counts)


def _timings(ran: Sequence[PointSnapshot]) -> Check | None:
    title = "Timing metrics non-zero"
    return _series_check(
        title, ran, metrics.POP_ROWS, lambda value: value > 0, lambda values: [*map(milliseconds, values)]
    )


def _grad_norm_finite(ran: Sequence[PointSnapshot]) -> Check | None:
    return _series_check("`grad_norm` finite", ran, metrics.GRAD_NORM, math.isfinite, statistics)


def _counts(values: Sequence[float]) -> list[str]:
    return [*map(count, values)]


def _series_check(
    title: str,
    ran: Sequence[PointSnapshot],
    names: metrics.Names,
    holds: Callable[[float], bool],
    formatted: Callable[[list[float]], list[str]],
) -> Check | None:
    """Every value of one metric holds; evidence is the common series, or the range over jobs."""
    found = [(point, metrics.series(point, names)) for point in ran]
    found = [(point, values) for point, values in found if values]
    if not found:
        return None
    bad = {point.id: [step for step, value in values.items() if not holds(value)] for point, values in found}
    failing = [point for point, _ in found if bad[point.id]]
    if failing:
        return Check(title, _problems(failing, lambda p: f"step {bad[p.id][0]} in {_file(p, records.METRICS)}"), False)
    values = [value for _, series in found for value in series.values()]
    low, high = formatted([min(values), max(values)])
    scope = "all jobs" if len(found) == len(ran) else f"{len(found)} of {len(ran)} jobs"
    figures = low if low == high else f"{low} to {high}"
    named = next(name for name in names if any(name in values for p, _ in found for values in p.metrics.values()))
    return Check(title, f"{figures} across {scope} ({code(named)}{_in(metric_places([p for p, _ in found]))})", True)


def _no_cuda_errors(ran: Sequence[PointSnapshot]) -> Check | None:
    if not ran:
        return None
    bad = [point for point in ran if _cuda_or_nan(point)]
    title = "No CUDA errors / NaN"
    if bad:
        return Check(title, _problems(bad, _cuda_or_nan), False)
    valid = sum(file.valid for point in ran for file in point.npz)
    retried = any(len(p.attempts) > 1 for p in ran)
    lines = sum(point.log_lines for point in ran)
    whose = "logs of the deciding attempts" if retried else "logs"
    parts = [f"no CUDA error in the {whose}" if any(point.errors for point in ran) else f"{whose} clean"]
    parts[0] += f" ({plural(lines, 'line')}{_in(attempt_place(ran, records.CONSOLE))})" if lines else ""
    figures = [value for point in ran for values in point.metrics.values() for value in values.values()]
    finite = "metrics finite" if all(map(math.isfinite, figures)) else "metrics of the actor and the trace finite"
    parts += [finite] if figures else []
    parts += [f"{count(valid)} valid NPZ positions, 0 NaN"] if valid else []
    for where, moved in ((", on a smaller pool", True), (", in an earlier attempt", False)):
        recovered = [point for point in ran if _out_of_memory_elsewhere(point) is moved]
        parts += [f"out of memory before{where}: {jobs(recovered, len(ran))}"] if recovered else []
    return Check(title, "; ".join(parts), True)


def _out_of_memory_elsewhere(point: PointSnapshot) -> bool | None:
    """Whether every earlier attempt that ran out of GPU memory was on another pool than the last; None: none did."""
    pools = [attempt.pool for attempt in point.attempts[:-1] if attempt.verdict == "gpu_oom"]
    return point.attempts[-1].pool not in pools if pools else None


def _cuda_or_nan(point: PointSnapshot) -> str:
    """What is wrong with a point in this respect; empty when nothing is."""
    lines = [line for line in (*point.errors, *point.evidence) if "cuda" in line.lower()]
    if lines or point.verdict == "gpu_oom":
        return _file(point, lines[0]) if lines else "gpu_oom"
    lost = sum(file.nan_in_valid for file in point.npz)
    if lost:
        return f"{count(lost)} NaN among valid scores"
    watched = sorted(
        name for values in point.metrics.values() for name, value in values.items() if not math.isfinite(value)
    )
    return next((f"{name} is not finite" for name in watched if name.startswith(_WATCHED)), "")


def _distribution(ran: Sequence[PointSnapshot]) -> Check | None:
    """Scores of a contrast spread around zero; one that does not spread, or lies to one side, is no contrast."""
    files = [(p, f) for p in ran for f in p.npz if f.error is None and f.mean is not None and f.std is not None]
    if not files:
        return None
    off = [(p, f) for p, f in files if not _is_contrast(f.mean or 0.0, f.std or 0.0)]
    title = "Score distribution sane"
    if off:
        said = {p.id: f"{f.file}: mean {f.mean:.3g}, std {f.std:.3g}" for p, f in reversed(off)}
        return Check(title, _problems(list({p.id: p for p, _ in off}.values()), lambda p: said[p.id]), False)
    low, high = statistics([min(f.std or 0 for _, f in files), max(f.std or 0 for _, f in files)])
    furthest = max(abs(f.mean or 0) / (f.std or 1) for _, f in files)
    spread = f"std {low}" if low == high else f"stds {low} to {high}"
    return Check(title, f"{spread}; means within {furthest:.2g} std of 0{_in(npz_places(ran))}", True)


def _is_contrast(mean: float, std: float) -> bool:
    return 0 < std < math.inf and abs(mean) <= CENTRED * std


def _npz_intact(snapshot: SweepSnapshot, ran: Sequence[PointSnapshot]) -> Check | None:
    files = [file for point in ran for file in point.npz]
    if not ran or (not files and not snapshot.expected_npz):
        return None
    expected = snapshot.expected_npz or 0
    bad = [point for point in ran if len(point.npz) < expected or any(file.error for file in point.npz)]
    if bad:
        return Check("NPZ intact", _problems(bad, lambda p: _npz_problem(p, expected)), False)
    sizes = sorted(file.bytes for file in files if file.bytes)
    ends = list(dict.fromkeys(_megabytes(size) for size in (sizes[0], sizes[-1]))) if sizes else []
    size = f", {' to '.join(ends)} MB" if ends else ""
    said = f"{plural(len(files), 'file')} of {plural(len(ran), 'job')} read without pickle{size}{_in(npz_places(ran))}"
    return Check("NPZ intact", said, True)


def _megabytes(size: int) -> str:
    """10^6 bytes, at least a digit of it."""
    return f"{size / 1e6:,.1f}" if size >= 1e5 else f"{size / 1e6:.2g}"


def _npz_problem(point: PointSnapshot, expected: int) -> str:
    broken = next((file for file in point.npz if file.error), None)
    return f"{broken.file}: {broken.error}" if broken else f"{len(point.npz)} of {plural(expected, 'file')}"


def _problems(points: Sequence[PointSnapshot], what: Callable[[PointSnapshot], str]) -> str:
    """`job`: what, for the first few; how many more."""
    named = [f"{codes([point.name])}: {literal(_shortened(what(point)))}" for point in points[:_MOST_PROBLEMS]]
    rest = len(points) - _MOST_PROBLEMS
    return "; ".join(named) + (f"; and {rest} more" if rest > 0 else "")


def _file(point: PointSnapshot, name: str) -> str:
    return f"{point.folder}/{name}" if point.folder else name


def _shortened(words: str) -> str:
    return words if len(words) <= _LONGEST_EVIDENCE else words[: _LONGEST_EVIDENCE - 1].rstrip() + "…"


def _in(places: str) -> str:
    return f"; {places}" if places else ""


def _pushed(snapshot: SweepSnapshot) -> Check | None:
    git = snapshot.git
    if git is None or git.pushed is None:
        return None
    where = code(git.remote) if git.remote else "the remote"
    said = f"commit {code(git.commit[:10])} {'was' if git.pushed else 'was not'} seen on {where}"
    return Check("Code pushed to remote", said, git.pushed)
