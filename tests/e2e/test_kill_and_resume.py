"""SIGKILL the orchestrator at any moment, run the same command again: every point once, and the same report."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.e2e.sweeping import Product, completions, without_measurements

SWEEP = ("sweep", "sweeps/contract.yaml")
MOMENTS = 10


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """The report of a run that nobody killed, and how long it took."""
    product = Product(tmp_path_factory.mktemp("undisturbed") / "runs")
    began = time.monotonic()
    code, output = product.run(*SWEEP)
    assert code == 0, output
    return product.report("contract"), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_sweep_ends_with_each_point_once_and_the_same_report(
    moment: int, tmp_path: Path, undisturbed: tuple[str, float]
) -> None:
    report, seconds = undisturbed
    product = Product(tmp_path / "runs")
    product.start_and_kill(*SWEEP, after=seconds * (moment + 0.5) / MOMENTS)
    code, output = product.run(*SWEEP)
    assert code == 0, output
    assert set(completions(product, "contract").values()) == {1}
    for folder in product.attempt_folders("contract"):
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == [1, 2], "a step was written twice or not at all"
    assert without_measurements(product.report("contract")) == without_measurements(report)


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_still_ends(product: Product) -> None:
    for _ in range(4):
        product.start_and_kill(*SWEEP, after=2.5)
    code, output = product.run(*SWEEP)
    assert code == 0, output
    assert set(completions(product, "contract").values()) == {1}


@pytest.mark.slow
def test_a_second_process_follows_the_first_and_both_end_alike(product: Product) -> None:
    first = product.start(*SWEEP)
    code, output = product.run(*SWEEP)
    assert code == 0, output
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert set(completions(product, "contract").values()) == {1}
