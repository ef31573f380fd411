"""Findings about the Hessian's solve."""

from __future__ import annotations

from reports.contrasts import Grid
from reports.findings.solve import largest_modules, scaling
from reports.snapshot import ModuleDims
from tests.reports.made import made_point, made_sweep

MODULES = (ModuleDims("k_proj", 48, 8, 28), ModuleDims("up_proj", 48, 280, 28), ModuleDims("down_proj", 280, 48, 28))


def dims(factor: int) -> tuple[ModuleDims, ...]:
    return (ModuleDims("q_proj", 1536 // factor, 1536 // factor),)


def test_the_exponent_is_told_beside_that_of_a_factorisation() -> None:
    points = [
        made_point({"factor": factor}, {"hessian_solve": 1e-6 * dims(factor)[0].dim ** 1.8}, dims=dims(factor))
        for factor in (128, 64, 32)
    ]
    (finding,) = scaling(Grid.of(made_sweep(points)))
    assert finding.sentence.startswith(
        "**`hessian_solve` goes as the factor to the power -3.60 ± 0.00**, over 3 factors, 128 to 32"
    )
    assert "as D to the power 1.80 ± 0.00, less than a Cholesky factorisation alone (3)" in finding.sentence


def test_a_cubic_solve_is_said_to_be_one() -> None:
    wobble = {128: 1.02, 64: 0.97, 32: 1.01}
    points = [
        made_point({"factor": f}, {"hessian_solve": wobble[f] * dims(f)[0].dim ** 3.0}, dims=dims(f)) for f in wobble
    ]
    (finding,) = scaling(Grid.of(made_sweep(points)))
    assert "within two standard errors of a Cholesky factorisation's (3)" in finding.sentence


def test_two_factors_are_a_ratio_and_no_exponent() -> None:
    points = [made_point({"factor": f}, {"hessian_solve": s}) for f, s in ((64, 81.0), (32, 990.0))]
    assert scaling(Grid.of(made_sweep(points))) == []


def test_the_largest_modules_are_named_with_their_share_of_the_work() -> None:
    point = made_point({"factor": 32}, {"hessian_solve": 990, "step": 3674}, dims=MODULES, name="job")
    (finding,) = largest_modules(Grid.of(made_sweep([point])))
    assert finding.sentence == (
        "**The largest modules are most of the solve's arithmetic**: 56 of 84 modules (`up_proj` and `down_proj`) have "
        "D = 13,440 and 100% of the sum of D³. `hessian_solve` takes 990 s, 27% of the step at `job`."
    )


def test_a_type_of_two_sizes_counts_with_both_and_a_minor_share_is_no_finding() -> None:
    several = (ModuleDims("q_proj", 10, 20, 5), ModuleDims("q_proj", 10, 5, 100), ModuleDims("up_proj", 10, 10, 300))
    assert largest_modules(Grid.of(made_sweep([made_point({"factor": 32}, {"hessian_solve": 9}, dims=several)]))) == []
    (finding,) = largest_modules(
        Grid.of(made_sweep([made_point({"factor": 32}, {"hessian_solve": 9}, dims=several[:2])]))
    )
    assert "5 of 105 modules (`q_proj`) have D = 200 and 76% of the sum" in finding.sentence  # 40 of 52.5 million


def test_modules_of_one_size_are_no_finding() -> None:
    point = made_point({"factor": 32}, {"hessian_solve": 990}, dims=MODULES[:1])
    assert largest_modules(Grid.of(made_sweep([point]))) == []
