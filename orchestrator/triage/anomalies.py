"""Flags on a run: figures that cannot be, results that look wrong, ends that do not fit. They never change a verdict.

Each code is one pure function over `Evidence`; `find_anomalies` runs them all. Messages carry the numbers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.model import Anomaly, Verdict
from orchestrator.triage.completion import (
    is_complete,
    missing_npz,
    missing_steps,
    reports_failure,
    unreadable_npz,
)
from orchestrator.triage.evidence import GIB, Evidence

SAMPLING_MARGIN = 1.05
"""A card is sampled, and a short peak may be missed: torch's figure must exceed the samples by more than this to be doubted."""
RESIDUAL_LIMIT = 1e-3
"""Relative residual above which scores are not to be trusted to three digits."""
OUTLIER_RATIO = 1.5
OUTLIER_MADS = 5.0
OUTLIER_PEERS = 4

# verl 0.9 calls them actor/perf/..., older verl and our trainer perf/...; all are GiB (bytes / 1024^3) whatever their name says
_TORCH_PEAK = re.compile(r"(?:^|/)perf/max_memory_(?:allocated|reserved)_gb$")
_DEVICE_PEAK = re.compile(r"(?:^|/)perf/physical_memory_peak_gb$")
_HOST_USED = re.compile(r"(?:^|/)perf/cpu_memory_used_gb$")
_ROWS = re.compile(r"(?:^|/)influence_trace/rows_emitted$")
_INFLUENCE_TIME = re.compile(r"(?:^|/)timing_s/influence_")
_GRAD_NORM = re.compile(r"(?:^|/)grad_norm$")
_RESIDUAL = re.compile(r"influence.*residual")
_STEP_TIME = "timing_s/step"

Rule = Callable[[Evidence], Anomaly | None]


@dataclass(frozen=True)
class Earlier:
    """An attempt at the same point, before this one."""

    verdict: Verdict
    pool: str | None = None


@dataclass(frozen=True)
class Lineage:
    """What only the sweep's history shows of an attempt."""

    earlier: tuple[Earlier, ...] = ()
    pool: str | None = None
    """Where it ran."""
    peer_step_seconds: tuple[float, ...] = ()
    """Seconds a step of runs that should take as long: same pool, settings of the same cost."""


def find_anomalies(
    evidence: Evidence, verdict: Verdict | None = None, lineage: Lineage | None = None
) -> tuple[Anomaly, ...]:
    """All flags of one attempt that came to `verdict`."""
    lineage = lineage or Lineage()
    found = [rule(evidence) for rule in RULES]
    seconds = step_seconds(evidence)
    found.append(oom_recovered(verdict, lineage))
    found.append(throughput_outlier(seconds, lineage.peer_step_seconds) if seconds is not None else None)
    return tuple(anomaly for anomaly in found if anomaly is not None)


def memory_metric_unreliable(evidence: Evidence) -> Anomaly | None:
    """A figure above what there is: torch's above the card, or above what NVML saw; the host's above the job's limit."""
    doubts = [doubt for doubt in (_doubt_of_torch(evidence), _doubt_of_host(evidence)) if doubt]
    return Anomaly("memory_metric_unreliable", "; ".join(doubts)) if doubts else None


def _doubt_of_torch(evidence: Evidence) -> str | None:
    peaks = [(value, name, step) for step, name, value in _values(evidence, _TORCH_PEAK) if math.isfinite(value)]
    if not peaks:
        return None
    gib, name, step = max(peaks)
    card, nvml = evidence.card_bytes, evidence.gpu_peak_bytes
    seen = {"NVML saw": nvml} if nvml is not None else {}
    if card is not None or nvml is not None:  # a job without a GPU reports the host's memory under this name
        own = [value for _, _, value in _values(evidence, _DEVICE_PEAK) if math.isfinite(value) and value > 0]
        seen |= {"the job itself saw": int(max(own) * GIB)} if own else {}
    above_card = card is not None and gib * GIB > card
    above_seen = bool(seen) and gib * GIB > max(seen.values()) * SAMPLING_MARGIN
    if not (above_card or above_seen):
        return None
    known = [f"the card has {card / GIB:.1f} GiB"] if card is not None else []
    known += [f"{who} {used / GIB:.1f} GiB at most" for who, used in seen.items()]
    return (
        f"torch reports a peak of {gib:.1f} GiB ({name}, step {step}), but {' and '.join(known)}: torch also counts memory "
        "that a sleeping rollout engine in the same process has given back to the card"
    )


def _doubt_of_host(evidence: Evidence) -> str | None:
    limit = evidence.host_limit_bytes
    if limit is None:
        return None
    allowed = f"the job's control group allows {limit / GIB:.1f} GiB"
    if evidence.host_peak_bytes is not None and evidence.host_peak_bytes > limit:
        return (
            f"the job's processes were seen to hold {evidence.host_peak_bytes / GIB:.1f} GiB of host memory, but {allowed}: "
            "not all of them are in that group"
        )
    claims = [(value, name, step) for step, name, value in _values(evidence, _HOST_USED) if math.isfinite(value)]
    gib, name, step = max(claims, default=(0.0, "", 0))
    if gib * GIB <= limit:
        return None
    return (
        f"verl reports {gib:.1f} GiB of host memory ({name}, step {step}), but {allowed}: verl's figure is of the whole "
        "node, whoever uses it"
    )


def nonzero_exit_after_completion(evidence: Evidence) -> Anomaly | None:
    if not (is_complete(evidence) and reports_failure(evidence)):
        return None
    ends = {"exit code": evidence.exit_code, "signal": evidence.signal, "scheduler status": evidence.scheduler_reason}
    said = ", ".join(f"{what} {value}" for what, value in ends.items() if value)
    return Anomaly(
        "nonzero_exit_after_completion",
        f"all {len(evidence.steps)} steps are done and every score file is valid, yet the job ended with {said}",
    )


def nan_scores(evidence: Evidence) -> Anomaly | None:
    bad = [file for file in evidence.npz if file.nan_in_valid]
    if not bad:
        return None
    each = "; ".join(f"{file.file}: {file.nan_in_valid:,} of {file.valid:,}" for file in bad[:3])
    more = f"; and {len(bad) - 3} more files" if len(bad) > 3 else ""
    return Anomaly("nan_scores", f"NaN where a score should be: {each}{more}")


def no_rows_emitted(evidence: Evidence) -> Anomaly | None:
    steps = sorted({step for step, _, value in _values(evidence, _ROWS) if value == 0})
    files = [file.file for file in evidence.npz if file.error is None and not file.valid]
    if not (steps or files):
        return None
    said = [f"rows_emitted is 0 in {_steps(steps)}"] if steps else []
    said += [f"no valid position in {', '.join(files[:3])}"] if files else []
    return Anomaly("no_rows_emitted", "no influence scores came out: " + "; ".join(said))


def timing_all_zero(evidence: Evidence) -> Anomaly | None:
    times: dict[int, list[float]] = {}
    for step, _, value in _values(evidence, _INFLUENCE_TIME):
        times.setdefault(step, []).append(value)
    emitted = _steps_with_rows(evidence)
    zero = [step for step, values in times.items() if step in emitted and not any(values)]
    if not zero:
        return None
    return Anomaly(
        "timing_all_zero",
        f"all {len(times[zero[0]])} timings timing_s/influence_* are 0 in {_steps(zero)} although rows were emitted: "
        "the timers were reset before they were read",
    )


def missing_npz_files(evidence: Evidence) -> Anomaly | None:
    count = missing_npz(evidence)
    if not count:
        return None
    return Anomaly("missing_npz", f"{len(evidence.npz)} of {len(evidence.npz) + count} score files are there")


def corrupt_npz(evidence: Evidence) -> Anomaly | None:
    bad = unreadable_npz(evidence)
    if not bad:
        return None
    return Anomaly("corrupt_npz", "; ".join(f"{file.file}: {file.error}" for file in bad[:3]))


def incomplete_steps(evidence: Evidence) -> Anomaly | None:
    missing = missing_steps(evidence)
    if not missing:
        return None
    return Anomaly(
        "incomplete_steps",
        f"{len(evidence.steps)} of {evidence.expected_steps} steps logged; {_steps(missing)} missing",
    )


def grad_norm_nonfinite(evidence: Evidence) -> Anomaly | None:
    bad = [(step, name, value) for step, name, value in _values(evidence, _GRAD_NORM) if not math.isfinite(value)]
    if not bad:
        return None
    return Anomaly(
        "grad_norm_nonfinite", f"{bad[0][1]} is {bad[0][2]} in {_steps(sorted({step for step, _, _ in bad}))}"
    )


def restarted_after_completion(evidence: Evidence) -> Anomaly | None:
    if not evidence.restarted or not evidence.steps or missing_steps(evidence):
        return None
    return Anomaly(
        "restarted_after_completion",
        f"steps began again after step {max(evidence.steps)} had been reached: the scheduler ran the finished job once more",
    )


def solver_residual_high(evidence: Evidence) -> Anomaly | None:
    high = [
        (math.inf if math.isnan(value) else value, name, step)
        for step, name, value in _values(evidence, _RESIDUAL)
        if not value <= RESIDUAL_LIMIT
    ]
    if not high:
        return None
    value, name, step = max(high)
    return Anomaly("solver_residual_high", f"{name} is {value:.2g} in step {step}, above {RESIDUAL_LIMIT:g}")


def log_truncated(evidence: Evidence) -> Anomaly | None:
    if not evidence.log_truncated:
        return None
    return Anomaly("log_truncated", f"the log ends in the middle of line {evidence.log_lines}")


RULES: tuple[Rule, ...] = (
    memory_metric_unreliable,
    nonzero_exit_after_completion,
    nan_scores,
    no_rows_emitted,
    timing_all_zero,
    missing_npz_files,
    corrupt_npz,
    incomplete_steps,
    grad_norm_nonfinite,
    restarted_after_completion,
    solver_residual_high,
    log_truncated,
)


# ---- what only the sweep's history shows -----------------------------------------------------------------------------


def oom_recovered(verdict: Verdict | None, lineage: Lineage) -> Anomaly | None:
    """The point completed after attempts that ran out of memory."""
    failed = [one for one in lineage.earlier if one.verdict in (Verdict.GPU_OOM, Verdict.HOST_OOM)]
    if verdict is not Verdict.COMPLETED or not failed:
        return None
    times = Counter(
        f"{'GPU' if one.verdict is Verdict.GPU_OOM else 'host'} memory" + (f" on {one.pool}" if one.pool else "")
        for one in failed
    )
    ran_out = " and ".join(what if count == 1 else f"{what} {count} times" for what, count in times.items())
    return Anomaly(
        "oom_recovered", f"ran out of {ran_out}, then completed" + (f" on {lineage.pool}" if lineage.pool else "")
    )


def step_seconds(evidence: Evidence) -> float | None:
    """Median seconds a training step, or None where no step said."""
    times = [
        values[_STEP_TIME] for values in evidence.metrics.values() if math.isfinite(values.get(_STEP_TIME, math.nan))
    ]
    return median(times) if times else None


def throughput_outlier(seconds: float, peers: Collection[float]) -> Anomaly | None:
    """A run whose steps take far longer or shorter than those of runs that should take as long.

    Args:
        seconds: its own seconds a step.
        peers: those of the other runs, on the same pool and with settings of the same cost.
    """
    if len(peers) < OUTLIER_PEERS:
        return None
    middle = median(peers)
    spread = median(abs(peer - middle) for peer in peers)
    ratio = max(seconds, middle) / min(seconds, middle) if min(seconds, middle) > 0 else math.inf
    if ratio < OUTLIER_RATIO or abs(seconds - middle) <= OUTLIER_MADS * spread:
        return None
    return Anomaly(
        "throughput_outlier", f"{seconds:.1f} s a step where {len(peers)} comparable runs take {middle:.1f} s"
    )


# ---- reading metrics -------------------------------------------------------------------------------------------------


def _values(evidence: Evidence, names: re.Pattern[str]) -> Iterator[tuple[int, str, float]]:
    """(step, name, value) of every metric whose name fits, by step."""
    for step, values in sorted(evidence.metrics.items()):
        for name, value in values.items():
            if names.search(name):
                yield step, name, value


def _steps_with_rows(evidence: Evidence) -> set[int]:
    """Steps in which influence scores came out, by the metric or by the files."""
    by_metric = {step for step, _, value in _values(evidence, _ROWS) if value > 0}
    return by_metric | {file.step for file in evidence.npz if file.valid and file.step is not None}


def _steps(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:5])) + (f", ... ({len(steps)} in all)" if len(steps) > 5 else "")
    return f"step{'s' * (len(steps) > 1)} {shown}"
