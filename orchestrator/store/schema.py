"""Tables of the store, and the version that this code reads.

Times are seconds since the epoch. JSON columns hold plain data of `orchestrator.model`. States are written by the
guarded updates in `orchestrator.store.db` alone. `points.config` and `attempts.evidence` are large: read one at a time.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = "2"

metadata = MetaData()

meta = Table("meta", metadata, Column("key", String(40), primary_key=True), Column("value", Text, nullable=False))

sweeps = Table(
    "sweeps",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("description", Text, nullable=False),
    Column("spec_path", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("backend", String(20), nullable=False),
    Column("profile", String(60)),
    Column("command", Text, nullable=False),
    Column("git", JSON),
    Column("environment", JSON, nullable=False),
    Column("stop_reason", Text),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
)

points = Table(
    "points",
    metadata,
    Column("sweep", String(60), nullable=False),
    Column("id", String(20), nullable=False),
    Column("index", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("replicate", JSON, nullable=False),
    Column("overrides", JSON, nullable=False),
    Column("config", JSON, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", Text),
    Column("unlogged", Boolean, nullable=False, default=True),  # the sinks have not seen the newest state
    Column("not_before", Float),
    Column("predicted", Text),  # JSON; kept as text, so that a sweep that is read every second is parsed once
    PrimaryKeyConstraint("sweep", "id"),
    ForeignKeyConstraint(["sweep"], ["sweeps.name"]),
)

attempts = Table(
    "attempts",
    metadata,
    Column("sweep", String(60), nullable=False),
    Column("point", String(20), nullable=False),
    Column("n", Integer, nullable=False),
    Column("token", String(40), nullable=False),
    Column("job_name", String(50), nullable=False),
    Column("pool", String(60)),
    Column("host_memory_bytes", BigInteger),
    Column("patch", JSON),
    Column("exclude_nodes", JSON),
    Column("not_before", Float),
    Column("deferrals", Integer, nullable=False, default=0),
    Column("state", String(20), nullable=False),
    Column("handle", Text),
    Column("superseded", Boolean, nullable=False, default=False),  # before a rerun: kept, no longer counted
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("gone", Boolean, nullable=False, default=False),
    Column("scheduler_reason", Text),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("evidence", Text),  # JSON with NaN, which a JSON column of PostgreSQL refuses
    Column("verdict", String(20)),
    Column("reason", Text),
    Column("facts", JSON),  # the lines of evidence behind the verdict
    Column("fingerprint", String(64)),
    Column("anomalies", JSON),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("measured", JSON),
    PrimaryKeyConstraint("sweep", "point", "n"),
    ForeignKeyConstraint(["sweep", "point"], ["points.sweep", "points.id"]),
)

trials = Table(
    "trials",
    metadata,
    Column("sweep", String(60), nullable=False),
    Column("number", Integer, nullable=False),
    Column("point", String(20)),  # several trials may have one; none where the sweep file excludes the parameters
    Column("params", JSON, nullable=False),
    Column("state", String(20), nullable=False),
    Column("values", JSON),
    Column("constraints", JSON, nullable=False),
    Column("reason", Text),
    Column("pruned_at", Integer),
    Column("saved_s", Float),
    Column("asked_at", Float, nullable=False),
    Column("told_at", Float),
    PrimaryKeyConstraint("sweep", "number"),
    ForeignKeyConstraint(["sweep", "point"], ["points.sweep", "points.id"]),
)

ended_searches = Table(
    "ended_searches",
    metadata,
    Column("sweep", String(60), primary_key=True),  # asks for no more trials until the sweep is started again
    ForeignKeyConstraint(["sweep"], ["sweeps.name"]),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("sweep", String(60), nullable=False, index=True),
    Column("point", String(20)),
    Column("attempt", Integer),
    Column("from_state", String(20)),
    Column("to_state", String(20)),
    Column("detail", Text),
)
