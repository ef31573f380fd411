"""What can go wrong, as users see it.

OrchestratorError               exit code 2 unless a subclass says otherwise; printed without a traceback
├── SpecError                   a mistake in a sweep file or an override: file, line, key, suggestion
├── ComposeError                Hydra refused the composed configuration
├── UsageError                  a wrong command line, an unknown sweep or point
├── StoreError                  the database cannot be opened or is of another version
├── EnvironmentProblem          something the machine lacks (a package, a model file, a cluster command)
└── BackendError                a backend said no, for good
    ├── Deferred                the backend has no room for a submission now
    ├── Unobservable            the backend could not be asked; says nothing about any job
    └── SubmitUncertain         a submission may or may not have been accepted: look the name up before trying again
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

EXIT_SUCCEEDED = 0
EXIT_SOME_FAILED = 1
EXIT_BAD_USAGE = 2
EXIT_STOPPED = 3
EXIT_INTERRUPTED = 130


class OrchestratorError(Exception):
    """Base of every error that is the user's to read. The message says what happened, where, and what to do."""

    exit_code = EXIT_BAD_USAGE


class SpecError(OrchestratorError):
    """A sweep file says something that cannot be.

    Args:
        message: what is wrong, one sentence.
        file: the sweep file, when there is one.
        line: 1-based line in it, when known.
        key: dotted key in it, when known.
        hint: what to write instead.
    """

    def __init__(
        self,
        message: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message, self.file, self.line, self.key, self.hint = message, file, line, key, hint
        where = ":".join(str(part) for part in (file, line) if part is not None)
        text = f"{where}: " if where else ""
        text += f"{key}: " if key else ""
        text += message
        super().__init__(text + (f" ({hint})" if hint else ""))

    @classmethod
    def of_all(cls, problems: Sequence[SpecError]) -> SpecError:
        """One error that says them all; its place is the first one's."""
        if len(problems) == 1:
            return problems[0]
        joined = cls("\n".join([f"{len(problems)} mistakes:", *(f"  {problem}" for problem in problems)]))
        first = problems[0]
        joined.file, joined.line, joined.key, joined.hint = first.file, first.line, first.key, first.hint
        return joined


class ComposeError(OrchestratorError):
    """Hydra could not compose or override the configuration of a point."""


class UsageError(OrchestratorError):
    """The command line names something that does not exist or does not fit."""


class StoreError(OrchestratorError):
    """The database cannot serve."""


class EnvironmentProblem(OrchestratorError):
    """The machine lacks something; the message names the command that brings it."""


class BackendError(OrchestratorError):
    """A backend refused, and would refuse again."""


class Deferred(BackendError):
    """A quota or a limit on submissions is reached: the same submission may succeed later. Positively no job exists."""


class Unobservable(BackendError):
    """The backend could not be asked. Never changes a state by itself."""


class SubmitUncertain(BackendError):
    """The reply to a submission was lost."""
