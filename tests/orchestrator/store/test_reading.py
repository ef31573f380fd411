"""Looking at a store while another process writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.clock import FakeClock
from orchestrator.errors import StoreError
from orchestrator.ledger import SweepRow
from orchestrator.store import Store, open_reader
from orchestrator.store.reading import on_network

LOCAL = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
SHARED = LOCAL + "40 22 0:44 / {} rw shared:2 - nfs4 server:/export rw\n"


def sweep(name: str) -> SweepRow:
    return SweepRow(name, "", "s.yaml", {}, "fake", None, "", None, {}, created_at=1.0)


@pytest.fixture(params=["local", "shared"])
def mounts(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A list of mounts by which the test's folder is on a disk of this machine, or on a file server."""
    path = tmp_path / "mountinfo"
    path.write_text(LOCAL if request.param == "local" else SHARED.format(tmp_path))
    return path


def test_a_reader_sees_what_was_written_since_and_can_write_nothing(tmp_path: Path, mounts: Path) -> None:
    writer = Store.open(tmp_path / "o?.db", FakeClock())
    reader = open_reader(tmp_path / "o?.db", FakeClock(), mounts=mounts)
    assert reader.sweep_names() == []
    for name in ("a", "b"):
        writer.put_sweep(sweep(name), [])
        assert name in reader.sweep_names()


def test_a_reader_on_this_machine_cannot_write(tmp_path: Path) -> None:
    Store.open(tmp_path / "o.db", FakeClock()).close()
    with pytest.raises(StoreError, match="readonly"):
        open_reader(tmp_path / "o.db", FakeClock()).put_sweep(sweep("a"), [])


def test_neither_reader_nor_writer_waits_for_the_other(tmp_path: Path, mounts: Path) -> None:
    """The writer is in the middle of a transaction, and then writes while a reader is in the middle of one."""
    path = tmp_path / "o.db"
    Store.open(path, FakeClock()).put_sweep(sweep("a"), [])
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        busy.execute("UPDATE sweeps SET description = 'half written'")
        reader = open_reader(path, FakeClock(), mounts=mounts)
        assert reader.sweep("a").description == ""
        with reader._engine.connect() as held:
            held.exec_driver_sql("SELECT * FROM sweeps").fetchone()
            busy.execute("COMMIT")
        assert reader.sweep("a").description == "half written"


def test_a_shared_folder_is_not_written_to(tmp_path: Path) -> None:
    folder, mounts = tmp_path / "shared", tmp_path / "mountinfo"
    mounts.write_text(SHARED.format(folder))
    writer = Store.open(folder / "o.db", FakeClock())
    writer.put_sweep(sweep("a"), [])
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    reader = open_reader(folder / "o.db", FakeClock(), mounts=mounts)
    assert reader.sweep_names() == ["a"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_database_of_another_version_is_said(tmp_path: Path) -> None:
    Store.open(tmp_path / "o.db", FakeClock()).close()
    with closing(sqlite3.connect(tmp_path / "o.db")) as db:
        db.execute("UPDATE meta SET value = '0'")
        db.commit()
    with pytest.raises(StoreError, match="schema version 0"):
        open_reader(tmp_path / "o.db", FakeClock())


def test_a_database_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read the database .*o\.db"):
        open_reader(tmp_path / "o.db", FakeClock())
    assert not (tmp_path / "o.db").exists()


@pytest.mark.parametrize(
    ("path", "shared"),
    [("/home/me/runs", False), ("/data/runs", True), ("/data", True), ("/database", False), ("/my files/runs", True)],
)
def test_the_kind_of_the_nearest_mount_decides(path: str, shared: bool) -> None:
    mounts = LOCAL + "40 22 0:44 / /data rw - nfs4 server:/export rw\n41 22 0:45 / /my\\040files rw - fuse.sshfs x rw\n"
    assert on_network(Path(path), mounts) is shared
