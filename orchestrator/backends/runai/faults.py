"""What an answer that is no success means: a no, no room now, or nothing that can be known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import BackendError, Deferred, SubmitUncertain, Unobservable

LONGEST = 600
"""Characters of a server's words in one message."""
_TAKEN = ("already exist", "already in use", "already taken", "duplicate")


class Refused(BackendError):
    """A positive no.

    Args:
        call: what was asked, as `POST /api/v1/...`.
        status: the HTTP status.
        said: the server's words.
    """

    def __init__(self, call: str, status: int, said: str) -> None:
        self.status, self.said = status, said
        super().__init__(f"{call}: {status}: {said}")

    @property
    def says_name_is_taken(self) -> bool:
        """By the words first: the status of a second workload of one name is documented nowhere."""
        return self.status == 409 or (self.status == 400 and any(word in self.said.lower() for word in _TAKEN))


class NotFound(Refused):
    """404: there is no such thing, as far as these credentials see."""


class Unauthorized(Refused):
    """The credentials are not accepted (any more)."""


def of_answer(call: str, status: int, body: Any, *, is_submission: bool = False) -> BackendError:
    """The error that an answer stands for.

    Args:
        body: the parsed answer, or its text.
        is_submission: the request may have brought something into being.
    """
    said = words(body)
    if status == 404:
        return NotFound(call, status, said)
    if status == 401:
        return Unauthorized(call, status, f"{said}; `doctor --backend runai` looks at the credentials")
    if status == 429:
        return Deferred(f"{call}: too many requests: {said}")
    if status >= 500 or status == 408:
        kind = SubmitUncertain if is_submission else Unobservable
        return kind(f"{call}: {status}: {said}")
    if 300 <= status < 400:
        return Refused(call, status, "the server sends elsewhere; is RUNAI_BASE_URL the control plane's address?")
    return Refused(call, status, said)


def words(body: Any) -> str:
    """Message, details and the breaches of policy of an error's body, in one line."""
    if not isinstance(body, Mapping):
        return _short(" ".join(str(body or "").split())) or "no explanation"
    said = [str(body[key]) for key in ("message", "error", "error_description", "details") if body.get(key)]
    issues = body.get("complianceIssues")
    for issue in issues if isinstance(issues, list) else []:
        if isinstance(issue, Mapping):
            parts = (str(issue[key]) for key in ("field", "rule", "details") if issue.get(key))
            said.append("policy: " + ", ".join(parts))
    return _short("; ".join(dict.fromkeys(said))) or "no explanation"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
