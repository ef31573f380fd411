"""Command line of the benchmarks: `python -m trainer_ext.bench --help`."""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from trainer_ext.bench import cases, history, table
from trainer_ext.bench.ceilings import Clock
from trainer_ext.bench.influence import measure
from trainer_ext.bench.plan import Plan
from trainer_ext.bench.report import Environment, Report, report_mapping
from trainer_ext.bench.shapes import KNOWN, parse_shape
from trainer_ext.bench.step import command as step_command

Now = Callable[[], datetime.datetime]

CPU_TOKENS, CPU_LAYERS = 2048, 1
CPU_FACTOR_SCALE = 8
"""On a CPU every case takes eight times its projection factor, unless --factor says otherwise: under a minute."""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m trainer_ext.bench", description="Measure the engines.")
    verbs = root.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("influence", help="the table of the influence engine, with the device's ceilings")
    what = verb.add_argument_group("what is scored")
    what.add_argument("--cases", nargs="*", default=[], metavar="NAME", help=", ".join(c.name for c in cases.CASES))
    what.add_argument("--tokens", type=int, help=f"default: {cases.REFERENCE_TOKENS} on a GPU, {CPU_TOKENS} on a CPU")
    what.add_argument("--prompts", type=int, default=cases.REFERENCE_PROMPTS)
    what.add_argument("--per-prompt", type=int, default=cases.REFERENCE_PER_PROMPT, help="responses a prompt")
    what.add_argument(
        "--model",
        default=cases.REFERENCE_MODEL,
        metavar="SHAPE",
        help=f"{', '.join(KNOWN)}, or hidden=..,intermediate=..",
    )
    what.add_argument("--layers", type=int, help=f"default: the model's on a GPU, {CPU_LAYERS} on a CPU")
    what.add_argument(
        "--factor", type=int, help=f"projection factor of all cases; default: the case's, x {CPU_FACTOR_SCALE} on a CPU"
    )
    what.add_argument(
        "--distinct", type=int, metavar="N", help="layers with factors of their own; default: all that fit"
    )
    what.add_argument("--seed", type=int, default=0)
    how = verb.add_argument_group("how")
    how.add_argument("--device", help="default: cuda where there is one, else cpu")
    how.add_argument("--precision", default="auto", help="auto (fast on a GPU, fp32 on a CPU), fast, fp32 or fp64")
    how.add_argument("--solver", default="auto")
    how.add_argument("--repeats", type=int, default=3, help="timed calls a case; the median counts")
    switch = argparse.BooleanOptionalAction
    how.add_argument("--plain", action=switch, default=True, help="time the plain implementation too")
    how.add_argument("--accuracy", action=switch, default=True, help="measure the error against fp64")
    out = verb.add_argument_group("where results go, beside the table on standard output")
    out.add_argument("--json", type=Path, metavar="FILE", help="the report, rewritten after every stage")
    out.add_argument("--record", type=Path, metavar="FILE", help="history: one JSON line is appended")
    out.add_argument("--note", default="", help="kept with the results")
    out.add_argument("--date", help="kept with the results; default: now")
    out.add_argument("--commit", help="kept with the results; default: what git says")
    step_command.add_verbs(verbs)
    return root


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The plan that the options ask for, its defaults decided by the device.

    Raises:
        ValueError: an unknown case, model or device, or a number out of range.
    """
    device = _device(arguments.device)
    on_gpu = device.type == "cuda"
    shape = parse_shape(arguments.model)
    chosen = cases.named_cases(arguments.cases)
    scale = 1 if on_gpu else CPU_FACTOR_SCALE
    precision = arguments.precision
    if precision == "auto":
        precision = "fast" if on_gpu else "fp32"
    return Plan(
        shape=shape,
        layers=_given(arguments.layers, shape.layers if on_gpu else CPU_LAYERS),
        tokens=_given(arguments.tokens, cases.REFERENCE_TOKENS if on_gpu else CPU_TOKENS),
        prompts=arguments.prompts,
        per_prompt=arguments.per_prompt,
        cases=chosen,
        factors={case.name: _given(arguments.factor, case.factor * scale) for case in chosen},
        precision=precision,
        solver=arguments.solver,
        device=device,
        plain=arguments.plain,
        accuracy=arguments.accuracy,
        repeats=arguments.repeats,
        distinct=arguments.distinct,
        seed=arguments.seed,
    )


def run(arguments: argparse.Namespace, clock: Clock, now: Now) -> Report:
    """Measure, keep, and print the table."""
    plan = make_plan(arguments)
    environment = Environment(
        date=arguments.date or now().isoformat(timespec="seconds"),
        commit=arguments.commit or history.source_commit(),
        device=_device_name(plan.device),
        torch=torch.__version__,
        note=arguments.note,
    )
    start = clock()

    def save(report: Report) -> None:
        if arguments.json is not None:
            history.write_json(arguments.json, report_mapping(report))

    def tell(line: str) -> None:
        print(f"{clock() - start:8.1f} s  {line}", file=sys.stderr, flush=True)

    report = measure(plan, environment, clock, save=save, tell=tell)
    print(table.render(report), end="")
    save(report)
    if arguments.record is not None:
        history.append_line(arguments.record, report_mapping(report))
    return report


def main(
    argv: Sequence[str] | None = None,
    *,
    clock: Clock = time.perf_counter,
    now: Now = lambda: datetime.datetime.now(datetime.UTC),
) -> int:
    """0: all measured; 1: a case failed, the others stand; 2: the options make no sense."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.verb in step_command.VERBS:
            return int(step_command.run(arguments, now))
        return int(run(arguments, clock, now).failed)
    except (ValueError, OSError) as error:
        print(f"trainer_ext.bench: {error}", file=sys.stderr)
        return 2


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device: {name!r} is none that torch knows: {error}") from None
    if device.type not in ("cuda", "cpu") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"--device: {name!r} is not here; use cpu{', cuda' if torch.cuda.is_available() else ''}")
    return device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)"


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


if __name__ == "__main__":
    sys.exit(main())
