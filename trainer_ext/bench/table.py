"""A report as markdown: the ceilings, then what was reached, then what bounds it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from trainer_ext.bench.cases import ERROR_TARGETS, PEAK_TARGET_GIB, REFERENCE_NOTE
from trainer_ext.bench.ceilings import Ceilings
from trainer_ext.bench.report import CaseReport, Report, Setup

NONE = "-"
"""Not measured, or nothing to compare with."""

SPEED = (
    *("case", "factor", "s", "start-up s", "reference s", "reach s", "plain s", "peak GiB"),
    *("plain GiB", "error fast", "error fp32", "error plain"),
)
BOUNDS = (
    *("case", "route", "worst residual", "phases s", "work", "rate", "of GEMM", "bytes", "rate", "of copy"),
    *("floor s", "nearer bound"),
)


def render(report: Report) -> str:
    """Markdown, ending in a newline."""
    parts = [
        _heading(report),
        markdown(SPEED, [_speed(case, report.setup) for case in report.cases]),
        markdown(BOUNDS, [_bounds(case) for case in report.cases]),
        _notes(report),
    ]
    failures = [f"- {case.name}: {failure}" for case in report.cases for failure in case.failures]
    if failures:
        parts.append("\n".join(["Failed:", *failures]))
    return "\n\n".join(parts) + "\n"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns line up in plain text too."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    padded = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (padded[0], rule, *padded[1:]))


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, without an exponent where that reads well: 0.0123, 1.23, 970, 12,345, 1.23e-05."""
    if value is None:
        return NONE
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    exponent = math.floor(math.log10(abs(value)))
    if not -3 <= exponent < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def scaled(value: float, unit: str) -> str:
    """With a decimal prefix: 6.79e13 FLOP is 67.9 TFLOP."""
    power = min(5, max(0, math.floor(math.log10(value) / 3))) if value > 0 else 0
    return f"{number(value / 1000**power)} {('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"


def percent(value: float) -> str:
    return f"{100 * value:.0f}%" if value >= 0.1 else f"{100 * value:.1f}%"


def _heading(report: Report) -> str:
    env, setup = report.environment, report.setup
    lines = [
        f"{setup.model}, {setup.layers} layer(s) = {setup.modules} modules, T={setup.tokens:,} tokens, "
        f"R={setup.prompts * setup.per_prompt} responses ({setup.prompts} prompts x {setup.per_prompt}), "
        f"precision {setup.precision}, solver {setup.solver}, median of {setup.repeats}",
        f"{env.device}, torch {env.torch}, {env.date}, commit {env.commit or 'unknown'}"
        + (f", {env.note}" if env.note else ""),
        _ceilings(report.ceilings),
    ]
    return "\n".join(lines)


def _ceilings(ceilings: Ceilings) -> str:
    rates = (("fp16", ceilings.fp16_flops), ("fp32", ceilings.fp32_flops), ("fp64", ceilings.fp64_flops))
    products = ", ".join(f"{name} {scaled(rate, 'FLOP/s')}" for name, rate in rates if rate is not None)
    return (
        f"Ceilings of the device, measured now: products of {ceilings.gemm_size}^3: {products}; "
        f"copy {scaled(ceilings.copy_bytes, 'B/s')}"
    )


def _speed(case: CaseReport, setup: Setup) -> list[str]:
    run = case.run
    compares = setup.reference_shape
    return [
        case.name,
        str(case.factor),
        number(run.seconds) if run else "failed",
        number(run.startup_seconds) if run else NONE,
        _against(case.reference_s, run.seconds if run else None) if compares else NONE,
        _reached(case.target_s, run.seconds if run else None) if compares else NONE,
        _against(case.plain_seconds, run.seconds if run else None),
        number(run.peak_gib) if run else NONE,
        number(case.plain_peak_gib),
        *(number(case.error(name)) for name in ("fast", "fp32", "plain")),
    ]


def _bounds(case: CaseReport) -> list[str]:
    run, bound, work = case.run, case.bound, case.work
    if run is None or bound is None:
        return [case.name, *[NONE] * (len(BOUNDS) - 1)]
    return [
        case.name,
        ", ".join(f"{route} x{count}" for route, count in run.routes.items()),
        number(run.residual),
        ", ".join(f"{name} {number(seconds)}" for name, seconds in run.phases.items()),
        scaled(work.flops, "FLOP"),
        scaled(bound.flops_per_s, "FLOP/s"),
        percent(bound.flops_share),
        scaled(work.bytes, "B"),
        scaled(bound.bytes_per_s, "B/s"),
        percent(bound.bytes_share),
        number(bound.floor_s),
        bound.nearer,
    ]


def _against(other: float | None, seconds: float | None) -> str:
    """`970 (65x)`: the other's seconds, and how many times faster this is."""
    if other is None or seconds is None:
        return number(other)
    return f"{number(other)} ({number(other / seconds, 2)}x)"


def _reached(target: float, seconds: float | None) -> str:
    if seconds is None:
        return number(target)
    return f"{number(target)} ({'yes' if seconds <= target else 'no'})"


def _notes(report: Report) -> str:
    goals = ", ".join(f"{name} {goal:.0e}" for name, goal in ERROR_TARGETS.items())
    lines = [
        "- s: all modules, one call, factors and scores on the device; start-up s: one module of each type, the first "
        "call (kernels, calibration), not in s",
        f"- {REFERENCE_NOTE if report.setup.reference_shape else 'reference and reach: - (another shape or device)'}",
        "- plain s: the plain implementation in this run, 1 module of each type x count (types of equal shape are "
        "measured once); (x): how many times as long as s",
        f"- peak GiB: beyond the factors (goal at factor 32: {number(PEAK_TARGET_GIB)}); error: rms relative to fp64 on "
        f"unrounded factors, the worst module (goals: {goals})",
        "- work, bytes: the least that the direct or the dual route needs, refinement not counted; of GEMM, of copy: "
        "share of the fastest product and of the copy",
        "- phases: the engine's own timing of the median call, all modules together",
        *_shared_layers(report),
    ]
    return "\n".join(lines)


def _shared_layers(report: Report) -> list[str]:
    layers = report.setup.layers
    shared = [case for case in report.cases if case.run is not None and case.distinct_layers < layers]
    return [
        f"- {case.name}: {case.distinct_layers} of {layers} layers have factors of their own "
        f"({number(case.factor_gib)} GiB), the others reuse them"
        for case in shared
    ]
