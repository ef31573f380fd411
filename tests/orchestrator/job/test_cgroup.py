"""Contents of /proc/self/cgroup and /proc/self/mountinfo as captured on the kinds of machine that jobs meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.job.cgroup import Cgroup, CgroupMemory, locate, own_cgroup, read

TOP = Path("/sys/fs/cgroup")

UBUNTU_DESKTOP = (
    "0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte.scope\n",
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
    Cgroup(2, TOP / "user.slice/user-1000.slice/user@1000.service/app.slice/vte.scope", TOP),
)
POD_WITH_NAMESPACE = (
    "0::/\n",
    "1580 1571 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n",
    Cgroup(2, TOP, TOP),
)
SLURM_V2 = (
    "0::/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0\n",
    "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n",
    Cgroup(2, TOP / "system.slice/slurmstepd.scope/job_7/step_batch/user/task_0", TOP),
)
SLURM_V1 = (
    "9:name=systemd:/\n8:pids:/\n4:memory:/slurm/uid_0/job_12/step_batch\n1:cpu,cpuacct:/\n0::/\n",
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
    Cgroup(1, TOP / "memory/slurm/uid_0/job_12/step_batch", TOP / "memory"),
)
DOCKER_V1_WITHOUT_NAMESPACE = (
    "11:memory:/docker/0a1b\n10:cpuset:/docker/0a1b\n",
    "1014 1008 0:35 /docker/0a1b /sys/fs/cgroup/memory ro,nosuid master:17 - cgroup cgroup rw,memory\n",
    Cgroup(1, TOP / "memory", TOP / "memory"),
)
OUTSIDE_OF_WHAT_IS_MOUNTED = (
    "0::/../other.scope\n",
    "30 23 0:26 /mine /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    Cgroup(2, TOP, TOP),
)
NOTHING_MOUNTED = ("0::/\n", "22 28 0:21 / /proc rw,nosuid - proc proc rw\n", None)


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "expected"),
    [
        UBUNTU_DESKTOP,
        POD_WITH_NAMESPACE,
        SLURM_V2,
        SLURM_V1,
        DOCKER_V1_WITHOUT_NAMESPACE,
        OUTSIDE_OF_WHAT_IS_MOUNTED,
        NOTHING_MOUNTED,
    ],
    ids=["desktop", "pod", "slurm-v2", "slurm-v1", "docker-v1", "outside", "nothing"],
)
def test_the_group_is_located(cgroup, mountinfo, expected):
    assert locate(cgroup, mountinfo) == expected


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_version_2_is_read(tmp_path):
    events = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 0\n"
    write(tmp_path, memory__current="100\n", memory__peak="300\n", memory__max="max\n", memory__events=events)
    assert read(Cgroup(2, tmp_path, tmp_path)) == CgroupMemory(current=100, peak=300, limit=None, oom_kill=3)


def test_version_1_is_read(tmp_path):
    write(
        tmp_path,
        memory__usage_in_bytes="4710400\n",
        memory__max_usage_in_bytes="33591296\n",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    expected = CgroupMemory(current=4710400, peak=33591296, limit=None, oom_kill=2)
    assert read(Cgroup(1, tmp_path, tmp_path)) == expected


def test_the_limit_may_stand_above_the_group(tmp_path):
    job, task = tmp_path / "job", tmp_path / "job" / "step" / "task"
    write(job, memory__max="1000\n")
    write(job / "step", memory__max="2000\n")
    write(task, memory__max="max\n")
    assert read(Cgroup(2, task, tmp_path)).limit == 1000


def test_limits_above_the_mount_are_not_looked_for(tmp_path):
    write(tmp_path, memory__max="5\n")
    write(tmp_path / "mount", memory__max="max\n")
    assert read(Cgroup(2, tmp_path / "mount", tmp_path / "mount")).limit is None


def test_old_kernels_and_strange_contents_leave_gaps(tmp_path):
    write(tmp_path, memory__current="100\n", memory__events="oom_kill many\n")
    assert read(Cgroup(2, tmp_path, tmp_path)) == CgroupMemory(current=100)
    assert read(Cgroup(2, tmp_path / "gone", tmp_path)) == CgroupMemory()


def test_no_proc_no_group(tmp_path):
    assert own_cgroup(tmp_path) is None
