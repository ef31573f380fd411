"""What a composed configuration says about its own job: the `job` section.

    job:
      command: ["{python}", -m, verl.trainer.main_ppo, ...]
      prepare: [["{python}", -m, trainer_ext.assets, "{root}/assets"]]
      env: {NAME: value}
      expected: {steps: 2, npz: "influence/step_*.npz"}

`{python}`, `{root}`, `{sweep_dir}`, `{point_dir}` and `{attempt_dir}` stay as they are until an attempt is written. A command
of `prepare` may be null: there is nothing to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.errors import ComposeError
from orchestrator.spec_model import SweepSpec

T = TypeVar("T")


@dataclass(frozen=True)
class JobSection:
    command: list[str]
    prepare: list[list[str]]
    """Commands that run before the job."""
    env: dict[str, str]
    expected_steps: int | None
    npz_glob: str | None
    """Below the attempt folder; None where the job writes no influence scores."""
    expected_npz: int | None
    """One file a step, where a glob and a number of steps are known."""


def job_section(config: Mapping[str, Any], spec: SweepSpec) -> JobSection:
    """Read the `job` section of a resolved configuration; `outputs` of the sweep file goes before `job.expected`.

    Raises:
        ComposeError: no `job.command`, or a part of another type.
    """
    job = _mapping(config, "job")
    expected = _mapping(job, "expected", "job.")
    steps = spec.outputs.steps if spec.outputs.steps is not None else _steps(expected.get("steps"))
    npz = spec.outputs.npz if spec.outputs.npz is not None else expected.get("npz")
    if npz is not None and not _is_glob_below(npz):
        key = "outputs.npz" if npz is spec.outputs.npz else "job.expected.npz"
        raise ComposeError(f"{key} must be a glob below the attempt folder, not {npz!r}")
    prepare = job.get("prepare") or []
    if not isinstance(prepare, list):
        raise ComposeError(f"job.prepare must be a list of commands, not {prepare!r}")
    return JobSection(
        command=_command(job.get("command"), "job.command"),
        prepare=[_command(words, f"job.prepare[{i}]") for i, words in enumerate(prepare) if words is not None],
        env={str(name): _env_text(value) for name, value in _mapping(job, "env", "job.").items()},
        expected_steps=steps,
        npz_glob=npz,
        expected_npz=steps if npz is not None else None,
    )


def fill(value: T, placeholders: Mapping[str, str]) -> T:
    """A copy of nested lists and mappings with placeholders replaced in every string, in one pass.

    Args:
        value: JSON-like.
        placeholders: what to put for `{python}`, `{root}`, ...; the keys carry their braces.
    """
    pattern = re.compile("|".join(re.escape(name) for name in placeholders) or r"(?!)")
    return _filled(value, pattern, placeholders)  # type: ignore[no-any-return]


def _filled(value: Any, pattern: re.Pattern[str], placeholders: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(lambda match: placeholders[match[0]], value)
    if isinstance(value, Mapping):
        return {key: _filled(inner, pattern, placeholders) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, pattern, placeholders) for inner in value]
    return value


def _mapping(holder: Mapping[str, Any], key: str, above: str = "") -> Mapping[str, Any]:
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ComposeError(f"{above}{key} must be a mapping, not {value!r}")
    return value


def _command(words: Any, key: str) -> list[str]:
    if not words:
        raise ComposeError(
            f"the configuration has no {key}: write the words of the command, starting with '{{python}}'"
        )
    if not isinstance(words, list) or not all(isinstance(word, str | int | float) for word in words):
        raise ComposeError(f"{key} must be a list of words, not {words!r}")
    return [str(word) for word in words]


def _steps(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ComposeError(f"job.expected.steps must be a whole number above zero, not {value!r}")


def _is_glob_below(value: Any) -> bool:
    """A relative pattern that pathlib takes, and that leaves its folder nowhere."""
    if not isinstance(value, str) or not value.strip("./") or value.startswith("/"):
        return False
    return all(part != ".." and (part == "**" or "**" not in part) for part in value.split("/"))


def _env_text(value: Any) -> str:
    """Environment variables are text; true, false and null as the shell world writes them."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(int(value))
    return str(value)
