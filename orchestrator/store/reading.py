"""Opens the store to look at it while another process writes: nothing is created, and no writer ever waits.

On a local disk SQLite's write-ahead log lets readers and the writer go their ways. On a network file system, where the writer
may be on another machine, SQLite's shared memory is not shared: there a copy of the two files is read, taken whole.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from orchestrator.clock import Clock
from orchestrator.errors import StoreError
from orchestrator.store.db import BUSY_TIMEOUT_S, Store, check_schema, engine_name, say_plainly

NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "fuse.",
    "9p",
    "virtiofs",
    "afs",
    "pvfs",
)
"""How the types of file systems begin that several machines may share."""
_TRIES = 5


def open_reader(path: Path, clock: Clock, url: str | None = None, mounts: Path = Path("/proc/self/mountinfo")) -> Store:
    """A store whose reading methods work, and whose writing methods fail.

    Args:
        path: the SQLite file.
        url: another SQLAlchemy URL (`ORCHESTRATOR_DB`); then `path` is not used.
        mounts: the kernel's list of mounted file systems.

    Raises:
        StoreError: there is no database, or another version of this program made it.
    """
    try:
        engine = sa.create_engine(url) if url else _sqlite(path, is_shared(path, mounts))
        with engine.connect() as db:
            check_schema(db)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        where = engine_name(url) if url else str(path)
        raise StoreError(f"cannot read the database {where}: {getattr(error, 'orig', None) or error}") from error
    say_plainly(engine)
    return Store(engine, clock)


def _sqlite(path: Path, shared: bool) -> sa.Engine:
    connect = _Copies(path).connect if shared else _read_only(path)
    place = sa.URL.create("sqlite", database=str(path))
    # no connection outlives a look: what is open keeps the writer's log from being taken up
    engine = sa.create_engine(place, creator=connect, poolclass=sa.NullPool)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transaction for what only reads

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _read_only(path: Path) -> Callable[[], sqlite3.Connection]:
    return lambda: sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)


class _Copies:
    """The database with its log as they stood together at one moment, copied again when they changed."""

    def __init__(self, path: Path) -> None:
        self._files = (Path(f"{path}-wal"), path)
        self._folder = tempfile.mkdtemp(prefix="orchestrator-read-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._taken: object = None
        self._whole: Path | None = None

    def connect(self) -> sqlite3.Connection:
        for _ in range(_TRIES):
            before = self._stamp()
            if before == self._taken:
                break
            copy = self._copy()
            if self._stamp() == before:
                self._taken, self._whole, old = before, copy, self._whole
                if old is not None:
                    shutil.rmtree(old, ignore_errors=True)
                break
            shutil.rmtree(copy, ignore_errors=True)
        if self._whole is None:
            raise sqlite3.OperationalError("it changes faster than it can be copied")
        return sqlite3.connect(self._whole / self._files[1].name)  # an older copy, if there was no newer one

    def _copy(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        for file in self._files:
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        return folder

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple((s.st_mtime_ns, s.st_size) if (s := _stat(file)) else None for file in self._files)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def is_shared(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether other machines may write to a path as well; False where the kernel does not say."""
    try:
        return on_network(path.resolve(), mounts.read_text())
    except OSError:
        return False


def on_network(path: Path, mountinfo: str) -> bool:
    """Whether a path lies on a file system that other machines may write to, by `/proc/self/mountinfo`."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        mount = fields.split()[4].replace("\\040", " ") if len(fields.split()) > 4 else ""
        if mount and len(mount) >= len(best) and path.is_relative_to(mount):
            best, kind = mount, rest.split(" ", 1)[0]
    return kind.startswith(NETWORK)
