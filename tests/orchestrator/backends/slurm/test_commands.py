"""Running a command, with real ones."""

from __future__ import annotations

import sys

import pytest

from orchestrator.backends.slurm.commands import CommandTimeout, Reply, ask, client_environment, run_command
from orchestrator.errors import Unobservable


def test_output_and_exit_code_come_back():
    reply = run_command([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"])
    assert reply == Reply(3, "out\n", "err\n")
    assert reply.complaint == "err"


def test_a_command_that_does_not_end_is_killed():
    with pytest.raises(CommandTimeout):
        run_command([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)


def test_a_machine_without_slurm_is_told_so():
    assert "login node" in run_command(["squeue-that-is-not-there"]).complaint


def test_nothing_of_the_job_that_we_may_run_in_goes_on_to_the_next():
    kept = client_environment({"PATH": "/bin", "SLURM_JOB_ID": "1", "SBATCH_PARTITION": "x", "SLURM_CONF": "/etc/s"})
    assert kept == {"PATH": "/bin", "SLURM_CONF": "/etc/s", "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}


def test_a_question_without_an_answer_is_unobservable():
    with pytest.raises(Unobservable, match="squeue: no"):
        ask(lambda *_: Reply(1, err="no"), ["squeue"])
