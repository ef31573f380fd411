"""A folder that is built once, by whichever of many processes comes first, and is either complete or absent."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on `path`; the kernel drops it when the process dies, so a crash never leaves it taken."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_readable(folder: Path) -> None:
    """Undo the private modes of temporary files: the state folder may be shared by users of a cluster."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def build_once(target: Path, build: Callable[[Path], None]) -> bool:
    """Call `build(folder)` on a temporary folder beside `target`, then rename it to `target`, unless that exists already.

    Others that ask for the same target wait. Returns whether this call built it. When `build` raises, nothing is left behind.
    """
    if target.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f".{target.name}.lock"):
        if target.is_dir():
            return False
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            build(folder)
            _make_readable(folder)
            os.replace(folder, target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return True
