"""Run a function right after a module has been imported, whenever that happens.

The plugin is loaded by every process that imports verl, and a job has half a dozen of those. Importing what it registers with
(the trainer, the rollout) would cost each of them four seconds of processor time, and most never need it. So each registration
waits for the module that it belongs to.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds a watched module as the other finders would, with a loader that calls back once the module has run."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callable[[], None]]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.callbacks:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_call_back(module: ModuleType) -> None:
            execute(module)
            for callback in self.callbacks.pop(fullname, []):
                callback()

        spec.loader.exec_module = execute_and_call_back  # type: ignore[method-assign]
        return spec


_finder = _AfterImport()


def after_import(module: str, callback: Callable[[], None]) -> None:
    """Call `callback` when `module` has been imported: now, if it already is."""
    if module in sys.modules:
        callback()
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.callbacks.setdefault(module, []).append(callback)
