"""slurmdbd is down for the whole sweep: what the job left and what slurmctld remembers must do."""

from __future__ import annotations

from tests.slurm.cluster import enforcement
from tests.slurm.configuration import Enforcement
from tests.slurm.scenarios import Played, Scenario

SCENARIO = Scenario(
    "unaccounted",
    {
        "overrides": ["synthetic.fail_on_pools=[h100]"],
        "parameters": {"fail": ["none", "python_error", "cuda_oom", "host_oom", "sigkill"]},
        "alias": {"fail": "synthetic.fail"},
        "job_name": "{fail}",
        "retry": {"backoff": {"base": 0.1}, "host_memory_max": "256MiB", "budgets": {"unknown": 1}},
    },
    accounting=False,
)


def test_every_point_ends_as_with_accounting(played: Played) -> None:
    assert played.tried("none") == [("h100", "completed")], played.output
    assert played.tried("python-error") == [("h100", "code_error")]
    assert played.tried("cuda-oom") == [("h100", "gpu_oom"), ("h200", "completed")]
    if enforcement() is not Enforcement.POLLING:
        assert played.tried("host-oom") == [("h100", "host_oom"), ("h200", "completed")]


def test_a_kill_without_a_sign_of_its_cause_is_not_called_out_of_memory(played: Played) -> None:
    assert {verdict for _, verdict in played.tried("sigkill")} == {"unknown"}
    assert played.states()["sigkill"] == "failed"


def test_no_point_runs_twice_to_its_end_and_no_job_is_left(played: Played) -> None:
    assert played.complete_runs() == {"none": 1, "python-error": 0, "cuda-oom": 1, "host-oom": 1, "sigkill": 0}
    assert played.left_over() == []
