"""What the cluster consists of, as the text of its configuration files. Pure.

Every path is inside one folder and every address is 127.0.0.1, so two clusters on one machine never meet: they differ in
folder, ports and, because Slurm names control groups after them, in the names of their nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

GPUS_PER_NODE = 8
CORES_PER_NODE = 64
TIMEOUT_S = 10
"""How long a client waits for a daemon that does not answer."""


class Enforcement(StrEnum):
    """What holds a job to the memory that it asked for."""

    CGROUP_V1 = "cgroup/v1"
    CGROUP_V2 = "cgroup/v2"
    POLLING = "polling"
    """Slurm looks every two seconds and kills; it calls the end FAILED, not OUT_OF_MEMORY."""


@dataclass(frozen=True)
class Node:
    pool: str
    number: int
    weight: int = 10
    """Slurm takes the lightest node first."""

    def name(self, cluster: str) -> str:
        return f"{cluster}-{self.pool}-{self.number}"


H100_1, H100_2, H200_1, H200_2 = Node("h100", 1), Node("h100", 2), Node("h200", 1), Node("h200", 2)
PREEMPTIBLE = Node("h100", 3)
"""Its jobs in partition spot give way to those in partition urgent."""
FRAGILE = Node("h100", 4, weight=1)
"""Partition fragile prefers it, and may fall back on another."""
NODES = (H100_1, H100_2, H200_1, H200_2, PREEMPTIBLE, FRAGILE)

PARTITIONS: dict[str, tuple[tuple[Node, ...], str]] = {
    "h100": ((H100_1, H100_2), "Default=YES PriorityTier=10"),
    "h200": ((H200_1, H200_2), "PriorityTier=10"),
    "spot": ((PREEMPTIBLE,), "PriorityTier=1 PreemptMode=REQUEUE GraceTime=3"),
    "urgent": ((PREEMPTIBLE,), "PriorityTier=10"),
    "fragile": ((FRAGILE, H100_2), "PriorityTier=10"),
}


@dataclass(frozen=True)
class Layout:
    """Where one cluster lives and listens."""

    folder: Path
    name: str
    host: str
    enforcement: Enforcement
    slurmctld_port: int
    slurmdbd_port: int
    slurmd_ports: tuple[int, ...]
    """One for each of `NODES`."""

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge.sock"

    @property
    def mysql_socket(self) -> Path:
        return self.folder / "mysql.sock"

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "slurm.conf"

    def files(self) -> dict[str, str]:
        """Name in the folder -> text."""
        return {
            "slurm.conf": self._slurm_conf(),
            "slurmdbd.conf": self._slurmdbd_conf(),
            "gres.conf": self._gres_conf(),
            "cgroup.conf": self._cgroup_conf(),
        }

    def _slurm_conf(self) -> str:
        cgroups = self.enforcement is not Enforcement.POLLING
        return f"""\
ClusterName={self.name}
SlurmctldHost={self.host}(127.0.0.1)
SlurmctldPort={self.slurmctld_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={self.munge_socket}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool/%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd-%n.pid
SlurmctldLogFile={self.folder}/log/slurmctld.log
SlurmdLogFile={self.folder}/log/slurmd-%n.log
MpiDefault=none
ProctrackType={"proctrack/cgroup" if cgroups else "proctrack/linuxproc"}
TaskPlugin={"task/cgroup" if cgroups else "task/none"}
JobAcctGatherType={"jobacct_gather/cgroup" if cgroups else "jobacct_gather/linux"}
JobAcctGatherFrequency=task=2
{"" if cgroups else "JobAcctGatherParams=OverMemoryKill"}
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,default_queue_depth=1000,batch_sched_delay=0,sched_min_interval=50000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
MaxArraySize=1001
MinJobAge=300
KillWait=3
MessageTimeout={TIMEOUT_S}
SlurmctldTimeout=60
SlurmdTimeout=15
ReturnToService=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.slurmdbd_port}
AccountingStoragePass={self.munge_socket}
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
SlurmdParameters=config_overrides
{self._nodes()}
{self._partitions()}
"""

    def _nodes(self) -> str:
        """More cores and memory than this machine has: `config_overrides` makes Slurm believe it."""
        return "\n".join(
            f"NodeName={node.name(self.name)} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={port} CPUs={CORES_PER_NODE} "
            f"RealMemory=2000000 Gres=gpu:{node.pool}:{GPUS_PER_NODE} Feature={node.pool} Weight={node.weight}"
            for node, port in zip(NODES, self.slurmd_ports, strict=True)
        )

    def _partitions(self) -> str:
        return "\n".join(
            f"PartitionName={name} Nodes={','.join(node.name(self.name) for node in nodes)} {options} "
            "MaxTime=1-0 DefaultTime=10 State=UP"
            for name, (nodes, options) in PARTITIONS.items()
        )

    def _slurmdbd_conf(self) -> str:
        return f"""\
AuthType=auth/munge
AuthInfo=socket={self.munge_socket}
DbdHost={self.host}
DbdAddr=127.0.0.1
DbdPort={self.slurmdbd_port}
SlurmUser=root
LogFile={self.folder}/log/slurmdbd.log
PidFile={self.folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""

    def _gres_conf(self) -> str:
        """Slurm hands out cards only where their device files exist; `cluster` makes files that lead to /dev/null."""
        return "".join(
            f"NodeName={node.name(self.name)} Name=gpu Type={node.pool} "
            f"File={self.gpu(node, f'[0-{GPUS_PER_NODE - 1}]')}\n"
            for node in NODES
        )

    def gpu(self, node: Node, index: int | str) -> Path:
        return self.folder / "gpus" / f"{node.pool}-{node.number}-{index}"

    def _cgroup_conf(self) -> str:
        version_2 = self.enforcement is Enforcement.CGROUP_V2
        return f"""\
CgroupPlugin={Enforcement.CGROUP_V2 if version_2 else Enforcement.CGROUP_V1}
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainCores=no
ConstrainDevices=no
ConstrainSwapSpace=no
MinRAMSpace=20
{"IgnoreSystemd=yes" if version_2 else ""}
"""
