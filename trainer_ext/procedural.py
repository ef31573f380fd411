"""reasoning-gym's tasks and verifiers, without importing all of reasoning-gym.

Importing the package loads its hundred tasks and with them ten further packages, one of which (pycosat) has to be compiled.
The families named here need none of those, and one of them loads in a tenth of a second instead of two. So the package's own
`__init__` is left out; its submodules are imported and used as they are.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from typing import Any

FAMILIES = ("arithmetic", "algebra", "games", "graphs", "geometry", "induction", "probability")


class UnknownTask(ValueError):
    """No family in `FAMILIES` has a task of this name."""


def _import_family(family: str) -> None:
    if "reasoning_gym" not in sys.modules:
        spec = importlib.util.find_spec("reasoning_gym")
        if spec is None:
            raise ModuleNotFoundError("reasoning_gym is not installed: pip install --no-deps reasoning-gym sympy pytz")
        sys.modules["reasoning_gym"] = importlib.util.module_from_spec(spec)
    importlib.import_module(f"reasoning_gym.{family}")


def make_dataset(task: str, config: Mapping[str, Any]) -> Any:
    """A procedural dataset: `[index]` gives an entry with "question", "answer" and "metadata", and `score_answer` of an answer
    and an entry a float in [0, 1].

    `config` holds the fields of the task's own config class, `seed` and `size` among them. Equal configs give equal entries.

    Raises:
        UnknownTask: naming the tasks that exist.
        ValueError: the task's config class refuses `config`.
    """
    factory = None
    for family in FAMILIES:
        _import_family(family)
        factory = importlib.import_module("reasoning_gym.factory")
        if task in factory.DATASETS:
            try:
                return factory.create_dataset(task, **config)
            except (TypeError, AssertionError) as error:  # an unknown field, or a value that its validation refuses
                raise ValueError(f"reasoning-gym task {task!r} refuses {dict(config)}: {error}") from error
    known = ", ".join(sorted(factory.DATASETS)) if factory else ""
    raise UnknownTask(f"unknown reasoning-gym task {task!r}; known: {known}")


@functools.lru_cache(maxsize=64)
def cached_dataset(task: str, config_json: str) -> Any:
    """`make_dataset` with its config as JSON text; the verifier asks for the same few datasets for every response."""
    return make_dataset(task, json.loads(config_json))
