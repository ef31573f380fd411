"""What became of the code since the sweep before, or since a commit that was named."""

from __future__ import annotations

from typing import Any

from reports.markdown import Column, code, text
from reports.numbers import count
from reports.sections.git import SHORT_HASH
from reports.snapshot import FileChange, SweepSnapshot

MOST_FILES = 40
MOST_COMMITS = 20
_LONGEST_SUBJECT = 100


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    found = snapshot.changes
    if found is None:
        return None
    # many files: those that changed most
    files = sorted(sorted(found.files, key=_size, reverse=True)[:MOST_FILES], key=lambda file: file.path)
    commits = found.commits[-MOST_COMMITS:]
    return {
        "base": code(found.base[:SHORT_HASH]),
        "head": code(found.head[:SHORT_HASH]),
        "base_sweep": code(found.base_sweep or ""),
        "columns": [
            Column("Path", [code(file.path) for file in files]),
            Column("Change", [file.change for file in files]),
            Column("Lines", [_lines(file) for file in files], numeric=True),
            Column("Commits", ["; ".join(_subject(one) for one in file.subjects) for file in files]),
        ],
        "commits": [f"{code(one.hash[:SHORT_HASH])} {_subject(one.subject)}" for one in commits],
        "files_in_all": len(found.files) + found.more_files,
        "files_left_out": len(found.files) - len(files) + found.more_files,
        "commits_in_all": len(found.commits) + found.more_commits,
        "commits_left_out": len(found.commits) - len(commits) + found.more_commits,
        "dirty": bool(snapshot.git and snapshot.git.dirty),
    }


def _size(file: FileChange) -> int:
    return (file.added or 0) + (file.removed or 0)


def _lines(file: FileChange) -> str:
    return "binary" if file.added is None or file.removed is None else f"+{count(file.added)} −{count(file.removed)}"


def _subject(words: str) -> str:
    return text(words if len(words) <= _LONGEST_SUBJECT else words[: _LONGEST_SUBJECT - 1].rstrip() + "…")
