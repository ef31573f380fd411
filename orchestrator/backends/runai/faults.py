"""What an answer that is no success means: a no, no room now, or nothing that can be known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import BackendError, Deferred, SubmitUncertain, Unobservable

LONGEST = 600
"""Characters of a server's words in one message."""
_TAKEN = ("already exist", "already in use", "already taken", "duplicate")
_A_NAME = ("name", "workload")


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
        said = self.said.lower()
        speaks_so = any(word in said for word in _TAKEN) and any(word in said for word in _A_NAME)
        return self.status == 409 or (self.status == 400 and speaks_so)

    def speaks_of(self, name: str) -> bool:
        """Whether it is about the workload of that name, rather than about some other thing that exists twice."""
        return self.status == 409 or name in self.said


class NotFound(Refused):
    """404: there is no such thing, as far as these credentials see."""


class Unauthorized(Refused):
    """The credentials are not accepted (any more)."""


def of_answer(
    call: str,
    status: int,
    body: Any,
    *,
    is_submission: bool = False,
    hide: Callable[[str], str] = str,
    is_ours: bool = True,
) -> BackendError:
    """The error that an answer stands for.

    Args:
        body: the parsed answer, or its text.
        is_submission: the request may have brought something into being.
        hide: takes secrets out of a text.
        is_ours: the control plane was asked, whose own errors are objects.
    """
    said = words(body, hide)
    if is_ours and status in (403, 404, 405) and not isinstance(body, Mapping):
        # what stands before it, while it is away: says nothing about any workload
        kind = SubmitUncertain if is_submission else Unobservable
        return kind(f"{call}: {status}, and not in Run:ai's words ({said}); a gateway in front of it?")
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


def words(body: Any, hide: Callable[[str], str] = str) -> str:
    """Message, details and the breaches of policy of an error's body, in one line; secrets go before it is cut."""
    if not isinstance(body, Mapping):
        return _short(hide(one_line(body or ""))) or "no explanation"
    said = [one_line(body[key]) for key in ("message", "error", "error_description", "details") if body.get(key)]
    issues = body.get("complianceIssues")
    for issue in issues if isinstance(issues, list) else []:
        if isinstance(issue, Mapping):
            parts = (one_line(issue[key]) for key in ("field", "rule", "details") if issue.get(key))
            said.append("policy: " + ", ".join(parts))
    return _short(hide("; ".join(dict.fromkeys(said)))) or "no explanation"


def one_line(said: object) -> str:
    """A server's words as a terminal and a database can take them: no line breaks, no control characters."""
    text = str(said).encode("utf-8", "replace").decode()
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
