"""What `doctor` says of a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path

from orchestrator.backends.slurm.checkup import look
from orchestrator.backends.slurm.commands import Reply


def signs(slurm, tmp_path, clock, **answers):
    slurm.answers |= answers
    return {sign.check: sign for sign in look(slurm, tmp_path, clock, try_a_job="sbatch" in answers)}


def test_a_sound_cluster_is_described(slurm, tmp_path, clock):
    found = signs(slurm, tmp_path, clock, sacct=Reply(0))
    assert all(sign.ok for sign in found.values())
    assert "arrays of up to 1000" in found["Slurm controller"].detail
    assert "h100 (2 nodes, 8 GPUs a node, 1-00:00:00 at most)" in found["Slurm partitions"].detail


def test_without_a_controller_nothing_else_is_asked(slurm, tmp_path, clock):
    slurm.ctld_is_down = True
    (sign,) = signs(slurm, tmp_path, clock).values()
    assert not sign.ok
    assert "login node" in sign.detail


def test_accounting_that_is_down_is_no_accounting_that_is_not_there(slurm, tmp_path, clock):
    slurm.dbd_is_down = True
    assert not signs(slurm, tmp_path, clock)["Slurm accounting"].ok
    slurm.accounting = False
    assert signs(slurm, tmp_path, clock)["Slurm accounting"].ok


def test_a_node_that_writes_into_the_folder_is_named(slurm, tmp_path, clock):
    def run(command, timeout_s=60.0):
        if command[0] != "sbatch":
            return slurm(command, timeout_s)
        trial = shlex.split(command[-1].removeprefix("--wrap="))[-1]
        Path(trial).write_text("node-7\n")
        return Reply(0, "17\n")

    signs = {sign.check: sign for sign in look(run, tmp_path, clock, try_a_job=True)}
    assert signs["state folder on a node"].ok
    assert "node-7" in signs["state folder on a node"].detail
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_node_does_not_write_is_a_fault(slurm, tmp_path, clock):
    for state in ("COMPLETED", "FAILED"):
        found = signs(slurm, tmp_path, clock, sacct=Reply(0), sbatch=Reply(0, "17\n"), squeue=Reply(0, f"{state}\n"))
        assert not found["state folder on a node"].ok
        assert "--root" in found["state folder on a node"].detail


def test_a_cluster_without_a_free_node_is_no_fault_and_the_trial_is_withdrawn(slurm, tmp_path, clock):
    found = signs(slurm, tmp_path, clock, sacct=Reply(0), sbatch=Reply(0, "17\n"), squeue=Reply(0, "PENDING\n"))
    assert found["state folder on a node"].ok
    assert slurm.asked("scancel") == [["scancel", "17"]]
