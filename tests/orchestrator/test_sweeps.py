"""Every sweep file that ships loads, expands and composes, and says first what question it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.compose import compose_points, find_verl_config, resolve_profile
from orchestrator.expand import expand
from orchestrator.job_section import job_section
from orchestrator.spec import load

SWEEPS = Path(__file__).parents[2] / "sweeps"
POINTS = {
    "contract": 6,
    "factor": 4,
    "factor-scope": 4,
    "full-token-timing": 1,
    "grad-similarity": 1,
    "loo-factors": 4,
    "smoke": 2,
    "vhack": 6,
}
ONE_STEP = {"fidelity", "factor-scope", "grad-similarity"}
FILES = sorted(path for path in SWEEPS.glob("*.yaml") if path.name != "pools.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("can_use_gpu", [False, True])
def test_loads_expands_and_composes(path: Path, can_use_gpu: bool) -> None:
    if path.stem != "contract" and find_verl_config() is None:
        pytest.skip("verl is not installed")
    spec = load(path)
    spec = spec.model_copy(update={"profile": resolve_profile(spec, can_use_gpu)})
    points = compose_points(spec, expand(spec))
    assert len(points) == POINTS.get(path.stem, len(points))
    steps = 1 if path.stem in ONE_STEP else 2
    for point in points:
        job = job_section(point.config, spec)
        assert job.command[0] == "{python}"
        assert (job.expected_steps, job.expected_npz) == (steps, steps)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_opens_with_the_question_it_answers(path: Path) -> None:
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert path.read_text().startswith("#")
    assert "?" in " ".join(comment)
