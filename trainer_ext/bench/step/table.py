"""A step report as markdown: what the trace adds to a step, then where its time goes, then memory."""

from __future__ import annotations

from trainer_ext.bench.step.cases import CASES, HOST_GOAL_GIB, OFF, StepCase
from trainer_ext.bench.step.report import INFLUENCE, UPDATE, StepReport, StepRow
from trainer_ext.bench.table import NONE, markdown, number, percent

SPEED = (
    *("case", "update_actor s", "of it forward", "backward", "trace s", "together s", "added", "reach"),
    *("trace's share", "first step s"),
)
PHASES = (
    *("forward_1", "logprob_backward", "grad_staging", "hessian_solve", "token_scoring", "score_aggregation"),
    "pop_rows",
)
"""Columns of the second table: phases of the trace as the metrics name them, without `influence_`."""
MEMORY = (
    *("case", "GPU, physical GiB", "torch's peak GiB", "rank's host GiB", "node's host GiB"),
    *("capture", "against the other"),
)

_BY_NAME = {case.name: case for case in CASES}


def render(report: StepReport) -> str:
    """Markdown, ending in a newline."""
    rows = [row for name in dict.fromkeys(row.case for row in report.rows) if (row := report.steady(name))]
    off = report.steady(OFF)
    parts = [
        _heading(report),
        markdown(SPEED, [_speed(row, off, report) for row in rows]),
        markdown(("case", *PHASES), [_phases(row) for row in rows if row.settings is not None]),
        markdown(MEMORY, [_memory(row) for row in rows]),
        _notes(),
    ]
    left_out = [f"- {name}: not measured" for name in report.missing()]
    if report.failures or left_out:
        parts.append("\n".join(["Left out:", *(f"- {failure}" for failure in report.failures), *left_out]))
    return "\n\n".join(parts) + "\n"


def _heading(report: StepReport) -> str:
    env, setup = report.environment, report.setup
    tokens = max((row.tokens for row in report.rows), default=0)
    low, high = setup.response
    lengths = f"{low:,} tokens" if low == high else f"{low:,} to {high:,} tokens"
    lines = [
        f"{setup.model}, {setup.ranks} rank(s), each with {setup.prompts} prompts x {setup.per_prompt} responses of {lengths}: "
        f"{tokens:,} response tokens a rank; through verl's {setup.through}, profile {setup.profile}",
        f"{env.device}, torch {env.torch}, {env.date}, commit {env.commit or 'unknown'}"
        + (f", {env.note}" if env.note else "")
        + (
            f"; {number(report.start_up_s)} s from the start to the first step" if report.start_up_s is not None else ""
        ),
        f"overrides: {' '.join(setup.overrides)}",
    ]
    return "\n".join(lines)


def _speed(row: StepRow, off: StepRow | None, report: StepReport) -> list[str]:
    added = row.total / off.total - 1 if off else None
    first = next(other for other in report.rows if other.case == row.case)
    return [
        row.case,
        number(row.seconds[UPDATE]),
        number(row.seconds.get("forward_2")),
        number(row.seconds.get("loss_backward")),
        number(row.seconds.get(INFLUENCE)),
        number(row.total),
        NONE if added is None or row is off else percent_signed(added),
        _reached(_BY_NAME.get(row.case), added),
        NONE if row.settings is None else percent(row.seconds.get(INFLUENCE, 0.0) / row.total),
        number(first.total) if first is not row else NONE,
    ]


def percent_signed(value: float) -> str:
    """+4.2%, -0.3%."""
    return f"{'-' if value < 0 else '+'}{percent(abs(value))}"


def _reached(case: StepCase | None, added: float | None) -> str:
    goal = case.goal if case else None
    if goal is None:
        return NONE
    return percent(goal) + ("" if added is None else f" ({'yes' if added <= goal else 'no'})")


def _phases(row: StepRow) -> list[str]:
    return [row.case, *(number(row.seconds.get(name)) for name in PHASES)]


def _memory(row: StepRow) -> list[str]:
    peaks = (number(row.memory_gib.get(name)) for name in ("device", "allocated", "process", "node"))
    return [row.case, *peaks, row.capture or NONE, number(row.agreement)]


def _notes() -> str:
    return "\n".join(
        [
            "- the last step of each case; seconds and peaks are those of the slowest and largest rank",
            "- trace s: outside the update (a pass of its own where capture is separate, then scoring); what capture costs "
            "inside the update shows in update_actor",
            "- added: together against `off`; trace's share: trace s of together",
            f"- rank's host: the goal at factor 32 is {number(HOST_GOAL_GIB)} GiB (60 GB)",
            "- against the other: rms difference of the scores from those of the other capture, relative",
        ]
    )
