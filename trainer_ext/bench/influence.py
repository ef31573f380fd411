"""The influence benchmark from a plan to a report: ceilings, then every case, then the yardsticks beside it.

Cases of one projection factor share their factors. Yardsticks come last, because they take longest and the figures
before them stand without them. After every stage the report so far is handed out, and a case that fails is a row that
says why: a machine that is lent by the minute may be gone before the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from trainer_ext.bench.cases import Case
from trainer_ext.bench.ceilings import Ceilings, Clock, measure_ceilings
from trainer_ext.bench.failures import Failures, Tell
from trainer_ext.bench.plan import Plan
from trainer_ext.bench.report import CaseReport, Environment, Report
from trainer_ext.bench.run import ModuleSet, distinct_layers, layer_bytes, make_modules, room_for_factors, run_case
from trainer_ext.bench.shapes import linear_types
from trainer_ext.bench.synthetic import Batch, make_batch
from trainer_ext.bench.work import batch_work, bound, scope_groups
from trainer_ext.bench.yardsticks import case_yardsticks

Save = Callable[[Report], None]


@dataclass(frozen=True, eq=False)
class _Bench:
    """What every stage needs."""

    plan: Plan
    batch: Batch
    ceilings: Ceilings
    clock: Clock
    tell: Tell
    rows: dict[str, CaseReport]
    """By case, as far as they have come; stages replace them."""


def measure(plan: Plan, environment: Environment, clock: Clock, *, save: Save, tell: Tell) -> Report:
    """Run the plan.

    Args:
        clock: seconds, monotonic.
        save: given the report as far as it has come, after every stage.
        tell: given a line of progress.

    Raises:
        ValueError: the plan asks for a batch, a precision, a solver or a number of layers that cannot be.
    """
    batch = make_batch(plan.tokens, plan.prompts, plan.per_prompt, seed=plan.seed, device=plan.device)
    rows = {case.name: _row(case, plan, batch) for case in plan.cases}
    distinct_layers(plan.layers, 0, 0, plan.distinct)
    tell("ceilings")
    bench = _Bench(plan, batch, measure_ceilings(plan.device, clock), clock, tell, rows)
    for row in itertools.chain(_timed_cases(bench), _compared_cases(bench)):
        rows[row.name] = row
        save(_report(bench, environment))
    return _report(bench, environment)


def _report(bench: _Bench, environment: Environment) -> Report:
    rows = tuple(bench.rows[case.name] for case in bench.plan.cases)
    return Report(environment, bench.plan.setup, bench.ceilings, rows)


def _row(case: Case, plan: Plan, batch: Batch) -> CaseReport:
    """What is known of a case before it runs."""
    config = plan.config(case)
    groups = scope_groups(batch.lengths, plan.per_prompt, config)
    return CaseReport(
        name=case.name,
        factor=plan.factors[case.name],
        reference_s=case.reference_s,
        target_s=case.target_s,
        work=batch_work(plan.module_shapes(case), groups, config, plan.precision),
    )


def _timed_cases(bench: _Bench) -> Iterator[CaseReport]:
    """Every case with its time, factor by factor: one factor's modules are gone before the next one's are made."""

    def factor_of(case: Case) -> int:
        return bench.plan.factors[case.name]

    for factor, group in itertools.groupby(sorted(bench.plan.cases, key=factor_of), key=factor_of):
        failures = Failures(bench.tell)
        modules = None
        with failures.noted(f"factors at {factor}"):
            modules = _modules(bench, factor)
        for case in group:
            row = bench.rows[case.name]
            yield row.failing(failures.lines) if modules is None else _timed(case, row, bench, modules)


def _modules(bench: _Bench, factor: int) -> ModuleSet:
    plan, types = bench.plan, linear_types(bench.plan.shape)
    size = layer_bytes(types, factor, plan.tokens, plan.precision)
    distinct = distinct_layers(plan.layers, size, room_for_factors(plan.device), plan.distinct)
    bench.tell(f"factors at {factor}: {distinct} of {plan.layers} layers, {distinct * size / 2**30:.3g} GiB")
    return make_modules(
        bench.batch,
        types,
        factor=factor,
        layers=plan.layers,
        distinct=distinct,
        precision=plan.precision,
        seed=plan.seed,
    )


def _timed(case: Case, row: CaseReport, bench: _Bench, modules: ModuleSet) -> CaseReport:
    plan, failures = bench.plan, Failures(bench.tell)
    row = replace(row, distinct_layers=modules.distinct, factor_gib=modules.stored_bytes / 2**30)
    with failures.noted(case.name):
        run = run_case(
            modules,
            bench.batch.responses,
            plan.config(case),
            device=plan.device,
            clock=bench.clock,
            repeats=plan.repeats,
        )
        bench.tell(f"{case.name}: {run.seconds:.3g} s (start-up {run.startup_seconds:.3g} s)")
        peaks = bench.ceilings
        limits = bound(row.work, run.seconds, gemm_flops=peaks.gemm_flops, copy_bytes=peaks.copy_bytes)
        row = replace(row, run=run, bound=limits)
        if run.unscored:
            failures.lines.append(f"{run.unscored} of {plan.tokens} tokens have no finite score")
    return row.failing(failures.lines)


def _compared_cases(bench: _Bench) -> Iterator[CaseReport]:
    """Every case with its yardsticks."""
    plan = bench.plan
    if not (plan.plain or plan.accuracy):
        return
    for case in plan.cases:
        failures = Failures(bench.tell)
        sticks = case_yardsticks(case, plan, bench.batch, bench.clock, failures)
        bench.tell(f"{case.name}: yardsticks done")
        yield replace(bench.rows[case.name], yardsticks=sticks).failing(failures.lines)
