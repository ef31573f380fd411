"""The script that sbatch gets, and what its answers mean."""

from __future__ import annotations

import pytest

from orchestrator.backends.slurm import submission
from orchestrator.backends.slurm.commands import CommandTimeout, Reply
from orchestrator.backends.slurm.options import parameters
from orchestrator.errors import BackendError, Deferred, SubmitUncertain
from tests.orchestrator.backends.slurm.double import read_options

FAILED = "sbatch: error: Batch job submission failed:"
POLICY = f"{FAILED} Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.fixture
def submit(make):
    """submit(reply, n) -> (id, #SBATCH options, script) of a submission that sbatch answers so."""

    def submit(reply=Reply(0, "Submitted batch job 17\n"), n=1):  # noqa: B008
        request = make()
        folder = request.attempt_dir / "slurm"
        asked = parameters(request, "name", "c0mment")
        id_ = submission.submit(lambda *_: reply, folder, [request.attempt_dir] * n, asked)
        script = folder / submission.SCRIPT
        return id_, read_options(script), script.read_text()

    return submit


def test_a_single_job_is_no_array(submit):
    id_, options, _ = submit()
    assert id_ == "17"
    assert (options["job-name"], options["comment"], options["gres"]) == ("name", "c0mment", "gpu:8")
    assert "array" not in options


def test_many_jobs_are_one_array(submit):
    assert submit(n=10)[1]["array"] == "0-9%10"


def test_nothing_stands_between_slurm_and_the_job(submit):
    _, options, script = submit()
    assert "srun" not in script
    assert "\nexec " in script
    assert (options["signal"], options["open-mode"]) == ("B:USR2@90", "append")
    assert "requeue" in options
    assert "wckey" not in options


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (f"{FAILED} Invalid partition name specified", BackendError),
        (f"{FAILED} Requested node configuration is not available", BackendError),
        (POLICY, Deferred),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", Deferred),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", Deferred),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}", BackendError),
        (f"{FAILED} Socket timed out on send/recv operation", SubmitUncertain),
        (
            f"{FAILED} Unable to contact slurm controller (connect failure)",
            SubmitUncertain,
        ),
    ],
)
def test_what_a_refusal_means(submit, said, error):
    with pytest.raises(BackendError) as caught:
        submit(Reply(1, err=said))
    assert type(caught.value) is error
    assert "sbatch" in str(caught.value)


def test_an_answer_without_an_id_is_uncertain(submit):
    with pytest.raises(SubmitUncertain):
        submit(Reply(0, "hm\n"))


def test_an_sbatch_that_does_not_end_is_uncertain(make):
    def never(*_):
        raise CommandTimeout("sbatch did not answer within 60 s")

    request = make()
    with pytest.raises(SubmitUncertain, match="may have been accepted"):
        submission.submit(never, request.attempt_dir / "slurm", [request.attempt_dir], parameters(request, "n", "c"))
