"""A Slurm cluster on this machine: munge, MariaDB, slurmdbd, slurmctld and six nodes with cards that are not there.

Everything that it writes is in one folder; ending it ends every process that it ever started.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil

from tests.slurm import packages
from tests.slurm.configuration import GPUS_PER_NODE, NODES, Enforcement, Layout, Node
from tests.slurm.daemons import Daemons, end, kill, wait_until

ETC = Path("/etc/slurm")
LINKED = ("slurm.conf", "gres.conf", "cgroup.conf")
LAST = ("slurmdbd", "mariadbd", "munged")
"""What the others need while they end."""
_V1 = tuple(Path("/sys/fs/cgroup") / controller for controller in ("memory", "freezer"))
_V2 = Path("/sys/fs/cgroup/cgroup.controllers")
_SOCKET_PATH_LENGTH = 107


@dataclass(frozen=True)
class Cluster:
    """One cluster, running or not. Any process may make this object of the folder and go on with what it finds."""

    folder: Path
    name: str

    # ---- up and down -----------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring up what does not run, and wait until every node is ready for jobs.

        Raises:
            RuntimeError: this machine cannot have a cluster, or something did not start; the message says what.
        """
        if why := packages.obstacle():
            raise RuntimeError(why)
        packages.install()
        self._write()
        self._start_munge()
        self._start_mariadb()
        self.start_slurmdbd()
        if (
            self.name
            not in self.run("sacctmgr", "--noheader", "--parsable2", "list", "cluster", "format=cluster").split()
        ):
            self.run("sacctmgr", "--immediate", "add", "cluster", self.name)
        self.start_slurmctld()
        for node in NODES:
            self.start_slurmd(node)
        wait_until(lambda: all(self.state(node) == "idle" for node in NODES), f"nodes are idle; see {self.folder}/log")

    def down(self) -> None:
        """End every job and every daemon, and remove the folder."""
        with suppress(subprocess.SubprocessError, OSError):
            if self.daemons.running("slurmctld"):
                self.run("scancel", "--user=root")
        names = self.daemons.names()
        self.daemons.stop(*(name for name in names if name not in LAST))
        for name in LAST:
            self.daemons.stop(name)
        end(self._in_cgroups())
        self._remove_cgroups()
        self.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def link(self) -> None:
        """Let every user's commands find this cluster without `SLURM_CONF`, unless the machine has another one."""
        for name in LINKED:
            path = ETC / name
            if not path.exists():
                path.unlink(missing_ok=True)  # a link that leads nowhere
                path.symlink_to(self.folder / name)

    def unlink(self) -> None:
        for path in (ETC / name for name in LINKED):
            if path.is_symlink() and path.readlink().parent == self.folder:
                path.unlink()

    # ---- commands --------------------------------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        """What makes Slurm's commands talk to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """Output of one command.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        done = subprocess.run(
            command, env={**os.environ, **self.environ}, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def succeeds(self, *command: str) -> bool:
        try:
            self.run(*command)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False
        return True

    def state(self, node: Node) -> str:
        return self.run("sinfo", "--noheader", f"--nodes={node.name(self.name)}", "--format=%T").split("\n")[0].strip()

    # ---- single daemons --------------------------------------------------------------------------------------------

    @cached_property
    def daemons(self) -> Daemons:
        return Daemons(self.folder)

    @cached_property
    def layout(self) -> Layout:
        """The ports were free when the folder was made, and stay the cluster's."""
        path = self.folder / "ports.json"
        if not path.exists():
            path.write_text(json.dumps(_free_ports(2 + len(NODES))))
        slurmctld, slurmdbd, *slurmd = json.loads(path.read_text())
        host = socket.gethostname().split(".")[0]
        return Layout(self.folder, self.name, host, enforcement(), slurmctld, slurmdbd, tuple(slurmd))

    def start_slurmctld(self) -> None:
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(self.layout.slurm_conf)])
        wait_until(lambda: self.succeeds("scontrol", "ping"), f"slurmctld answers; see {self.folder}/log")

    def start_slurmdbd(self) -> None:
        self._start("slurmdbd", ["slurmdbd", "-D"])
        wait_until(
            lambda: self.succeeds("sacctmgr", "--noheader", "list", "cluster"),
            f"slurmdbd answers; see {self.folder}/log",
        )

    def start_slurmd(self, node: Node) -> None:
        name = node.name(self.name)
        self._start(_slurmd(node), ["slurmd", "-D", "-N", name, "-f", str(self.layout.slurm_conf)])

    def stop(self, daemon: str) -> None:
        """slurmctld or slurmdbd."""
        self.daemons.stop(daemon)

    def crash(self, node: Node) -> None:
        """As if the power had failed: the node's daemon and everything on it is gone at once, and nothing says goodbye."""
        daemon = self.daemons.process(_slurmd(node))
        victims = [*([daemon, *daemon.children(recursive=True)] if daemon else []), *self._in_cgroups([node])]
        kill(victims)

    def _start(self, name: str, command: Sequence[str]) -> None:
        environ = {**os.environ, **self.environ, "MYSQL_UNIX_PORT": str(self.layout.mysql_socket)}
        self.daemons.start(name, command, environ)

    def _write(self) -> None:
        for name in ("", "log", "pids", "state", "spool", "gpus"):
            (self.folder / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        layout = self.layout
        if len(str(layout.munge_socket)) > _SOCKET_PATH_LENGTH:
            raise RuntimeError(f"{self.folder} is too long a path for a socket; choose a shorter one")
        for name, text in layout.files().items():
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o600 if name == "slurmdbd.conf" else 0o644)
        for node in NODES:
            for index in range(GPUS_PER_NODE):
                _make_card(layout.gpu(node, index))

    def _start_munge(self) -> None:
        """Its key and socket are this cluster's own."""
        key = self.folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o400)
            key.write_bytes(os.urandom(1024))
        files = {"key": key, "socket": self.layout.munge_socket, "pid": self.folder / "munged.pid"}
        files |= {"log": self.folder / "log" / "munged.log", "seed": self.folder / "munge.seed"}
        named = [f"--{'socket' if name == 'socket' else name + '-file'}={path}" for name, path in files.items()]
        # --force: it would refuse a folder below one that others may write to
        self._start("munged", ["munged", "--foreground", "--force", *named])
        probe = ["munge", "--no-input", f"--socket={self.layout.munge_socket}"]
        wait_until(lambda: self.succeeds(*probe), f"munged answers; see {self.folder}/log")

    def _start_mariadb(self) -> None:
        data, server = self.folder / "mysql", self.layout.mysql_socket
        if not (data / "mysql").exists():
            self.run(
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                "--skip-test-db",
                "--auth-root-authentication-method=socket",
            )
        command = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={server}"]
        command += ["--skip-networking", f"--pid-file={self.folder}/mariadbd.pid", "--performance-schema=OFF"]
        command += ["--innodb-buffer-pool-size=128M", "--innodb-lock-wait-timeout=900"]
        command += ["--innodb-flush-log-at-trx-commit=2"]  # nobody needs this database after a power cut
        self._start("mariadbd", command)
        ask = ["mariadb", "--no-defaults", "--user=root", f"--socket={server}", "--execute"]
        wait_until(lambda: self.succeeds(*ask, "select 1"), f"MariaDB answers; see {self.folder}/log")
        self.run(*ask, "create database if not exists slurm")

    # ---- what jobs leave -------------------------------------------------------------------------------------------

    def _in_cgroups(self, nodes: Sequence[Node] = NODES) -> list[psutil.Process]:
        """Steps and their processes: they are no children of the node's daemon."""
        marks = [f"slurm_{node.name(self.name)}/" for node in nodes]
        marks += [f"{node.name(self.name)}_slurmstepd" for node in nodes]
        found = []
        for process in psutil.process_iter():
            with suppress(OSError):
                groups = Path(f"/proc/{process.pid}/cgroup").read_text()
                if any(mark in groups for mark in marks):
                    found.append(process)
        return found

    def _remove_cgroups(self) -> None:
        for node in NODES:
            for root in Path("/sys/fs/cgroup").glob(f"*/slurm_{node.name(self.name)}"):
                for folder, _, _ in os.walk(root, topdown=False):
                    with suppress(OSError):
                        os.rmdir(folder)


def _slurmd(node: Node) -> str:
    return f"slurmd-{node.pool}-{node.number}"


def enforcement() -> Enforcement:
    """By trying: only making a group tells whether it may be made."""
    if all(_may_make(parent) for parent in _V1):
        return Enforcement.CGROUP_V1
    if _V2.exists() and "memory" in _V2.read_text().split() and _may_make(_V2.parent):
        return Enforcement.CGROUP_V2
    return Enforcement.POLLING


def _may_make(parent: Path) -> bool:
    probe = parent / f"probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _make_card(path: Path) -> None:
    """A card that Slurm counts: only of a device does it tell jobs the index."""
    if path.exists():
        return
    try:
        os.mknod(path, 0o20666, os.makedev(1, 3))
    except PermissionError:
        path.touch()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def timed_up(cluster: Cluster) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    cluster.up()
    return time.monotonic() - began
