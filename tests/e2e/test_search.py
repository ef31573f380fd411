"""A search as a user runs it: SIGKILL in its midst, the same command again, and the trials are those of a run undisturbed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.sweeping import Product, completions, wait_for

SWEEP = """\
# Which factor spreads the scores most?
name: search
config: synthetic
overrides: [synthetic.step_seconds=0.02, trainer.total_training_steps=1]
alias: {factor: influence.projection_dim_factor, scope: influence.scope}
backend: local
search:
  objectives: {npz/std: maximize}
  params: {factor: "int(32, 512, log)", scope: "choice(per_prompt, all_selected)"}
  sampler: {name: tpe, n_startup_trials: 1}
  trials: 2
"""


def created(product: Product) -> int:
    """Trials in the journal, Optuna's operation 4."""
    journal = product.root / "sweeps/search/search.journal"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sum('"op_code":4,' in line for line in lines)


def trials(product: Product) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = product.json("status", "search")["search"]["trials"]
    return found


@pytest.mark.slow
def test_a_search_that_is_killed_ends_with_the_trials_of_one_that_is_not(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(SWEEP)
    undisturbed, killed = Product(tmp_path / "undisturbed"), Product(tmp_path / "killed")
    code, output = undisturbed.run("sweep", str(file))
    assert code == 0, output
    assert "best so far" in output
    process = killed.start("sweep", str(file))
    wait_for(lambda: created(killed) >= 1, patience_s=120)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, output = killed.run("sweep", str(file))
    assert code == 0, output
    found = trials(killed)
    assert found == trials(undisturbed)
    assert len(found) == 2
    assert set(completions(killed, "search").values()) == {1}
    assert "### Search" in killed.report("search")
    assert created(killed) == 2
