"""Where results are kept: one JSON file a run, and a history with one line a run."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Replace the file as a whole: a reader, or a run cut off, never leaves half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(plain(report), indent=2, allow_nan=False) + "\n")
    partial.replace(path)


def append_line(path: Path, report: dict[str, Any]) -> None:
    """Append one line in one write, so that lines of runs side by side do not mix; the file is made where missing.

    Raises:
        OSError: the file cannot be written, or took a part of the line only.
    """
    line = (json.dumps(plain(report), allow_nan=False) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)
    if written != len(line):
        raise OSError(f"{path}: {written} of {len(line)} bytes of the line were written; remove its last line")


def plain(value: Any) -> Any:
    """The value with NaN and infinity as null: JSON has neither."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def source_commit(folder: Path = SOURCES) -> str | None:
    """The commit that holds the sources, `-dirty` behind it where tracked files differ; None outside a repository."""
    try:
        git = ["git", "-C", str(folder)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changes.strip() else commit
