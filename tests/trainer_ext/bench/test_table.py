from __future__ import annotations

import dataclasses

import pytest

from trainer_ext.bench.ceilings import Ceilings
from trainer_ext.bench.report import CaseReport, CaseRun, Environment, Report, Setup, Yardstick
from trainer_ext.bench.table import markdown, number, percent, render, scaled
from trainer_ext.bench.work import Work, bound

CEILINGS = Ceilings(8e14, 5e13, 5.8e13, 4e12, 8192)
SETUP = Setup("Qwen2.5-1.5B", 28, 196, 733_870, 6, 16, "fast", "auto", 3, 0, reference_shape=True)
ENVIRONMENT = Environment("2030-01-02T03:04:05+00:00", "abc123", "Some GPU", "2.11", "a note")
RUN = CaseRun(
    seconds=9.7,
    all_seconds=(9.6, 9.7, 9.9),
    startup_seconds=1.25,
    peak_gib=4.5,
    counted_gib=4.0,
    phases={"hessian_solve": 9.0, "token_scoring": 0.5},
    routes={"direct": 190, "dual": 6},
    residual=2e-4,
    unscored=0,
)
WORK = Work(curvature=3.88e15, bytes=1.06e11)
CASE = CaseReport(
    name="f32_all_selected",
    factor=32,
    reference_s=970.0,
    target_s=15.0,
    work=WORK,
    distinct_layers=28,
    factor_gib=49.3,
    run=RUN,
    bound=bound(WORK, 9.7, gemm_flops=CEILINGS.gemm_flops, copy_bytes=CEILINGS.copy_bytes),
    yardsticks=(Yardstick("down", 280, 48, 28, 10.0, 9.0, {"fast": 5.5e-4, "fp32": 2e-6, "plain": 4e-6}),),
)


def report(*cases: CaseReport, **setup: object) -> Report:
    return Report(ENVIRONMENT, dataclasses.replace(SETUP, **setup), CEILINGS, cases)


def cells(text: str, name: str) -> list[list[str]]:
    """Every table row of a case, cell by cell."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if f"| {name} " in line]


def test_the_rows_of_a_case() -> None:
    speed, bounds = cells(render(report(CASE)), "f32_all_selected")
    assert speed == [
        *("f32_all_selected", "32", "9.70", "1.25", "970 (100x)", "15.0 (yes)", "280 (29x)", "4.50", "9.00"),
        *("5.50e-04", "2.00e-06", "4.00e-06"),
    ]
    assert bounds == [
        *("f32_all_selected", "direct x190, dual x6", "2.00e-04", "hessian_solve 9.00, token_scoring 0.500"),
        *("3.88 PFLOP", "400 TFLOP/s", "50%", "106 GB", "10.9 GB/s", "0.3%", "4.85", "arithmetic"),
    ]


def test_the_ceilings_stand_above_the_tables() -> None:
    text = render(report(CASE))
    line = (
        "Ceilings of the device, measured now: products of 8192^3: fp16 800 TFLOP/s, fp32 50.0 TFLOP/s, "
        "fp64 58.0 TFLOP/s; copy 4.00 TB/s"
    )
    assert text.index(line) < text.index("| case")
    assert "T=733,870 tokens, R=96 responses (6 prompts x 16)" in text
    assert "Some GPU, torch 2.11, 2030-01-02T03:04:05+00:00, commit abc123, a note" in text


def test_another_shape_is_not_held_against_the_reference() -> None:
    text = render(report(CASE, tokens=1000, reference_shape=False))
    assert cells(text, "f32_all_selected")[0][4:6] == ["-", "-"]
    assert "970" not in text


def test_a_missed_goal_and_a_failed_case_say_so() -> None:
    slow = dataclasses.replace(CASE, run=dataclasses.replace(RUN, seconds=16.0))
    assert cells(render(report(slow)), "f32_all_selected")[0][5] == "15.0 (no)"
    failed = dataclasses.replace(CASE, run=None, bound=None, yardsticks=(), failures=("no room",))
    text = render(report(failed))
    assert cells(text, "f32_all_selected")[0] == [
        *("f32_all_selected", "32", "failed", "-", "970", "15.0", "-", "-", "-", "-", "-", "-")
    ]
    assert text.endswith("Failed:\n- f32_all_selected: no room\n")


def test_reused_layers_are_said() -> None:
    assert "reuse" not in render(report(CASE))
    text = render(report(dataclasses.replace(CASE, distinct_layers=3)))
    assert "f32_all_selected: 3 of 28 layers have factors of their own (49.3 GiB), the others reuse them" in text


def test_columns_line_up() -> None:
    assert markdown(("a", "long head"), [["value", "b"], ["c", "d"]]) == "\n".join(
        (
            "| a     | long head |",
            "| ----- | --------- |",
            "| value | b         |",
            "| c     | d         |",
        )
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (float("nan"), "nan"),
        (0.01234, "0.0123"),
        (0.9996, "1.000"),
        (1.234, "1.23"),
        (970.0, "970"),
        (12_345.6, "12,346"),
        (1.234e-5, "1.23e-05"),
        (6.79e13, "6.79e+13"),
    ],
)
def test_numbers_keep_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_units_and_shares() -> None:
    assert scaled(6.79e13, "FLOP") == "67.9 TFLOP"
    assert scaled(4.0, "B") == "4.00 B"
    assert scaled(0.0, "B") == "0 B"
    assert scaled(3.8e18, "FLOP") == "3,800 PFLOP"
    assert (percent(0.501), percent(0.0123)) == ("50%", "1.2%")
