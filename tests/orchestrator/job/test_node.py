from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from orchestrator.job.node import describe, installed, packages_hash
from orchestrator.job.nvml import Card


class TwoCards:
    """A node with NVIDIA's driver."""

    def driver(self) -> str:
        return "570.86.15"

    def cards(self) -> list[Card]:
        return [Card("NVIDIA H200", f"GPU-{index}", used=0, total=1) for index in range(2)]


def test_packages_are_read_off_their_folders_and_the_first_on_the_path_counts(tmp_path: Path) -> None:
    for name in ("a/Typing_Extensions-4.12.dist-info", "a/old-1.0-py3.11.egg-info", "b/old-2.0.dist-info", "b/plain"):
        (tmp_path / name).mkdir(parents=True)
    found = installed([str(tmp_path / "a"), str(tmp_path / "missing"), str(tmp_path / "b")])
    assert found == {"typing-extensions": "4.12", "old": "1.0"}


def test_what_is_installed_here_is_found() -> None:
    found = installed(sys.path)
    for package in ("numpy", "hydra-core", "sqlalchemy"):
        assert found[package] == metadata.version(package)


def test_the_hash_depends_on_names_and_versions_and_not_on_their_order() -> None:
    one = packages_hash({"a": "1", "b": "2"})
    assert one == packages_hash({"b": "2", "a": "1"})
    assert one != packages_hash({"a": "1", "b": "3"})


def test_a_node_is_described_by_its_cards_driver_and_image() -> None:
    node = describe(TwoCards(), {"ORCHESTRATOR_IMAGE": "verl@sha256:ab"}, [])  # type: ignore[arg-type]
    assert (node.gpus, node.driver, node.image) == (["NVIDIA H200"] * 2, "570.86.15", "verl@sha256:ab")
    assert node.packages == 0
