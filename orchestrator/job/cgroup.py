"""The memory accounting of this process's control group, version 1 or 2.

Finding it needs two files: /proc/self/cgroup says where in the hierarchy we are, /proc/self/mountinfo which part of the
hierarchy is mounted where. In a container both are usually `/`; on a bare Slurm node they are not, and in a container
without a cgroup namespace the first names a path on the host that the second maps to the mount point.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_V1_UNLIMITED = 1 << 62
"""Version 1 writes "no limit" as the largest multiple of the page size."""


@dataclass(frozen=True)
class Cgroup:
    """A control group with memory accounting."""

    version: int
    path: Path
    mount: Path
    """The top of what is visible of its hierarchy; a limit may stand at any level between the two."""


@dataclass(frozen=True)
class CgroupMemory:
    """In bytes; None where the kernel does not tell. `oom_kill` counts since the group was made."""

    current: int | None = None
    peak: int | None = None
    limit: int | None = None
    oom_kill: int | None = None


def own_cgroup(proc: Path = Path("/proc/self")) -> Cgroup | None:
    """The group of this process, or None without one (no Linux, nothing mounted)."""
    try:
        return locate((proc / "cgroup").read_text(), (proc / "mountinfo").read_text())
    except OSError:
        return None


def locate(cgroup: str, mountinfo: str) -> Cgroup | None:
    """From the contents of /proc/self/cgroup and /proc/self/mountinfo to the folder with the memory files.

    On a hybrid system memory is accounted by version 1 wherever that has a memory controller.
    """
    places = dict(_places(cgroup))
    mounts = dict(_mounts(mountinfo))
    for version, controller in ((1, "memory"), (2, "")):
        if controller in places and controller in mounts:
            root, mount = mounts[controller]
            return Cgroup(version, _below(mount, root, places[controller]), mount)
    return None


def read(group: Cgroup) -> CgroupMemory:
    """What the kernel says now."""
    names = _V2 if group.version == 2 else _V1
    return CgroupMemory(
        current=_number(group.path / names.current),
        peak=_number(group.path / names.peak),
        limit=_tightest(group, names.limit),
        oom_kill=_counter(group.path / names.events, "oom_kill"),
    )


@dataclass(frozen=True)
class _Names:
    current: str
    peak: str
    limit: str
    events: str


_V1 = _Names("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control")
_V2 = _Names("memory.current", "memory.peak", "memory.max", "memory.events")


def _places(cgroup: str) -> Iterator[tuple[str, str]]:
    """(controller, path); the controller of version 2 is the empty string."""
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _mounts(mountinfo: str) -> Iterator[tuple[str, tuple[str, Path]]]:
    """(controller, (root within the hierarchy, mount point))."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, filesystem = before.split(" "), after.split(" ")
        root, mount = fields[3], Path(fields[4])
        if filesystem[0] == "cgroup2":
            yield "", (root, mount)
        elif filesystem[0] == "cgroup" and "memory" in filesystem[-1].split(","):
            yield "memory", (root, mount)


def _below(mount: Path, root: str, path: str) -> Path:
    """Where the group `path` is, given that `root` of the hierarchy is mounted at `mount`.

    A group outside of what is mounted cannot be seen; the mount point itself is then the nearest that is known.
    """
    try:
        relative = PurePosixPath(os.path.normpath(path)).relative_to(root)
    except ValueError:
        return mount
    return mount / relative


def _tightest(group: Cgroup, name: str) -> int | None:
    """The lowest limit between the group and the top: Slurm limits the job, and runs it some levels below."""
    levels = [group.path, *group.path.parents]
    visible = levels[: levels.index(group.mount) + 1]
    limits = [limit for level in visible if (limit := _number(level / name)) is not None]
    return min((limit for limit in limits if limit < _V1_UNLIMITED), default=None)


def _number(file: Path) -> int | None:
    """The file's one number; None for `max`, and where there is no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _counter(file: Path, name: str) -> int | None:
    try:
        rows = (line.split() for line in file.read_text().splitlines())
        return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == name), None)
    except (OSError, ValueError):
        return None
