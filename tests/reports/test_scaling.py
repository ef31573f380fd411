"""The scaling section: exponents of made-up laws come out as they went in."""

from __future__ import annotations

import pytest

from reports.power_law import PowerLaw
from reports.report import render
from reports.scaling import exponent, scalings
from reports.snapshot import ModuleDims
from tests.reports.made import crossed, made_point, made_sweep


def dims(factor: int) -> tuple[ModuleDims, ...]:
    return (ModuleDims("q_proj", 1536 // factor, 1536 // factor), ModuleDims("k_proj", 1536 // factor, 256 // factor))


def test_a_cubic_solve_is_minus_six_of_the_factor_and_three_of_d() -> None:
    sweep = made_sweep(
        [
            made_point({"factor": factor}, {"hessian_solve": 1e-9 * dims(factor)[0].dim ** 3}, dims=dims(factor))
            for factor in (128, 64, 32)
        ]
    )
    (found,) = scalings(sweep)
    assert found.against_factor.exponent == pytest.approx(-6.0)
    assert found.against_dim is not None
    assert found.against_dim.exponent == pytest.approx(3.0)
    assert found.factors == (128.0, 64.0, 32.0)


def test_every_setting_of_the_other_axes_has_its_own_fit_over_all_replicates() -> None:
    power = {"a": -1.0, "b": -2.0}
    sweep = crossed(
        {"scope": ["a", "b"], "factor": [64, 32], "seed": [0, 1, 2]},
        lambda scope, factor, seed: made_point(
            {"scope": scope, "factor": factor},
            {"hessian_solve": factor ** power[scope] * (1 + 0.01 * seed)},
            replicate={"seed": seed},
            name=f"{scope}{factor}{seed}",
        ),
    )
    found = {one.setting: one.against_factor for one in scalings(sweep)}
    assert {setting: round(fit.exponent, 6) for setting, fit in found.items()} == {"scope=a": -1.0, "scope=b": -2.0}
    assert [(fit.n, fit.error is not None) for fit in found.values()] == [(6, True), (6, True)]


def test_the_section_says_where_an_error_cannot_be() -> None:
    sweep = made_sweep(
        [made_point({"factor": f}, {"hessian_solve": s, "pop_rows": s + 9}) for f, s in ((64, 81.0), (32, 990.0))]
    )
    drawn = render(sweep, only={"scaling"})
    assert "| `hessian_solve` | 64, 32 | 2 | -3.61 |" in drawn
    assert "Fits without an error go through two points" in drawn
    assert "Exponent of D" not in drawn, "no score file says it"


def test_the_error_shows_its_first_digit() -> None:
    assert exponent(PowerLaw(-2.2487, 0.0038, 1.0, 3)) == "-2.249 ± 0.004"
    assert exponent(PowerLaw(-2.2487, 0.17, 1.0, 3)) == "-2.25 ± 0.17"
    assert exponent(PowerLaw(-2.2487, 1e-12, 1.0, 3)) == "-2.25 ± 0.00"
    assert exponent(PowerLaw(-2.2487, None, 1.0, 2)) == "-2.25"
    assert exponent(None) == ""


@pytest.mark.parametrize("axis", ["lr", "scope"])
def test_a_sweep_of_other_things_has_no_such_section(axis: str) -> None:
    sweep = made_sweep([made_point({axis: level}, {"hessian_solve": 1.0}) for level in (1, 2)])
    assert "Scaling" not in render(sweep, only={"scaling"})
