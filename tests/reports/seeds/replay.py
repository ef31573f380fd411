"""The jobs behind the printed reports, as files: they go through the fake cluster, the collectors, triage and the store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from orchestrator.backends.base import JobRequest, JobState
from orchestrator.backends.fake import Play
from orchestrator.backends.fake_files import write_outcome
from orchestrator.clock import FakeClock
from orchestrator.git_changes import read_changes
from orchestrator.identity import point_hash, point_id
from orchestrator.model import Point
from orchestrator.paths import AttemptPaths
from orchestrator.spec import load
from tests.orchestrator.driving import Rehearsal
from tests.reports.seeds.printed import PrintedJob, PrintedReport, number
from tests.reports.seeds.score_files import RESPONSES, scores_like, write_scores
from tests.triage.gold import CORPUS
from trainer_ext.records import AttemptSpec, MemorySample, npz_name

SWEEPS = Path(__file__).parents[3] / "sweeps"
OOM_LOG = CORPUS / "story-f32-all-selected-on-h100" / "train.log"
MEGABYTE = 1_000_000
GIB = 1024**3

METRICS = {
    "rows": "influence_trace/rows_emitted",
    "grad_norm": "actor/grad_norm",
    "GPU memory": "perf/max_memory_allocated_gb",
    "Host memory": "perf/cpu_memory_used_gb",
    "step": "timing_s/step",
    "gen": "timing_s/gen",
    "update_actor": "timing_s/update_actor",
    **{
        name: f"timing_s/influence_{name}"
        for name in (
            "pop_rows",
            "grad_staging",
            "hessian_solve",
            "token_scoring",
            "score_aggregation",
            "forward_1",
            "logprob_backward",
            "forward_2",
            "loss_backward",
        )
    },
}
"""Figure of a printed table -> the metric that it was read from. A share is read from nothing: the report works it out."""


def replayed(root: Path, report: PrintedReport) -> Rehearsal:
    """Drive the report's sweep to its end below `root`."""
    facts = report.facts
    spec = load(SWEEPS / f"{facts['sweep']}.yaml").model_copy(update={"name": "s"})

    def script(request: JobRequest, _earlier: int) -> Play:
        attempt = AttemptSpec.from_json(AttemptPaths(request.attempt_dir).spec.read_bytes())
        return ReplayedJob(report, report.job(str(attempt.config["name"]))).play(request)

    begin = datetime.combine(facts["date"], time(10), UTC).timestamp()
    rehearsal = Rehearsal(
        root / "runs",
        script,
        points=0,
        spec=spec,
        ladder=tuple(facts["ladder"]),
        clock=FakeClock(begin),
        poll_s=300.0,
    )
    points = [ReplayedJob(report, job).point(index) for index, job in enumerate(report.jobs)]
    git = {**facts["git"], "changes": changes(root / "repository", facts["changes"])}
    row = replace(
        rehearsal.store.sweep("s"), git=git, description=spec.description, spec_path=f"sweeps/{facts['sweep']}.yaml"
    )
    rehearsal.store.put_sweep(row, points)
    rehearsal.drive()
    return rehearsal


def changes(repository: Path, rows: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A commit for each row of the report's table of changes, as the store keeps what git says of them."""
    repository.mkdir()

    def git(*arguments: str) -> str:
        name = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(repository), *name, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "base")
    base = git("rev-parse", "HEAD")
    for path, subject in rows:
        file = repository / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(subject + "\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", subject)
    found = read_changes(repository, base, "HEAD", base_sweep="the sweep before")
    assert found is not None
    return asdict(found)


def foreign_run(folder: Path, report: PrintedReport, name: str) -> Path:
    """A run of `earlier_runs` as somebody else's folder: a log and score files, and nothing else."""
    job = ReplayedJob(report, PrintedJob(name, report.facts["earlier_runs"][name]))
    run = folder / name
    run.mkdir()
    (run / "train.log").write_text("\n".join(job.console({step: job.metrics(step) for step in job.steps})) + "\n")
    for step in job.steps:
        job.write_npz(run / "influence" / npz_name(step), step)
    return run


@dataclass(frozen=True)
class ReplayedJob:
    report: PrintedReport
    job: PrintedJob

    @property
    def steps(self) -> list[int]:
        return list(range(1, self.report.facts["steps"] + 1))

    def point(self, index: int) -> Point:
        expected = {"steps": len(self.steps), "npz": "influence/step_*.npz"}
        parameters = {"run": self.job.name, **self.job.facts["parameters"]}
        config = {"name": self.job.name, "job": {"command": ["{python}", "job.py"], "expected": expected}}
        full = point_hash(config)
        return Point(point_id(full), index, self.job.name, parameters, {}, (), config, full)

    def play(self, request: JobRequest) -> Play:
        assert request.pool is not None
        fails = request.pool.name == self.job.facts.get("out_of_memory_on")
        seconds = len(self.steps) * (self.job.value("step") or 0.0 if "step" in self.job.figures else 0.0) + 300
        timeline = ((0.0, JobState.QUEUED), (60.0, JobState.RUNNING), (60.0 + seconds, JobState.ENDED))
        return Play(on_end=self.run_out_of_memory if fails else self.train, timeline=timeline)

    def train(self, request: JobRequest, started_at: float, ended_at: float) -> None:
        paths = AttemptPaths(request.attempt_dir)
        rows = {step: self.metrics(step) for step in self.steps}
        paths.metrics.write_text("".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in rows.items()))
        paths.console.write_text("\n".join(self.console(rows)) + "\n")
        if limit := self.job.facts.get("host_limit_gib"):
            paths.memory.write_text(MemorySample(time=started_at, cgroup_limit=limit * GIB).to_json() + "\n")
        for step in self.steps:
            self.write_npz(paths.influence / npz_name(step), step)
        write_outcome(request, started_at, ended_at, exit_code=self.job.facts.get("exit_code", 0), steps=self.steps)

    def run_out_of_memory(self, request: JobRequest, started_at: float, ended_at: float) -> None:
        AttemptPaths(request.attempt_dir).console.write_bytes(OOM_LOG.read_bytes())
        write_outcome(request, started_at, ended_at, exit_code=1)

    def metrics(self, step: int) -> dict[str, float]:
        found = {metric: self.job.value(name, step) for name, metric in METRICS.items() if name in self.job.figures}
        tokens = self.job.facts.get("selected_tokens")
        extra = {"influence_trace/debug_capture_selected_tokens": number(tokens)} if tokens else {}
        further = self.job.facts.get("further_timings", {})
        extra |= {f"timing_s/influence_{name}": number(shown) for name, shown in further.items()}
        return {**{name: value for name, value in found.items() if value is not None}, **extra}

    def console(self, rows: Mapping[int, Mapping[str, float]]) -> list[str]:
        lines = [f"Total training steps: {len(self.steps)}", "[influence_trace] setup exclude_self_response=True"]
        lines += [f"step:{step} - " + " - ".join(f"{k}:{v}" for k, v in data.items()) for step, data in rows.items()]
        if self.job.facts.get("restarts"):  # the scheduler ran it once more, and it did not get far
            lines.append("step:1 - timing_s/step:700.5 - actor/lr:1e-06")
        return [*lines, "ray shutdown failed" if self.job.facts.get("exit_code") else "Training finished"]

    def write_npz(self, path: Path, step: int) -> None:
        megabytes = self.job.facts.get("megabytes", [])
        size = int(float(megabytes[step - 1]) * MEGABYTE) if megabytes else 0
        scores = self.job.scores
        if step == 1 and scores:
            count = int(number(scores["Valid Positions"]))
            known = {name: number(scores[name]) for name in ("Mean", "Std", "Min", "Max") if name in scores}
            made_up = {"Mean": 0.0, "Std": 0.1, "Min": -1.0, "Max": 1.0}
            values = scores_like(count, *({**made_up, **known}[name] for name in ("Mean", "Std", "Min", "Max")))
        else:
            values = scores_like(100 * RESPONSES, 0.0, 0.1, -1.0, 1.0)
        write_scores(path, values, self.meta(step), size=size)

    def meta(self, step: int) -> dict[str, Any]:
        """The diagnostic, and the sizes of all modules, where the report prints them."""
        facts = self.report.facts
        if "similarity" not in facts:
            return {"step": step}
        modules = {
            f"model.layers.{layer}.{kind}": {
                "k_in": int(k_in),
                "k_out": int(k_out),
                "route": "direct",
                "residual": 1e-6,
            }
            for layer in range(facts["layers"])
            for kind, (k_in, k_out, *_) in facts["projection"].items()
        }
        raw = facts["similarity"]["RAW_DOT"]
        rows = [row for matrix, pairs in facts["similarity"].items() for row in _rows(matrix, pairs)]
        bare = {
            "module": facts["unprojected_module"],
            "rows": [*_rows("PROJECTED", raw), *_rows("UNPROJECTED", raw)],  # it says: projection preserves means
            "correlation": 0.99,
            "relative_error_of_self_dots": 0.02,
        }
        return {"step": step, "modules": modules, "similarity": {"rows": rows, "residual": 1e-6, "unprojected": bare}}


def _rows(matrix: str, pairs: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {
            "matrix": matrix,
            "scope": "PER_PROMPT",
            "pair": pair,
            "mean": number(mean),
            "cosine": number(cosine),
            "self_dot": number(own) if own else None,
            "pairs": 1260,
        }
        for pair, (mean, cosine, own) in pairs.items()
    ]
