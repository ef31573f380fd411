"""Opening MLflow: the database under the root, or whatever `MLFLOW_TRACKING_URI` names.

Importing mlflow takes more than a second, and the first touch of a new database another two: nothing here is imported
before a sink is opened. Footguns: an experiment remembers its artifact location for ever, so it is given when the
experiment is created; and a database of an older MLflow is never migrated silently.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.paths import RootPaths
from orchestrator.sinks.base import SinkError

ENV_TRACKING_URI = "MLFLOW_TRACKING_URI"
QUIET_ENV = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for every point that ends, into our panel
    # a server that is down must cost the loop seconds, not MLflow's default of minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


@dataclass(frozen=True)
class Location:
    """Where the figures go."""

    uri: str
    artifact_root: str | None
    """File URI below which each sweep gets a folder; None where the server decides."""

    @classmethod
    def resolve(cls, paths: RootPaths, environ: Mapping[str, str]) -> Location:
        """`MLFLOW_TRACKING_URI`, else the database under the root."""
        uri = environ.get(ENV_TRACKING_URI)
        if uri:
            return cls(uri, None)
        return cls(f"sqlite:///{paths.mlflow_database}", paths.mlflow_artifacts.as_uri())


def open_client(location: Location, environ: MutableMapping[str, str] = os.environ) -> Any:
    """A connected `MlflowClient`.

    Args:
        environ: mlflow reads its settings from the process environment; defaults of ours are added where unset.

    Raises:
        SinkError: mlflow is missing, the server does not answer, or the database is of another MLflow.
    """
    for key, value in QUIET_ENV.items():
        environ.setdefault(key, value)
    try:
        with _quiet():
            from mlflow import MlflowClient

            _prepare(location.uri)
            client = MlflowClient(tracking_uri=location.uri)
            client.search_experiments(max_results=1)
    except ImportError as error:
        raise SinkError(f"mlflow cannot be imported ({error}); install it: pip install mlflow") from error
    except Exception as error:
        raise SinkError(_explained(location.uri, error)) from error
    return client


def _prepare(uri: str) -> None:
    """Create the SQLite file whole or not at all, in WAL mode, where readers (the UI) and the writer do not wait.

    MLflow fills a new database by dozens of migrations. A process that is killed among them, or a second one that begins
    beside it, would leave a file that MLflow can never open again. So they run on another file, whose copy is put in place.
    """
    path = uri.removeprefix("sqlite:///")
    if path == uri or not path or os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or ".", prefix=".mlflow-new-") as folder:
        scratch, whole = os.path.join(folder, "scratch.db"), os.path.join(folder, "mlflow.db")
        _migrate(f"sqlite:///{scratch}")
        shutil.copyfile(scratch, whole)  # a file of its own: MLflow keeps the scratch file open
        with closing(sqlite3.connect(whole)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with suppress(FileExistsError):  # somebody else was faster
            os.link(whole, path)


def _migrate(uri: str) -> None:
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def _explained(uri: str, error: Exception) -> str:
    words = str(error).split("\n", 1)[0]
    if "out-of-date database schema" in words:
        return f"the MLflow database {uri} is of an older MLflow; copy it, then run: mlflow db upgrade {uri}"
    return f"MLflow at {uri} cannot be opened: {words} (unset {ENV_TRACKING_URI} to use the database under the root)"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's chatter about creating tables, and without a deprecation inside its own models."""
    chatty = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in chatty]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*``noload`` loader strategy is deprecated")
        for logger in chatty:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(chatty, levels, strict=True):
                logger.setLevel(level)
