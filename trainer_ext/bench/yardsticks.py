"""What stands beside the engine in one run: its error against fp64, and the plain implementation's time.

Both are measured on one module of each shape; the plain implementation's total is that time by the number of modules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from trainer_ext.bench.accuracy import PRECISIONS, exact_scores, relative_rms, score_error
from trainer_ext.bench.cases import Case
from trainer_ext.bench.ceilings import Clock
from trainer_ext.bench.failures import Failures
from trainer_ext.bench.plain import plain_scores
from trainer_ext.bench.plan import Plan
from trainer_ext.bench.report import Yardstick
from trainer_ext.bench.run import allocated_bytes, module_seed, peak_gib, reset_peak, seconds_of
from trainer_ext.bench.shapes import ModuleShape
from trainer_ext.bench.synthetic import Batch, exact_factors
from trainer_ext.influence import ModuleFactors


@dataclass(frozen=True, eq=False)
class _Bench:
    """What measuring one case needs."""

    case: Case
    plan: Plan
    batch: Batch
    clock: Clock
    failures: Failures

    def factors(self, shape: ModuleShape) -> ModuleFactors:
        return exact_factors(self.batch, shape.k_in, shape.k_out, seed=module_seed(self.plan.seed, 0, 0))

    def plain(self, factors: ModuleFactors) -> Tensor:
        return plain_scores(factors, self.batch.responses, self.plan.config(self.case))


def case_yardsticks(case: Case, plan: Plan, batch: Batch, clock: Clock, failures: Failures) -> tuple[Yardstick, ...]:
    """One yardstick for each shape of the case's modules; what fails is noted and left out."""
    bench = _Bench(case, plan, batch, clock, failures)
    shapes = sorted(plan.module_shapes(case), key=lambda shape: shape.dim)
    if plan.plain:
        with failures.noted("plain, start-up"):  # the libraries' own first calls, which no time should contain
            bench.plain(bench.factors(shapes[0]))
    return tuple(_yardstick(bench, shape) for shape in shapes)


def _yardstick(bench: _Bench, shape: ModuleShape) -> Yardstick:
    stick = Yardstick(shape.label, shape.k_in, shape.k_out, shape.count)
    with bench.failures.noted(shape.label):
        exact, wanted = bench.factors(shape), None
        if bench.plan.accuracy:
            with bench.failures.noted(f"{shape.label}, fp64"):
                wanted = exact_scores(exact, bench.batch.responses, bench.plan.config_at(bench.case, "fp64"))
        if wanted is not None:
            stick = replace(stick, errors=_errors(bench, shape, exact, wanted))
        if bench.plan.plain:
            stick = _with_plain(bench, stick, exact, wanted)
    return stick


def _errors(bench: _Bench, shape: ModuleShape, exact: ModuleFactors, wanted: Tensor) -> dict[str, float]:
    errors = {}
    for precision in PRECISIONS:
        with bench.failures.noted(f"{shape.label}, {precision}"):
            config = bench.plan.config_at(bench.case, precision)
            errors[precision] = score_error(exact, bench.batch.responses, config, wanted)
    return errors


def _with_plain(bench: _Bench, stick: Yardstick, exact: ModuleFactors, wanted: Tensor | None) -> Yardstick:
    device = bench.plan.device
    held = allocated_bytes(device)
    reset_peak(device)
    seconds, scores = seconds_of(lambda: bench.plain(exact), device, bench.clock)
    errors = stick.errors if wanted is None else {**stick.errors, "plain": relative_rms(scores, wanted)}
    return replace(stick, plain_seconds=seconds, plain_peak_gib=peak_gib(device, held), errors=errors)
