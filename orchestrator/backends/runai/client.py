"""Requests to the control plane: each with a time limit, each answer as JSON or as one clear error.

A GET is repeated with growing waits. A POST or DELETE goes out once: whether one whose answer was lost has worked is for
the caller to find out. The only thing that is sent again is a request that was refused for its token, since that one
positively did nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from orchestrator.backends.runai import faults
from orchestrator.backends.runai.settings import Credentials
from orchestrator.backends.runai.token import Token, TokenSource
from orchestrator.clock import Clock
from orchestrator.errors import BackendError, Deferred, SubmitUncertain, Unobservable

WAITS_S = (0.5, 1.0, 2.0)
"""Between the tries of a GET."""
LONGEST_WAIT_S = 30.0
"""Of what a server asks for with Retry-After."""
LOG_BYTES = 8 * 1024**2
"""The most that is taken of a log."""

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect_s: float = 10.0
    read_s: float = 30.0


TIMEOUTS = Timeouts()


class Client:
    """One control plane, seen with one account.

    Args:
        base_url: scheme and host; no path.
        credentials: gives them when a token is needed.
        ca_file: certificates that the server is checked against; None: the system's.
        transport: what carries requests; None: the network.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Callable[[], Credentials],
        clock: Clock,
        *,
        ca_file: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self.base_url = base_url
        self._clock = clock
        self._http = httpx.Client(
            base_url=base_url,
            transport=transport,
            timeout=httpx.Timeout(timeouts.read_s, connect=timeouts.connect_s),
            verify=ssl.create_default_context(cafile=ca_file) if ca_file else base_url.startswith("https"),
            headers={"Accept": "application/json"},
            follow_redirects=False,
            # a connection that was closed while it was idle would make a POST's fate uncertain
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._tokens = TokenSource(self._send_repeated, self._http.build_request, credentials, clock.now)

    def close(self) -> None:
        self._http.close()

    def token(self) -> Token:
        """The token in use; fetches one where there is none.

        Raises:
            Unauthorized, Unobservable, EnvironmentProblem: there is none to be had.
        """
        return self._tokens.get()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The parsed answer.

        Raises:
            Refused, NotFound, Unauthorized: a positive no.
            Unobservable: no answer, or none that can be read, after several tries.
        """
        reply = self._authorized(lambda: self._http.build_request("GET", path, params=params), repeat=True)
        if not reply.is_success:
            raise self._error("GET", path, reply)
        try:
            return reply.json()
        except ValueError:
            raise Unobservable(f"GET {path}: the answer is no JSON") from None

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The parsed answer of a POST that goes out once; None where a success says nothing.

        Raises:
            Refused, NotFound, Unauthorized: a positive no.
            Deferred: it never went out, or there were too many: positively nothing happened.
            SubmitUncertain: it may or may not have worked.
        """
        return self._once("POST", path, body)

    def delete(self, path: str) -> None:
        """The same for a DELETE."""
        self._once("DELETE", path, None)

    def content(self, url: str) -> bytes:
        """The beginning of what lies at an address of its own (a cluster's).

        Raises:
            Refused, NotFound, Unauthorized, Unobservable: as for `get`.
        """
        reply = self._authorized(lambda: self._http.build_request("GET", url, headers={"Accept": "*/*"}), repeat=False)
        if not reply.is_success:
            raise self._error("GET", url, reply)
        return reply.content[:LOG_BYTES]

    # ---- sending ---------------------------------------------------------------------------------------------------

    def _once(self, method: Literal["POST", "DELETE"], path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            self._tokens.get()
        except Unobservable as error:
            raise Deferred(str(error)) from error  # nothing was sent
        try:
            reply = self._authorized(lambda: self._http.build_request(method, path, json=body), repeat=False)
        except _Unsent as error:
            raise Deferred(f"{method} {path}: {error}") from error
        except Unobservable as error:
            raise SubmitUncertain(f"{error}; it may have worked") from error
        if not reply.is_success:
            raise self._error(method, path, reply, is_submission=True)
        try:
            return reply.json() if reply.content else None
        except ValueError:
            return None

    def _authorized(self, build: Callable[[], httpx.Request], *, repeat: bool) -> httpx.Response:
        send = self._send_repeated if repeat else self._send
        reply = send(self._signed(build()))
        if reply.status_code == 401:  # revoked before its time
            self._tokens.drop()
            reply = send(self._signed(build()))
        return reply

    def _signed(self, request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {self._tokens.get().value}"
        return request

    def _send_repeated(self, request: httpx.Request) -> httpx.Response:
        """Again after no answer, 429 and 5xx; the last answer, whatever it is."""
        for wait_s in WAITS_S:
            try:
                reply = self._send(request)
            except Unobservable:
                self._clock.sleep(wait_s)
                continue
            if reply.status_code != 429 and reply.status_code < 500:
                return reply
            self._clock.sleep(max(wait_s, _retry_after_s(reply)))
        return self._send(request)

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._http.send(request)
        except httpx.TransportError as error:
            said = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
            what = f"{request.method} {request.url.copy_with(query=None)}: no answer ({self._redacted(said)})"
            raise (_Unsent if isinstance(error, _NEVER_SENT) else Unobservable)(what) from None

    def _error(self, method: str, path: str, reply: httpx.Response, *, is_submission: bool = False) -> BackendError:
        try:
            body: Any = reply.json()
        except ValueError:
            body = reply.text
        error = faults.of_answer(f"{method} {path}", reply.status_code, body, is_submission=is_submission)
        if any(secret in str(error) for secret in self._tokens.secrets):
            return faults.of_answer(
                f"{method} {path}", reply.status_code, self._redacted(faults.words(body)), is_submission=is_submission
            )
        if isinstance(error, Deferred) and not is_submission:
            return Unobservable(str(error))
        return error

    def _redacted(self, text: str) -> str:
        for secret in self._tokens.secrets:
            text = text.replace(secret, "***")
        return text


class _Unsent(Unobservable):
    """No connection came about, so no request was sent."""


def _retry_after_s(reply: httpx.Response) -> float:
    """What the server asks for, in seconds; dates are not understood."""
    text = reply.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT_S) if text.isdigit() else 0.0
