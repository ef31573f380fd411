"""The files that an attempt produced, with their digests: proof that what is read later is what was written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trainer_ext.records import METRICS, OutputFile


def describe_outputs(folder: Path, pattern: str | None) -> list[OutputFile]:
    """Digests of the metrics and of all files that match `pattern`, a glob below `folder`; ascending by path.

    Raises:
        OSError: a file cannot be read.
        ValueError, NotImplementedError: the pattern is empty, absolute or otherwise no glob.
    """
    files = {folder / METRICS, *(folder.glob(pattern) if pattern else ())}
    return [_describe(folder, file) for file in sorted(files) if file.is_file()]


def _describe(folder: Path, file: Path) -> OutputFile:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        size = content.tell()
    return OutputFile(path=file.relative_to(folder).as_posix(), size=size, sha256=digest)
