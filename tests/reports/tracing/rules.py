"""Where each column's figures are stored: (table, title) -> what must stand in a cell, computed from the database alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean, linear_regression, median

from tests.reports.reading import Table
from tests.reports.tracing.figures import clock, disagreements, figures, plain
from tests.reports.tracing.stored import GIB, Job, Stored

Row = Mapping[str, str]
OfJob = Callable[[Job], list[float]]
OfRow = Callable[[Stored, Row], list[float]]

PHASES = (
    "gen", "grad_staging", "hessian_solve", "token_scoring", "score_aggregation", "pop_rows", "forward_1",
    "logprob_backward", "forward_2", "loss_backward", "update_actor", "step",
)  # fmt: skip
INSIDE = ("grad_staging", "hessian_solve", "token_scoring", "score_aggregation")


def other(job: Job) -> float:
    return job.timing("pop_rows") - sum(job.timing(phase) for phase in INSIDE)


def outside(job: Job) -> float:
    return job.seconds() - job.timing("step", 1) - job.timing("step", 2)


def share(part: str, whole: str) -> OfJob:
    return lambda job: [100 * job.timing(part) / job.timing(whole)]


def both_steps(metric: str) -> OfJob:
    return lambda job: [job.metric(metric, 1), job.metric(metric, 2)]


TIMING: dict[str, OfJob] = {
    **{f"`{phase}` (s)": lambda job, phase=phase: [job.timing(phase)] for phase in PHASES},  # type: ignore[misc]
    "`other of pop_rows` (s)": lambda job: [other(job)],
    "`hessian_solve` % of `pop_rows`": share("hessian_solve", "pop_rows"),
    "`pop_rows` % of `update_actor`": share("pop_rows", "update_actor"),
    "`update_actor` % of `step`": share("update_actor", "step"),
    "Job (s)": lambda job: [job.seconds()],
    "Outside its steps (s)": lambda job: [outside(job)],
}

OF_JOB: dict[tuple[str, str], OfJob] = {
    ("Experiment Results", "`rows` (s1/s2)"): both_steps("influence_trace/rows_emitted"),
    ("Experiment Results", "`grad_norm` (s1/s2)"): both_steps("actor/grad_norm"),
    ("Experiment Results", "`pop_rows` (s)"): lambda job: [job.timing("pop_rows")],
    ("Experiment Results", "`hessian_solve` (s)"): lambda job: [job.timing("hessian_solve")],
    ("Experiment Results", "GPU memory (GiB)"): lambda job: [job.gpu_gib()],
    ("Experiment Results", "Host memory (GiB)"): lambda job: [job.host_gib()],
    ("Experiment Results", "Score std"): lambda job: [job.npz("std")],
    **{("Timing", title): rule for title, rule in TIMING.items()},
    ("Resources", "GPU peak (GiB)"): lambda job: [job.gpu_gib()],
    ("Resources", "Card (GiB)"): lambda job: [job.evidence["card_bytes"] / GIB],
    ("Resources", "Peak of the card"): lambda job: [100 * job.gpu_gib() / (job.evidence["card_bytes"] / GIB)],
    ("Resources", "Host peak (GiB)"): lambda job: [job.host_gib()],
    ("Resources", "Host memory (whole node, GiB)"): lambda job: [
        max(job.metric("perf/cpu_memory_used_gb", step) for step in (1, 2))
    ],
    ("Resources", "Job (s)"): lambda job: [job.seconds()],
    ("Resources", "GPU hours"): lambda job: [job.gpu_hours()],
}


def _predictions() -> dict[tuple[str, str], OfJob]:
    found: dict[tuple[str, str], OfJob] = {}
    measured: dict[str, tuple[str, Callable[[Job], float]]] = {
        "GPU (GiB)": ("gpu_bytes", Job.gpu_gib),
        "Host (GiB)": ("host_bytes", Job.host_gib),
        "Job (s)": ("seconds", Job.seconds),
    }
    for title, (key, seen) in measured.items():
        found["Predicted", f"{title} predicted"] = lambda job, key=key: job.guess(key)  # type: ignore[misc]
        found["Predicted", f"{title} measured"] = lambda job, seen=seen: [seen(job)]  # type: ignore[misc]
        found["Predicted", f"{title} off by"] = lambda job, key=key, seen=seen: [  # type: ignore[misc]
            100 * (job.guess(key)[0] - seen(job)) / seen(job)
        ]
    return found


OF_JOB |= _predictions()


def npz(field: str) -> OfRow:
    return lambda stored, row: [_job(stored, row).npz(field, int(row.get("Step", 1)))]


def attempt(stored: Stored, row: Row) -> dict[str, object]:
    return next(one for one in _job(stored, row).attempts if one["n"] == int(row["Attempt"]))


def _of_attempt(figure: Callable[[dict[str, object]], float]) -> OfRow:
    return lambda stored, row: [figure(attempt(stored, row))]


def _seconds(one: Mapping[str, object]) -> float:
    return float(one["ended_at"]) - float(one["started_at"])  # type: ignore[arg-type]


def fitted(stored: Stored, scope: str, phase: str, size: Callable[[Job], float]) -> list[float]:
    """Exponent and its standard error over the jobs of one scope (empty: all), by the textbook's formulas."""
    jobs = [job for job in stored.jobs.values() if scope in ("", job.parameters["scope"])]
    x = [math.log(size(job)) for job in jobs]
    y = [math.log(job.timing(phase)) for job in jobs]
    slope, intercept = linear_regression(x, y)
    rest = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - fmean(x)) ** 2 for a in x)
    return [slope, math.sqrt(rest / (len(x) - 2) / spread)]


def _fitted(stored: Stored, row: Row, size: Callable[[Job], float]) -> list[float]:
    scope = re.findall(r"scope=(\w+)", row["Setting"])
    return fitted(stored, scope[0] if scope else "", row["Phase"].strip("`"), size)


def _dim(job: Job) -> float:
    return max(one["k_in"] * one["k_out"] for file in job.evidence["npz"] for one in file["dims"])


STATISTIC: dict[str, Callable[[Job], float]] = {
    **{f"{phase} (s)": lambda job, phase=phase: job.timing(phase) for phase in PHASES},  # type: ignore[misc]
    "score std": lambda job: job.npz("std"),
    "grad_norm": lambda job: job.metric("actor/grad_norm"),
    "GPU memory": Job.gpu_gib,
    "host memory": Job.host_gib,
}


def logs(stored: Stored, row: Row) -> dict[int, float]:
    """seed -> mean over settings of log(level / reference)."""
    axis, level, against = (row[title].strip("`") for title in ("Factor", "Level", "Against"))
    figure, found = STATISTIC[row["Figure"]], {}
    for seed in sorted({job.parameters["seed"] for job in stored.jobs.values()}):
        a, b = ([j for j in stored.at(axis, which) if j.parameters["seed"] == seed] for which in (level, against))
        found[seed] = fmean(math.log(figure(x)) - math.log(figure(y)) for x, y in zip(a, b, strict=True))
    return found


def _sizes(stored: Stored) -> dict[str, dict[str, float]]:
    """Module types of the job that ran the diagnostic, in its last file."""
    job = next(j for j in stored.jobs.values() if any(file["similarity"] for file in j.evidence["npz"]))
    return {one["module_type"]: one for one in job.evidence["npz"][-1]["dims"]}


def _size(figure: Callable[[dict[str, float]], float]) -> OfRow:
    return lambda stored, row: [figure(_sizes(stored)[row["Module type"].strip("`")])]


def _dots(stored: Stored, row: Row, title: str, table: Table) -> list[float]:
    scope, field = (*title.split(" "), "")[:2] if " " in title else ("PER_PROMPT", "self_dot")
    field = {"cos": "cosine"}.get(field, field)
    files = (file for job in stored.jobs.values() for file in job.evidence["npz"] if file["similarity"])
    rows = next(files)["similarity"]["rows"]
    matrix = "HINV_DOT" if "HINV_DOT" in table.above else "RAW_DOT"
    (found,) = [r for r in rows if (r["matrix"], r["scope"], r["pair"]) == (matrix, scope, row["Pairs"])]
    return [] if found[field] is None else [found[field]]


OF_ROW: dict[tuple[str, str], OfRow] = {
    ("NPZ Score Distribution", "Step"): lambda _stored, row: [float(row["Step"])],
    ("NPZ Score Distribution", "Valid Positions"): npz("valid"),
    **{("NPZ Score Distribution", name.capitalize()): npz(name) for name in ("mean", "std", "min", "max")},
    ("Attempts", "Attempt"): _of_attempt(lambda one: one["n"]),  # type: ignore[arg-type, return-value]
    ("Attempts", "GPU peak (GiB)"): _of_attempt(lambda one: one["measured"]["gpu_bytes"] / GIB),  # type: ignore[index]
    ("Attempts", "Exit"): _of_attempt(lambda one: one["exit_code"]),  # type: ignore[arg-type, return-value]
    ("Attempts", "GPU hours"): _of_attempt(lambda one: 8 * _seconds(one) / 3600),
    ("Scaling", "`factor` fitted"): lambda stored, _row: sorted(
        {float(job.parameters["factor"]) for job in stored.jobs.values()}, reverse=True
    ),
    ("Scaling", "Points"): lambda stored, row: [
        sum(f"scope={job.parameters['scope']}" in row["Setting"] for job in stored.jobs.values())
    ],
    ("Scaling", "Exponent of `factor`"): lambda stored, row: _fitted(stored, row, lambda job: job.parameters["factor"]),
    ("Scaling", "Exponent of D"): lambda stored, row: _fitted(stored, row, _dim),
    ("Gradient Similarity", "Modules"): _size(lambda one: one["modules"]),
    ("Gradient Similarity", "k_in"): _size(lambda one: one["k_in"]),
    ("Gradient Similarity", "k_out"): _size(lambda one: one["k_out"]),
    ("Gradient Similarity", "D"): _size(lambda one: one["k_in"] * one["k_out"]),
    ("Gradient Similarity", "Hessian (MiB, float64)"): _size(lambda one: 8 * (one["k_in"] * one["k_out"]) ** 2 / 2**20),
    ("Gradient Similarity", "Residual"): _size(lambda one: one["residual"]),
    ("Statistics", "Level"): lambda _stored, row: [float(row["Level"])] if row["Level"].isdecimal() else [],
    ("Statistics", "Against"): lambda _stored, row: [float(row["Against"])] if row["Against"].isdecimal() else [],
    ("Statistics", "Effect"): lambda stored, row: [math.exp(fmean(logs(stored, row).values()))],
    # of two replicates: a bootstrap interval's ends are the two themselves
    ("Statistics", "95% interval"): lambda stored, row: sorted(map(math.exp, logs(stored, row).values())),
    ("Statistics", "Replicates"): lambda stored, row: [len(logs(stored, row))],
    ("Statistics", "Pairs"): lambda stored, row: [len(stored.at(row["Factor"].strip("`"), row["Level"].strip("`")))],
    ("Statistics", "p"): lambda stored, row: [0.5 if len({x > 0 for x in logs(stored, row).values()}) == 1 else 1.0],
    ("Changes", "Lines"): lambda stored, _row: [
        sign * stored.sweep["git"]["changes"]["files"][0][key] for sign, key in ((1, "added"), (-1, "removed"))
    ],
}  # fmt: skip

LEVELS: dict[str, Callable[[Job], float]] = {
    "`grad_norm`": lambda job: job.metric("actor/grad_norm"),
    "`pop_rows` (s)": lambda job: job.timing("pop_rows"),
    "`step` (s)": lambda job: job.timing("step"),
    "GPU peak (GiB)": Job.gpu_gib,
    "Score std": lambda job: job.npz("std"),
}

TEXT = {
    ("Experiment Results", "Status"), ("Attempts", "Why"), ("Attempts", "Why on this pool"),
    ("Attempts", "Node"), ("Changes", "Commits"),
}  # fmt: skip
"""Words out of the store: their figures must stand there word by word."""
ELSEWHERE = {("Statistics", "p (Holm)")}
"""Pure arithmetic on another column of the same table, tested for itself."""


@dataclass(frozen=True)
class Cell:
    table: Table
    title: str
    row: Row
    text: str

    def __str__(self) -> str:
        return f"{self.table.heading} / {next(iter(self.row.values()))} / {self.title}: {self.text}"


def problem(stored: Stored, cell: Cell) -> str:
    """Why a cell's figures are not what is stored; empty where they are, and where it has none."""
    found = figures(cell.text)
    if not found:
        return ""
    section = next(s for heading in reversed(cell.table.headings) for s in SECTIONS if s in heading)
    key = (section, cell.title)
    if section == "Attempts" and cell.title == "Ran for":
        return "; ".join(disagreements([clock(cell.text)], [_seconds(attempt(stored, cell.row))]))
    if key in TEXT:
        words = " ".join(job.words() for job in stored.jobs.values()) + str(stored.sweep)
        return "" if all(word in words for word in re.findall(r"[\d.]*\d", plain(cell.text))) else "not stored"
    if key in ELSEWHERE:
        return ""
    return "; ".join(disagreements(found, _stored(stored, cell, key)))


def _stored(stored: Stored, cell: Cell, key: tuple[str, str]) -> list[float]:
    if key[0] == "Experiment Results" and "Axis" in cell.row:
        return _of_level(stored, cell)
    if cell.text.startswith("… "):
        axis, level = re.findall("`([^`]+)`", cell.table.heading)
        return [len(stored.at(axis, level)) - len(cell.table.rows) + 1]
    if key[0] == "Timing" and "Phase" in cell.row:
        return _side_by_side(stored, cell)
    if key in OF_JOB:
        return OF_JOB[key](_job(stored, cell.row))
    if key in OF_ROW:
        return OF_ROW[key](stored, cell.row)
    if key[0] == "Gradient Similarity":
        return _dots(stored, cell.row, cell.title, cell.table)
    raise AssertionError(f"nobody knows where this is stored: {cell}")


def _side_by_side(stored: Stored, cell: Cell) -> list[float]:
    """A phase a row: the column is a job, or a share of the only one."""
    title = cell.title.strip("`")
    if title in stored.jobs:
        return TIMING[cell.row["Phase"]](stored.jobs[title])
    (job,) = stored.jobs.values()
    phase = cell.row["Phase"].split("`")[1]
    part = other(job) if phase.startswith("other") else job.timing(phase)
    return [100 * part / job.timing(cell.title.split("`")[1])]


def _of_level(stored: Stored, cell: Cell) -> list[float]:
    jobs = stored.at(cell.row["Axis"].strip("`"), cell.row["Level"].strip("`"))
    if cell.title in LEVELS:
        return [median(LEVELS[cell.title](job) for job in jobs)]
    counted = {
        "Points": len(jobs),
        "Succeeded": sum(job.state == "succeeded" for job in jobs),
        "With anomalies": sum(bool(job.last["anomalies"]) for job in jobs),
    }
    return [float(counted[cell.title])]


def _job(stored: Stored, row: Row) -> Job:
    return stored.jobs[row["Job"].strip("` †")]


SECTIONS = (
    "Experiment Results", "NPZ Score Distribution", "Timing", "Resources", "Predicted", "Attempts", "Scaling",
    "Gradient Similarity", "Statistics", "Changes", "Git", "Provenance", "Validation",
)  # fmt: skip
