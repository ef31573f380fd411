"""The similarity diagnostic in verl's engine, and what the driver makes of the ranks' answers."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator.collect.console import parse_console
from orchestrator.collect.npz import read_npz
from reports.report import render
from reports.similarity import significant
from reports.snapshot import NpzSnapshot, PointSnapshot, SweepSnapshot
from tests.trainer_ext.verl_plugin.engine_world import Rows, make_batch, request, traced
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses, compare_projection, similarity
from trainer_ext.verl_plugin.similarity import RankComparison, combined, lines
from trainer_ext.writer import ScoredResponse, write_step

ROWS = Rows(
    [
        ("a", [5, 6, 7, 8], [50, 51, 52], 1.0, 0.9),
        ("a", [5, 6, 7, 8], [60, 61, 62, 63, 64], 0.0, -1.1),
        ("a", [5, 6, 7, 8], [65, 66], 1.0, 0.4),
        ("b", [30, 31], [71, 72, 73, 74], 1.0, 1.3),
        ("b", [30, 31], [75], 0.0, -0.6),
    ]
)
SCORING = {
    "hessian_mode": "inverse",
    "projection_dim_factor": 8,
    "precision": "fp64",
    "skip_optimizer_step": True,
    "output_function": "log_prob_reward",
}
MODULE = "layers.1.self_attn.k_proj"


def answer(worker: Any, inline: bool, compare: bool = True, **changes: Any) -> tuple[Tensor, dict[str, Any]]:
    asked = {**request(inline, **{**SCORING, **changes}), "similarity": compare, "unprojected_module": MODULE}
    batch = make_batch(ROWS, [torch.full((len(r),), -5.6) for r in ROWS.responses], micro_batch_size_per_gpu=5)
    scores, _, report = traced(worker, batch, asked)
    return scores.values(), report


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inline", [True, False])
def test_comparing_leaves_the_scores_as_they_are_and_compares_every_response(worker: Any, inline: bool) -> None:
    plain, without = answer(worker, inline, compare=False)
    scores, report = answer(worker, inline)
    assert torch.equal(scores, plain)
    assert "similarity" not in without
    assert report["tokens"] == sum(map(len, ROWS.responses)), "tokens of the second capture do not count"
    assert report["timing"]["similarity"] > 0
    found = report["similarity"].similarity
    assert found.hinv_dot.shape == found.raw_dot.shape == (5, 5)
    assert found.responses.group.tolist() == [0, 0, 0, 1, 1]
    assert found.responses.accepted.tolist() == [True, False, True, True, False]
    assert (found.hinv_dot.diagonal() > 0).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inline", [True, False])
def test_one_module_is_captured_as_it_is_beside_its_projection(worker: Any, inline: bool) -> None:
    _, report = answer(worker, inline)
    fidelity = report["similarity"].fidelity
    assert report["similarity"].module == f"model.{MODULE}"
    _, exact = answer(worker, inline, projection_dim_factor=1)
    unprojected = exact["similarity"].fidelity
    torch.testing.assert_close(unprojected.projected, unprojected.unprojected, rtol=1e-12, atol=0)
    torch.testing.assert_close(fidelity.unprojected, unprojected.unprojected, rtol=1e-6, atol=0)
    assert 0 < fidelity.relative_error_of_self_dots < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "count"), [("k_proj", 2), ("layers.9.self_attn.k_proj", 0)])
def test_a_name_of_no_module_or_of_several_is_refused(worker: Any, name: str, count: int) -> None:
    config = InfluenceConfig.from_mapping(SCORING)
    with pytest.raises(ValueError, match=rf"unprojected_module={name}: ends the names of {count} captured modules"):
        worker.actor.tap(config, name)


def compared(seed: int, rank_has_module: bool = True) -> RankComparison:
    generator = torch.Generator().manual_seed(seed)
    response = torch.arange(4).repeat_interleave(3)
    factors = ModuleFactors(torch.randn(12, 6, generator=generator), torch.randn(12, 4, generator=generator), response)
    full = ModuleFactors(torch.cat([factors.inputs, factors.inputs], 1), factors.output_grads, response)
    accepted = torch.tensor([True, True, False, False])
    responses = Responses(torch.tensor([0, 0, 0, 1]), accepted, torch.ones(4))
    found = similarity({"layers.0.k_proj": factors}, responses, InfluenceConfig(precision="fp64"))
    fidelity = compare_projection(factors, full, responses) if rank_has_module else None
    return RankComparison(found, "layers.0.k_proj" if rank_has_module else None, fidelity, seconds=0.1)


DIMS = {
    f"layers.{layer}.{kind}": sides
    for layer in range(28)
    for kind, sides in {"q_proj": (48, 48), "up_proj": (48, 280)}.items()
}


def test_all_ranks_make_one_table_that_json_can_hold() -> None:
    parts = [compared(1), compared(2)]
    found = combined(parts, DIMS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    rows = {(row["matrix"], row["scope"], row["pair"]): row for row in found["rows"]}
    assert len(rows) == 12
    raw = rows["RAW_DOT", "PER_PROMPT", "acc-acc"]
    assert raw["pairs"] == 2
    dots = [float(part.similarity.raw_dot[0, 1]) for part in parts]
    assert raw["mean"] == pytest.approx(sum(dots) / 2)
    assert raw["self_dot"] == pytest.approx(
        sum(float(part.similarity.raw_dot.diagonal()[:2].sum()) for part in parts) / 4
    )
    across = rows["HINV_DOT", "ALL_PROMPT", "rej-rej"]
    assert (across["pairs"], across["mean"]) == (2, None), "each prompt has its own Hessian"
    assert found["residual"] == max(part.similarity.residual or 0 for part in parts)


def test_the_projection_table_has_the_sizes_of_the_reports() -> None:
    sizes = combined([compared(1)], DIMS)["projection"]
    assert sizes[0].keys() == {"module_type", "modules", "k_in", "k_out", "dim", "hessian_mib"}
    assert [(row["module_type"], row["modules"], row["dim"], round(row["hessian_mib"])) for row in sizes] == [
        ("q_proj", 28, 2304, 40),
        ("up_proj", 28, 13440, 1378),
    ]


def test_a_report_shows_every_row_that_the_driver_put_into_the_score_file(tmp_path: Path) -> None:
    found = combined([compared(1), compared(2)], DIMS)
    modules = {name: {"k_in": k_in, "k_out": k_out, "route": "direct"} for name, (k_in, k_out) in DIMS.items()}
    one = ScoredResponse(np.array([1]), np.array([0.5]), np.array([True]), True, 1.0, "a")
    file = read_npz(
        write_step(tmp_path, 1, [one], {"modules": modules, "similarity": found}), "influence/step_000001.npz"
    )
    assert file.similarity is not None
    assert [dataclasses.asdict(row) for row in file.similarity.rows] == found["rows"]
    npz = NpzSnapshot(file.file, file.step, similarity=file.similarity)
    point = PointSnapshot("job", "job", state="succeeded", npz=(npz,), dims=file.dims)
    drawn = render(SweepSnapshot("sweep", points=(point,)), only={"similarity"})
    for row in found["rows"]:
        part = drawn.partition(f"**{row['matrix']}**")[2]
        line = next(line for line in part.splitlines() if line.startswith(f"| {row['pair']} |"))
        figures = [row["mean"], row["cosine"], row["self_dot"]]
        assert all(f" {significant(figure)} |" in line for figure in figures if figure is not None)
    assert "| `up_proj` | 28 | 48 | 280 | 13,440 | 1,378 | direct |" in drawn


def test_without_an_unprojected_module_nothing_is_said_of_one() -> None:
    found = combined([compared(1, rank_has_module=False)], DIMS)
    assert found["unprojected"] is None
    assert not any("PROJECTED" in line for line in lines(1, found))


def test_the_console_says_it_in_the_words_of_the_reports() -> None:
    said = lines(3, combined([compared(1)], DIMS))
    assert said[0].startswith("[influence_trace] similarity of step 3, residual=")
    assert "[influence_trace] projection up_proj modules=28 k_in=48 k_out=280 D=13440 hessian=1378MiB" in said
    for matrix in ("RAW_DOT", "HINV_DOT", "PROJECTED", "UNPROJECTED"):
        for scope in ("PER_PROMPT", "ALL_PROMPT"):
            for pair in ("acc-acc", "rej-rej", "acc-rej"):
                (line,) = [line for line in said if line.startswith(f"[influence_trace] {matrix} {scope} {pair} mean=")]
                assert (" self=-" in line) == (pair == "acc-rej")
                assert ("module=layers.0.k_proj" in line) == ("PROJECTED" in matrix)
    assert said[-1].startswith("[influence_trace] UNPROJECTED against PROJECTED correlation=1 ")
    assert not any("nan" in line for line in said)


def test_the_lines_are_no_evidence_of_anything_else() -> None:
    text = "\n".join(lines(3, combined([compared(1)], DIMS)))
    facts = parse_console(io.BytesIO(f"{text}\n".encode()))
    assert (facts.steps, facts.signatures, facts.total_steps) == ({}, (), None)
