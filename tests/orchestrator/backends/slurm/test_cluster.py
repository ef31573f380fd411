"""What the cluster says of itself, as Slurm 22.05 wrote it."""

from __future__ import annotations

from orchestrator.backends.slurm.cluster import Config, Partition, parse_partitions

CONFIG = """Configuration data as of 2026-11-21T09:28:00
AccountingStorageType   = accounting_storage/slurmdbd
MaxArraySize            = 20001
MaxJobCount             = 50000
MessageTimeout          = 30 sec
MinJobAge               = 60 sec
SLURM_VERSION           = 22.05.8
"""


def test_limits_and_times_are_read():
    assert Config.parse(CONFIG) == Config("22.05.8", 20001, 50000, 60.0, 30.0, has_accounting=True)


def test_a_cluster_without_accounting_is_known():
    assert not Config.parse("AccountingStorageType   = accounting_storage/none\n").has_accounting


def test_what_is_not_said_is_slurms_default():
    assert Config.parse("") == Config()


def test_partitions_come_with_the_default_first_and_their_kinds_of_nodes_together():
    text = "h200|up|gpu:h200:8(S:0-1)|2|infinite|2000000\nmix*|up|gpu:8|3|1-00:00:00|500000+\n"
    text += "mix*|up|(null)|1|1-00:00:00|1000\n"
    assert parse_partitions(text) == [
        Partition("mix", True, True, 8, 4, "1-00:00:00", 1000),
        Partition("h200", False, True, 8, 2, "infinite", 2000000),
    ]
