"""The cluster of the session, and the sweeps that run on it side by side.

A test module says in `SCENARIO` which sweep it is about. All of the session's are started with the first test that wants
one, so that what they wait for they wait for together.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import psutil
import pytest

from tests.slurm import packages
from tests.slurm.cluster import Cluster
from tests.slurm.scenarios import Played, Scenario

PREFIX = "orchestrator-slurm-test-"
"""Of folders in the temporary folder, which end with the pid of the session that made them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if why := packages.obstacle():
        pytest.skip(why)
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        _end_if_orphaned(folder)
    pid = psutil.Process().pid
    cluster = Cluster(Path(tempfile.gettempdir()) / f"{PREFIX}{pid}", f"test{pid}")
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def _end_if_orphaned(folder: Path) -> None:
    """What a session left that was killed."""
    pid = folder.name.removeprefix(PREFIX)
    if pid.isdigit() and not psutil.pid_exists(int(pid)):
        Cluster(folder, f"test{pid}").down()


@pytest.fixture(scope="session")
def shared_folder() -> Iterator[Path]:
    """On real clusters a network file system."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-slurm-runs-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def plays(
    request: pytest.FixtureRequest, cluster: Cluster, shared_folder: Path
) -> Iterator[Callable[[Scenario], Played]]:
    """The scenarios of all collected modules, running; plays(scenario) waits for one."""
    modules = {getattr(item, "module", None) for item in request.session.items}
    scenarios = {module.SCENARIO.name: module.SCENARIO for module in modules if hasattr(module, "SCENARIO")}
    with ThreadPoolExecutor(len(scenarios) + 1) as threads:
        running: dict[str, Future[Played]] = {}

        def start(*accounting: bool | None) -> None:
            for scenario in scenarios.values():
                if scenario.accounting in accounting:
                    running[scenario.name] = threads.submit(scenario.play, cluster, shared_folder)

        if any(scenario.accounting is False for scenario in scenarios.values()):
            cluster.stop("slurmdbd")
            start(False)
            unaccounted = list(running.values())
            start(None)
            wait(unaccounted)
            cluster.start_slurmdbd()
            start(True)
        else:
            start(True, None)
        yield lambda scenario: running[scenario.name].result()


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, plays: Callable[[Scenario], Played]) -> Played:
    """The module's own sweep, at its end."""
    return plays(request.module.SCENARIO)
