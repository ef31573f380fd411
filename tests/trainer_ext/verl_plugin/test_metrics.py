"""Names, sums over ranks, and the line that says what runs."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from verl.trainer.ppo.v1.utils import MetricsAggregator
from verl.utils.logger.aggregate_logger import concat_dict_to_str

import trainer_ext
from orchestrator.collect.console import parse_console
from orchestrator.triage.anomalies import memory_metric_unreliable
from orchestrator.triage.evidence import MIB, Evidence
from reports import metrics as read
from reports.snapshot import PointSnapshot
from trainer_ext.influence import InfluenceConfig
from trainer_ext.memory import GIB, MemoryPeaks
from trainer_ext.verl_plugin import metrics
from trainer_ext.verl_plugin.metrics import combine_ranks, memory_metrics, setup_line
from trainer_ext.verl_plugin.trainer import split_settings

GOLDEN = Path(__file__).parents[2] / "golden" / "step_line.log"
SECTION = Path(trainer_ext.__file__).parent / "conf" / "influence" / "default.yaml"


def report(**changes: Any) -> dict[str, Any]:
    module = {"k_in": 4, "k_out": 2, "route": "direct", "residual": 1e-6}
    base = {"tokens": 10, "scored_tokens": 6, "timing": {"hessian_solve": 1.0}}
    return {**base, "modules": {"q_proj": module}, **changes}


def test_counts_add_up_over_ranks_and_times_are_the_slowest() -> None:
    slow = report(tokens=3, scored_tokens=0, timing={"hessian_solve": 2.0})
    slow["modules"]["q_proj"]["residual"] = 1e-3
    combined = combine_ranks([report(), slow])
    assert combined["tokens"] == 13
    assert combined["scored_tokens"] == 6
    assert combined["timing"] == {"hessian_solve": 2.0}
    assert combined["modules"]["q_proj"]["residual"] == 1e-3


def test_a_rank_that_solved_nothing_has_no_residual_to_add() -> None:
    idle = report(modules={"q_proj": {"k_in": 4, "k_out": 2, "route": "none", "residual": None}})
    assert combine_ranks([idle, report()])["modules"]["q_proj"]["residual"] == 1e-6
    assert combine_ranks([idle])["modules"]["q_proj"]["residual"] is None


@pytest.mark.parametrize("name", ["ROWS", "TOKENS", "SCORED_TOKENS", "RESIDUAL"])
def test_verls_aggregation_leaves_a_steps_values_as_they_are(name: str) -> None:
    aggregator = MetricsAggregator()
    aggregator.add_step_metrics({getattr(metrics, name): 7.5}, sample_count=16)
    assert aggregator.get_aggregated_metrics()[getattr(metrics, name)] == 7.5


# ---- memory


TWO_NODES = [
    MemoryPeaks(device=80 * GIB, allocated=70 * GIB, process=31 * GIB, node=240 * GIB),
    MemoryPeaks(device=91 * GIB, allocated=170 * GIB, process=30 * GIB, node=None),
    MemoryPeaks(device=85 * GIB, allocated=60 * GIB, process=33 * GIB, node=250 * GIB),
]


def test_memory_is_that_of_the_fullest_card_rank_and_node() -> None:
    assert memory_metrics(TWO_NODES) == {
        "perf/physical_memory_peak_gb": 91.0,
        "perf/max_memory_allocated_gb": 170.0,
        "perf/host_memory_peak_gb": 250.0,
        "perf/rank_host_memory_peak_gb": 33.0,
    }


def test_on_a_cpu_the_host_is_the_device() -> None:
    assert memory_metrics([MemoryPeaks(device=None, allocated=None, process=2 * GIB, node=5 * GIB)]) == {
        "perf/physical_memory_peak_gb": 5.0,
        "perf/host_memory_peak_gb": 5.0,
        "perf/rank_host_memory_peak_gb": 2.0,
    }


def golden_metrics() -> dict[str, float]:
    """A step on two ranks, with an engine asleep beside the second: torch counts 170 GiB on a card of 140.4."""
    step = {metrics.ROWS: 96, metrics.TOKENS: 733_870, metrics.RESIDUAL: 2.5e-4}
    return {**step, "actor/perf/max_memory_allocated_gb": 120.5, **memory_metrics(TWO_NODES[:2])}


def test_verl_prints_the_step_as_the_golden_line() -> None:
    assert concat_dict_to_str(golden_metrics(), step=1) + "\n" == GOLDEN.read_text()


def test_the_collectors_read_the_golden_line_and_the_reports_find_their_figures_in_it() -> None:
    steps = parse_console(io.BytesIO(GOLDEN.read_bytes())).steps
    assert steps == {1: pytest.approx(golden_metrics())}
    point = PointSnapshot(id="p", name="p", parameters={}, state="succeeded", metrics=steps)
    assert read.peak(point, read.ROWS_EMITTED) == 96
    assert read.peak(point, read.PHYSICAL_PEAK_GIB) == 91.0
    assert read.peak(point, read.TORCH_PEAK_GIB) == 170.0, "of all ranks, not verl's of one"
    assert read.peak(point, read.HOST_PEAK_GIB) == 240.0


def test_triage_doubts_torchs_figure_of_the_golden_line_by_the_card_and_by_the_device() -> None:
    steps = parse_console(io.BytesIO(GOLDEN.read_bytes())).steps
    found = memory_metric_unreliable(Evidence(ended=True, steps=(1,), metrics=steps, card_bytes=143_771 * MIB))
    assert found is not None
    assert "170.0 GiB (perf/max_memory_allocated_gb, step 1)" in found.message
    assert "the card has 140.4 GiB" in found.message
    assert "91.0 GiB" in found.message


# ---- the setup line


def settings_in(line: str) -> dict[str, str]:
    prefix, _, words = line.partition(" setup ")
    assert prefix == "[influence_trace]"
    return dict(word.split("=", 1) for word in words.split(" "))


def test_the_setup_line_holds_every_key_of_the_influence_section_and_every_field_of_the_engine() -> None:
    section = yaml.safe_load(SECTION.read_text())
    said = settings_in(setup_line(*split_settings(section)))
    fields = {field.name for field in dataclasses.fields(InfluenceConfig)}
    assert said.keys() == section.keys() | fields
    plain = {name: str(value) for name, value in section.items() if not isinstance(value, list)}
    assert plain.items() <= said.items()
    assert said["target_modules"].split(",") == section["target_modules"]


def test_the_setup_line_is_no_evidence_of_anything_else() -> None:
    line = setup_line(*split_settings(yaml.safe_load(SECTION.read_text())))
    facts = parse_console(io.BytesIO(f"{line}\n".encode()))
    assert (facts.lines, facts.steps, facts.signatures, facts.total_steps) == (1, {}, (), None)
