"""What changed in a repository between two commits: files with their lines, and the subjects of the commits between.

Read as `git_state` reads: under a timeout, without a lock, and what git cannot tell is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from orchestrator.git_state import Runner, asker, run_command
from reports.snapshot import ChangesSnapshot, CommitSnapshot, FileChange

MOST_FILES = 500
MOST_COMMITS = 200
"""Kept; of more, how many there were. A sweep's row is read often."""
_MOST_SUBJECTS = 5
"""Of one file."""
_KINDS = {"A": "added", "D": "deleted"}

_RECORD, _FIELD = "\x1e", "\x1f"


def read_changes(
    folder: Path, base: str, head: str, base_sweep: str | None = None, run: Runner = run_command
) -> ChangesSnapshot | None:
    """From commit `base` to commit `head` of the repository that holds `folder`; uncommitted changes are no part of it.

    Args:
        base, head: anything that names a commit.
        base_sweep: the sweep that ran on the base.

    Returns:
        None where git does not know both, or does not answer.
    """

    ask = asker(folder, run)

    def git(*arguments: str) -> str | None:
        output = ask(*arguments)
        return output.decode(errors="replace") if output is not None else None

    old, new = (
        git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") for name in (base, head)
    )
    if old is None or new is None:
        return None
    old, new = old.strip(), new.strip()
    log = git("log", "--reverse", "-z", "--name-only", f"--format={_RECORD}%H{_FIELD}%s", f"{old}..{new}")
    files = _files(git, old, new)
    if log is None or files is None:
        return None
    commits, subjects = _commits(log)
    return ChangesSnapshot(
        base=old,
        head=new,
        base_sweep=base_sweep,
        commits=tuple(commits[-MOST_COMMITS:]),
        files=tuple(
            FileChange(path, change, *lines, subjects=tuple(subjects.get(path, ())[-_MOST_SUBJECTS:]))
            for path, change, lines in files[:MOST_FILES]
        ),
        more_commits=max(0, len(commits) - MOST_COMMITS),
        more_files=max(0, len(files) - MOST_FILES),
    )


def _commits(log: str) -> tuple[list[CommitSnapshot], dict[str, list[str]]]:
    """Commits, oldest first, and path -> subjects of those that touched it."""
    commits: list[CommitSnapshot] = []
    subjects: dict[str, list[str]] = defaultdict(list)
    for record in log.split(_RECORD)[1:]:
        head, *paths = record.split("\0")
        name, _, subject = head.partition(_FIELD)
        commits.append(CommitSnapshot(name, subject))
        for path in filter(None, (path.lstrip("\n") for path in paths)):
            subjects[path].append(subject)
    return commits, subjects


_Lines = tuple[int | None, int | None]


def _files(git: Callable[..., str | None], old: str, new: str) -> list[tuple[str, str, _Lines]] | None:
    """(path, kind of change, (added, removed)) by path. A file that moved is one deleted and one added."""
    plain = ("--no-renames", "--no-ext-diff", "-z", old, new)
    kinds, numbers = git("diff", "--name-status", *plain), git("diff", "--numstat", *plain)
    if kinds is None or numbers is None:
        return None
    words = kinds.split("\0")
    kind_of = dict(zip(words[1::2], words[::2], strict=False))
    found = []
    for entry in filter(None, numbers.split("\0")):
        added, removed, path = entry.split("\t", 2)
        lines = (int(added), int(removed)) if added != "-" else (None, None)
        found.append((path, _KINDS.get(kind_of.get(path, "M"), "modified"), lines))
    return sorted(found)
