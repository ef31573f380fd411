"""Pictures of what people look at: the HTML report, and MLflow's comparison of the same sweep, by headless Chromium.

`python -m tests.screenshots docs/img` takes those of the documentation again; look at them before they are committed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from orchestrator.cli.ui import link
from orchestrator.model import AttemptState, PointState, Verdict
from orchestrator.paths import RootPaths
from orchestrator.sinks.base import AttemptRecord, PointRecord, SweepEnd, SweepRecord, metric_rows
from orchestrator.sinks.mlflow import SweepRuns, open_mlflow
from orchestrator.sinks.mlflow_server import base_url, server_command
from reports import metrics
from reports.files import write_files
from reports.gallery.__main__ import snapshots
from reports.snapshot import AttemptSnapshot, PointSnapshot, SweepSnapshot
from tests.browser import CHROMIUM, MISSING, Page, browsing

SWEEP = "factor"
_WIDTH = 1400
_CHARTS_ARE_DRAWN = "document.querySelector('canvas.foreground') && document.querySelector('svg.main-svg')"
"""Parallel coordinates, and the points beside them."""
_SUMMARY = {
    "summary/step_s": metrics.STEP,
    "summary/update_actor_s": metrics.UPDATE_ACTOR,
    "summary/hessian_solve_s": metrics.HESSIAN_SOLVE,
}


def shoot_report(page: Page, folder: Path) -> dict[str, Path]:
    """Of the page of a real sweep: its top, its plots, and its top in the dark."""
    url = write_files(snapshots()[SWEEP], folder / "report" / "report.md", html=True).with_suffix(".html").as_uri()
    page.open(url, _WIDTH, 1700)
    top = page.shoot(folder / "report.png")
    page.open(f"{url}#plots", _WIDTH, 1900)
    page.wait("scrollY > 0 && [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    plots = page.shoot(folder / "report-plots.png")
    page.open(url, _WIDTH, 900, dark=True)
    return {"top": top, "plots": plots, "dark": page.shoot(folder / "report-dark.png")}


def shoot_mlflow(page: Page, folder: Path) -> Path:
    """Of the page behind the link that `ui` prints, for the same sweep."""
    paths = RootPaths(folder / "root")
    runs = record(snapshots()[SWEEP], paths)
    with serve(paths, folder / "server.log") as base:
        page.open(link(base, runs).replace("127.0.0.1", "mlflow.localhost"), 1800, 1000)
        page.wait(_CHARTS_ARE_DRAWN)
        return page.shoot(folder / "mlflow-compare.png")


def record(sweep: SweepSnapshot, paths: RootPaths) -> SweepRuns:
    """The sweep in an MLflow database beneath `paths`, as its own run had written it."""
    sink = open_mlflow(paths, {})
    started = int((sweep.created_at or 0) * 1000)
    sink.write_sweep(SweepRecord(sweep.name, started, sweep.description, sweep.axes))
    for point in sweep.points:
        sink.write_point(_point(sweep.name, point))
    sink.finish_sweep(SweepEnd(sweep.name, PointState(sweep.state), int((sweep.finished_at or 0) * 1000)))
    found = sink.locate(sweep.name)
    assert found is not None
    return found


def _point(sweep: str, point: PointSnapshot) -> PointRecord:
    last = point.attempts[-1]
    started = int((last.started_at or 0) * 1000)
    summary = {
        name: median(values) for name, names in _SUMMARY.items() if (values := metrics.series(point, names).values())
    }
    if point.npz and point.npz[0].std is not None:
        summary["summary/score_std"] = point.npz[0].std
    return PointRecord(
        sweep=sweep,
        id=point.id,
        name=point.name,
        state=PointState(point.state),
        parameters=point.parameters,
        verdict=Verdict(point.verdict) if point.verdict else None,
        attempts=tuple(map(_attempt, point.attempts)),
        started_at_ms=started,
        ended_at_ms=int((last.ended_at or 0) * 1000),
        metrics=metric_rows(point.metrics, started),
        summary=summary,
    )


def _attempt(attempt: AttemptSnapshot) -> AttemptRecord:
    return AttemptRecord(
        attempt.n, AttemptState(attempt.state), attempt.pool, verdict=Verdict(attempt.verdict or "unknown")
    )


@contextmanager
def serve(paths: RootPaths, log: Path) -> Iterator[str]:
    """MLflow's server on a free port of loopback, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = server_command(sys.executable, f"sqlite:///{paths.mlflow_database}", paths.mlflow_artifacts, port)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command.argv, env={**os.environ, **command.env}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while not _answers(f"{base_url(port)}/health"):
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            yield base_url(port)
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def main(folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, browsing() as page:
        for path in [*shoot_report(page, Path(scratch)).values(), shoot_mlflow(page, Path(scratch))]:
            with Image.open(path) as image:
                image.convert("RGB").quantize(192).save(folder / path.name, optimize=True)
            print(folder / path.name)


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit(MISSING)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/img"))
