"""The verbs `step` and `job` of the benchmarks' command line."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer_ext.assets.qwen2_shape import LAYERS
from trainer_ext.bench import history
from trainer_ext.bench.report import Environment
from trainer_ext.bench.step import table
from trainer_ext.bench.step.cases import CASES, chosen_cases
from trainer_ext.bench.step.events import Event
from trainer_ext.bench.step.job import run_job
from trainer_ext.bench.step.launch import run_ranks
from trainer_ext.bench.step.plan import SHAPE, TINY, StepPlan, build_model, compose_job
from trainer_ext.bench.step.report import StepReport, report_mapping

VERBS = {
    "step": "what the trace adds to an update: verl's worker on every GPU, without Ray or generation",
    "job": "the same cases as the steps of one whole verl job under Ray, with recorded responses",
}
THROUGH = {"step": "worker", "job": "job"}
BUDGET_S = 480.0


def add_verbs(verbs: Any) -> None:
    """Add both to a parser's subparsers."""
    for name, description in VERBS.items():
        verb = verbs.add_parser(name, help=description)
        what = verb.add_argument_group("what is trained")
        what.add_argument("--model", choices=(SHAPE, TINY), help=f"default: {SHAPE} on a GPU, {TINY} on a CPU")
        what.add_argument("--layers", type=int, help=f"default: {LAYERS}, on a CPU 2")
        what.add_argument("--ranks", type=int, default=1, help="GPUs")
        what.add_argument("--prompts", type=int, help="of one rank; default: 4, on a CPU 1")
        what.add_argument("--per-prompt", type=int, help="responses a prompt; default: 6, on a CPU 4")
        what.add_argument("--prompt-tokens", type=int, help="default: 256, on a CPU 96")
        what.add_argument(
            "--response", type=_bounds, metavar="LOW:HIGH", help="tokens; default: 4096:8192, on a CPU 8:16"
        )
        what.add_argument("--profile", default="h200x1", help="of the job's config")
        what.add_argument(
            "--override", action="append", default=[], metavar="KEY=VALUE", help="of the job's config; may be repeated"
        )
        what.add_argument("--seed", type=int, default=0)
        how = verb.add_argument_group("how")
        names = ", ".join(case.name for case in CASES)
        how.add_argument("--cases", nargs="*", default=[], metavar="PATTERN", help=f"like f64-* (in order: {names})")
        how.add_argument("--steps", type=int, default=2, help="of each case; the last one counts")
        how.add_argument(
            "--budget", type=float, default=BUDGET_S, metavar="S", help="no step begins that would end later"
        )
        how.add_argument("--work", type=Path, metavar="DIR", help="for the model and logs; default: a temporary folder")
        how.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is one")
        out = verb.add_argument_group("where results go, beside the table on standard output")
        out.add_argument("--json", type=Path, metavar="FILE", help="the report, rewritten after every step")
        out.add_argument("--record", type=Path, metavar="FILE", help="history: one JSON line is appended")
        out.add_argument("--note", default="", help="kept with the results")
        out.add_argument("--date", help="kept with the results; default: now")
        out.add_argument("--commit", help="kept with the results; default: what git says")


def _bounds(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    if not low.isdecimal() or not (high or low).isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or shortest:longest, got {text!r}")
    return int(low), int(high or low)


def make_plan(arguments: argparse.Namespace) -> StepPlan:
    """The plan that the options ask for, its defaults decided by the device.

    Raises:
        ValueError: an unknown case, or a number out of range.
    """
    on_gpu = _on_gpu(arguments)

    def given(value: Any, gpu: Any, cpu: Any) -> Any:
        return value if value is not None else gpu if on_gpu else cpu

    return StepPlan(
        through=THROUGH[arguments.verb],
        device="cuda" if on_gpu else "cpu",
        model=given(arguments.model, SHAPE, TINY),
        layers=given(arguments.layers, LAYERS, 2),
        profile=arguments.profile,
        overrides=tuple(arguments.override),
        cases=chosen_cases(arguments.cases),
        steps=arguments.steps,
        ranks=arguments.ranks,
        prompts=given(arguments.prompts, 4, 1),
        per_prompt=given(arguments.per_prompt, 6, 4),
        prompt_tokens=given(arguments.prompt_tokens, 256, 96),
        response=given(arguments.response, (4096, 8192), (8, 16)),
        budget_s=arguments.budget,
        seed=arguments.seed,
    )


def run(arguments: argparse.Namespace, now: Callable[[], Any]) -> bool:
    """Measure, keep, and print the table. Returns whether something failed or was left out.

    Raises:
        ValueError: the options make no sense.
        OSError: a file cannot be written.
    """
    started = time.time()
    plan = make_plan(arguments)
    environment = Environment(
        date=arguments.date or now().isoformat(timespec="seconds"),
        commit=arguments.commit or history.source_commit(),
        device=_device_name(plan),
        torch=torch.__version__,
        note=arguments.note,
    )

    def report_of(events: Sequence[Event]) -> StepReport:
        return StepReport(
            environment=environment,
            setup=plan.setup,
            rows=tuple(event.row for event in events if event.row is not None),
            failures=tuple(event.failure for event in events if event.failure is not None),
            start_up_s=next((event.ready for event in events if event.ready is not None), None),
            expected=tuple(case.name for case in plan.cases),
        )

    def saw(events: list[Event], new: list[Event]) -> None:
        for event in new:
            print(f"{time.time() - started:8.1f} s  {_told(event)}", file=sys.stderr, flush=True)
        if arguments.json is not None:
            history.write_json(arguments.json, report_mapping(report_of(events)))

    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        model = build_model(plan, work)
        job = compose_job(plan, model)
        folder = Path(tempfile.mkdtemp(dir=work, prefix=f"{arguments.verb}-"))
        run_plan = run_ranks if plan.through == "worker" else run_job
        report = report_of(run_plan(plan, job, folder, started, saw))
    print(table.render(report), end="")
    if arguments.json is not None:
        history.write_json(arguments.json, report_mapping(report))
    if arguments.record is not None:
        history.append_line(arguments.record, report_mapping(report))
    return bool(report.failures or report.missing())


def _told(event: Event) -> str:
    if event.row is None:
        return event.failure or "ready"
    seconds = ", ".join(f"{name} {value:.3g}" for name, value in event.row.seconds.items())
    return f"{event.row.case}, step {event.row.step}: {seconds}"


def _device_name(plan: StepPlan) -> str:
    """Without touching the device: a context of this process would count as memory in use."""
    if plan.device == "cpu":
        return "CPU"
    import pynvml

    pynvml.nvmlInit()
    return f"{plan.ranks} x {pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))}"


def _on_gpu(arguments: argparse.Namespace) -> bool:
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: there is no cuda here")
    return bool(torch.cuda.is_available()) if arguments.device is None else arguments.device == "cuda"
