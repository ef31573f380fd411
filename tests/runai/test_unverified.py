"""What nobody knows about Run:ai decides no sweep: each setting of each knob, and what others do meanwhile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake_files import fail, succeed
from orchestrator.ledger import View
from orchestrator.model import AttemptState, PointState
from orchestrator.paths import AttemptPaths
from tests.orchestrator.driving import point
from tests.orchestrator.test_loop import CUDA_OOM
from tests.runai.imaginary import Act
from tests.runai.knobs import Knobs, variations
from tests.runai.rehearsal import Stage
from tests.runai.workload import Workload
from trainer_ext.records import ENV_ATTEMPT_TOKEN

IDS = [point(index).id for index in range(7)]
WELL, RUDE, LARGE, *LONG = IDS
LONG_S = 3.0


def exits_with_1(request: JobRequest, started_at: float, ended_at: float) -> None:
    """All is done, and then the job ends with an error."""
    succeed(request, started_at, ended_at)
    path = AttemptPaths(request.attempt_dir).outcome
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exit_code": 1}))


def by_point(folder: Path, pool: str) -> Act:
    """One succeeds, one exits with an error after its end, one needs the larger pool, one takes long."""
    match folder.parent.name:
        case name if name == RUDE:
            return Act(exits_with_1, code=1)
        case name if name == LARGE and pool == "h100":
            return Act(fail(1, log=CUDA_OOM), code=1)
        case name if name in LONG:
            return Act(seconds=LONG_S)
    return Act()


@dataclass
class Meanwhile:
    """Others do something to the workloads of some points, once each, as soon as the point's first attempt runs."""

    stage: Stage
    deeds: dict[str, str]
    """Point -> what is done."""
    leaves_at: float = float("inf")
    """When those who took the nodes give them back."""

    def __call__(self, view: View) -> None:
        plane = self.stage.plane
        if self.stage.clock.now() >= self.leaves_at:
            for other in plane.named("urgent-"):
                plane.cluster.delete(other, self.stage.clock.now())
        for id_ in list(self.deeds):
            tokens = {one.token for one in view.attempts.get(id_, ()) if one.state is AttemptState.RUNNING}
            found = [one for one in plane.workloads.values() if one.environment.get(ENV_ATTEMPT_TOKEN) in tokens]
            if found:
                self._do(self.deeds.pop(id_), found[0])

    def _do(self, deed: str, workload: Workload) -> None:
        plane = self.stage.plane
        match deed:
            case "preempt":
                self.leaves_at = self.stage.clock.now() + 3.0
                for node in [node for node in plane.nodes if node.pool == workload.pool_names[0]]:
                    plane.somebody_submits(f"urgent-{node.name}", node.pool, "run")
            case "suspend":
                plane.suspend(workload)
            case "delete":
                plane.delete(workload)
            case "forget":
                plane.forget(workload.id)


def rehearse(folder: Path, knobs: Knobs, deeds: dict[str, str], points: int = len(IDS)) -> tuple[Stage, View]:
    stage = Stage(folder, by_point, knobs, points)
    view = stage.drive(observe=Meanwhile(stage, dict(deeds)))
    stage.check()
    return stage, view


def verdicts(view: View, id_: str) -> list[tuple[str | None, str]]:
    return [(attempt.pool, str(attempt.verdict)) for attempt in view.attempts[id_]]


@pytest.mark.parametrize("knobs", variations().values(), ids=variations())
def test_whatever_the_setting_all_kinds_of_ends_come_out_the_same(quick_path: Path, knobs: Knobs) -> None:
    """Somebody more important takes the nodes in the middle of it."""
    long = LONG[0]
    stage, view = rehearse(quick_path, knobs, {long: "preempt"}, points=4)
    assert verdicts(view, WELL) == [("h100", "completed")]
    assert verdicts(view, RUDE) == [("h100", "completed")]
    assert verdicts(view, LARGE)[-2:] == [("h100", "gpu_oom"), ("h200", "completed")]
    assert verdicts(view, long) == [("h100", "preempted"), ("h100", "completed")]
    assert {point.state for point in view.points} == {PointState.SUCCEEDED}
    (rude,) = view.attempts[RUDE]
    assert "nonzero_exit_after_completion" in {anomaly.code for anomaly in rude.anomalies}
    assert sum(stage.jobs.finished.values()) == 5


TOUCHED = (
    *("defaults", "ended_status=400", "ended_status=404", "deleted_status=200", "suspend_phases=Terminating"),
    *("suspend_phases=Running", "degraded_unknown=Unknown", "deletion_delay=3.0", "listing_lag=2.0", "rate_limit=5"),
)
"""Settings that have to do with stopping and vanishing."""


@pytest.mark.parametrize("setting", TOUCHED)
def test_what_others_do_to_a_workload_is_no_failure_of_its_job(quick_path: Path, setting: str) -> None:
    suspended, deleted, forgotten, left_alone = LONG
    deeds = {suspended: "suspend", deleted: "delete", forgotten: "forget"}
    stage, view = rehearse(quick_path, variations()[setting], deeds)
    assert verdicts(view, suspended) == [("h100", "cancelled")]
    assert verdicts(view, deleted) == [("h100", "cancelled")]
    assert verdicts(view, forgotten) == [("h100", "node_failure"), ("h100", "completed")]
    assert verdicts(view, left_alone) == [("h100", "completed")]
    assert sum(stage.jobs.finished.values()) == 6


def test_a_node_that_dies_with_its_job_gives_it_a_second_try(quick_path: Path) -> None:
    stage = Stage(quick_path, lambda _folder, _pool: Act(seconds=LONG_S))
    lost: list[str] = []

    def observe(view: View) -> None:
        if not lost and any(one.state is AttemptState.RUNNING for one in view.attempts.get(IDS[0], ())):
            lost.append("h100-0")
            stage.plane.lose_node("h100-0")

    view = stage.drive(observe=observe)
    stage.check()
    assert verdicts(view, IDS[0])[-1] == ("h100", "completed")
    assert len(view.attempts[IDS[0]]) == 2
