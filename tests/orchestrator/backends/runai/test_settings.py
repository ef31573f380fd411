"""What the sweep file leaves out comes from the environment, and paths of this machine become paths of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.backends.runai.settings import credentials, resolve
from orchestrator.errors import EnvironmentProblem
from orchestrator.runai_spec import RunaiSpec

URL = {"RUNAI_BASE_URL": "https://company.run.ai/"}


def spec(**keys: object) -> RunaiSpec:
    return RunaiSpec.model_validate(keys)


def test_every_value_has_a_variable_and_the_file_wins() -> None:
    environ = {
        **URL,
        "RUNAI_PROJECT": "research",
        "RUNAI_CLUSTER": "a",
        "RUNAI_IMAGE": "registry/x:1",
        "RUNAI_PYTHON": "/opt/python",
        "RUNAI_MOUNTS": "[{pvc: shared, path: /shared, local: /mnt}]",
    }
    found = resolve(spec(), environ)
    assert (found.base_url, found.project, found.cluster) == ("https://company.run.ai", "research", "a")
    assert (found.image, found.python, found.mounts[0].pvc) == ("registry/x:1", "/opt/python", "shared")
    assert resolve(spec(project="mine", image="other"), environ).project == "mine"


@pytest.mark.parametrize(
    "url", [None, "", "company.run.ai", "https://", "https://a b", "https://me:hunter2@company.run.ai", "ftp://a"]
)
def test_no_address_is_said_with_what_to_do(url: str | None) -> None:
    with pytest.raises(EnvironmentProblem, match=r"RUNAI_BASE_URL .* https://company.run.ai") as caught:
        resolve(spec(), {} if url is None else {"RUNAI_BASE_URL": url})
    assert "hunter2" not in str(caught.value)


def test_mounts_that_are_none_are_said_without_a_traceback() -> None:
    for text in ("{", "[1]", "[{path: /x}]"):
        with pytest.raises(EnvironmentProblem, match="RUNAI_MOUNTS"):
            resolve(spec(), {**URL, "RUNAI_MOUNTS": text})


def test_credentials_are_references_and_missing_ones_are_named() -> None:
    environ = {"RUNAI_CLIENT_ID": "me", "RUNAI_CLIENT_SECRET": "hidden"}
    assert credentials(spec(), environ).client_secret == "hidden"
    with pytest.raises(EnvironmentProblem, match="the variable RUNAI_CLIENT_SECRET is not set"):
        credentials(spec(), {"RUNAI_CLIENT_ID": "me"})


def test_a_secret_in_a_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    given = spec(client_secret={"file": str(file)})
    file.write_text("first\n")
    assert credentials(given, {"RUNAI_CLIENT_ID": "me"}).client_secret == "first"
    file.write_text("second\n")
    assert credentials(given, {"RUNAI_CLIENT_ID": "me"}).client_secret == "second"


def test_a_path_is_mapped_by_the_mount_closest_to_it() -> None:
    mounts = [
        {"pvc": "shared", "path": "/shared", "local": "/mnt/nas"},
        {"pvc": "fast", "path": "/fast", "local": "/mnt/nas/fast"},
        {"nfs": "server:/export", "path": "/data"},
    ]
    found = resolve(spec(mounts=mounts), URL)
    assert found.inside(Path("/mnt/nas/runs/1")) == Path("/shared/runs/1")
    assert found.inside(Path("/mnt/nas/fast/1")) == Path("/fast/1")
    assert found.inside(Path("/data/1")) == Path("/data/1"), "the same path on both sides"
    assert resolve(spec(), URL).inside(Path("/any")) == Path("/any"), "without mounts the site sees to it"


def test_a_path_that_no_container_sees_or_may_write_is_refused() -> None:
    found = resolve(spec(mounts=[{"pvc": "shared", "path": "/shared", "local": "/mnt/nas", "read_only": True}]), URL)
    with pytest.raises(EnvironmentProblem, match=r"/home/me/runs is beneath no mount .*there are /mnt/nas"):
        found.inside(Path("/home/me/runs"))
    with pytest.raises(EnvironmentProblem, match="read_only"):
        found.inside(Path("/mnt/nas/runs"))


def test_links_of_this_machine_are_followed_since_they_mean_nothing_in_a_container(tmp_path: Path) -> None:
    nas, home = tmp_path / "nas", tmp_path / "home"
    (nas / "runs").mkdir(parents=True)
    home.mkdir()
    (home / "runs").symlink_to(nas / "runs")
    (nas / "away").symlink_to(home)
    (tmp_path / "mnt").symlink_to(nas)
    for local in (nas, tmp_path / "mnt"):
        found = resolve(spec(mounts=[{"pvc": "shared", "path": "/shared", "local": str(local)}]), URL)
        assert found.inside(home / "runs" / "1") == Path("/shared/runs/1")
        assert found.inside(tmp_path / "mnt" / "runs" / ".." / "runs") == Path("/shared/runs")
        with pytest.raises(EnvironmentProblem, match=f"which is {home}/x, is beneath no mount"):
            found.inside(nas / "away" / "x")
        with pytest.raises(EnvironmentProblem, match="beneath no mount"):
            found.inside(nas / ".." / "home")


def test_a_path_that_another_mount_hides_in_the_container_is_refused() -> None:
    mounts = [
        {"pvc": "shared", "path": "/shared", "local": "/mnt/nas"},
        {"pvc": "data", "path": "/shared/data", "local": "/mnt/data"},
    ]
    found = resolve(spec(mounts=mounts), URL)
    assert found.inside(Path("/mnt/data/1")) == Path("/shared/data/1")
    with pytest.raises(EnvironmentProblem, match=r"mounts something else at /shared/data"):
        found.inside(Path("/mnt/nas/data/1"))
