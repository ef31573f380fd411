"""Callbacks that wait for a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from trainer_ext.verl_plugin.after_import import after_import


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A package on the path that nobody has imported yet; forgotten afterwards."""
    name = f"late_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "part.py").write_text("value = 1\n")
    sys.path.insert(0, str(tmp_path))
    yield name
    sys.path.remove(str(tmp_path))
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def test_the_callback_runs_once_after_the_module_has_run(package: str) -> None:
    seen: list[int] = []
    after_import(f"{package}.part", lambda: seen.append(sys.modules[f"{package}.part"].value))
    importlib.import_module(package)
    assert seen == []
    importlib.import_module(f"{package}.part")
    importlib.import_module(f"{package}.part")
    assert seen == [1]


def test_a_module_that_is_there_already_is_not_waited_for() -> None:
    seen: list[str] = []
    after_import("sys", lambda: seen.append("now"))
    assert seen == ["now"]


def test_looking_a_module_up_without_importing_it_does_not_use_the_callback_up(package: str) -> None:
    seen: list[str] = []
    after_import(f"{package}.part", lambda: seen.append("imported"))
    assert importlib.util.find_spec(f"{package}.part") is not None
    assert seen == []
    importlib.import_module(f"{package}.part")
    assert seen == ["imported"]


def test_a_module_that_does_not_exist_fails_to_import_as_ever() -> None:
    after_import("no_such_module_at_all", lambda: None)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        importlib.import_module("no_such_module_at_all")
