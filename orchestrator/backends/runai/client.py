"""Requests to the control plane: each with a time limit, each answer as JSON or as one clear error.

A GET is repeated with growing waits. A POST or DELETE goes out once: whether one whose answer was lost has worked is for
the caller to find out. The only thing that is sent again is a request that was refused for its token, since that one
positively did nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from orchestrator.backends.runai import faults
from orchestrator.backends.runai.settings import Credentials
from orchestrator.backends.runai.token import Token, TokenSource
from orchestrator.clock import Clock
from orchestrator.errors import BackendError, Deferred, EnvironmentProblem, SubmitUncertain, Unobservable

WAITS_S = (0.5, 1.0, 2.0)
"""Between the tries of a GET."""
LONGEST_WAIT_S = 30.0
"""Of what a server asks for with Retry-After."""
DOWN_FOR_S = 60.0
"""After all tries failed, a GET gets one for so long: many of them in a row would each take all their tries."""
LOG_BYTES = 8 * 1024**2
"""The most that is taken of a log."""
MOST_BYTES = 64 * 1024**2
"""Of any other answer: 500 workloads are some hundred KiB."""

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
        ca_file: certificates that the server is checked against besides the system's; None: those alone.
        transport: what carries requests; None: the network.

    Raises:
        EnvironmentProblem: `base_url` is no address, or `ca_file` holds no certificates.
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
        self._clock, self._down_until = clock, float("-inf")
        try:
            self._http = httpx.Client(
                base_url=base_url,
                transport=transport,
                timeout=httpx.Timeout(timeouts.read_s, connect=timeouts.connect_s),
                verify=_trusted(ca_file) if transport is None else True,
                headers={"Accept": "application/json"},
                follow_redirects=False,
                # a connection that was closed while it was idle would make a POST's fate uncertain
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        except httpx.InvalidURL as error:
            raise EnvironmentProblem(f"the control plane's address {base_url} is none: {error}") from None
        self._longest_s = 4 * timeouts.read_s
        """Of an answer that comes in pieces, each in time."""
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
        reply = self._authorized(lambda: self._http.build_request("GET", path, params=params), self._send_repeated)
        if not reply.is_success:
            raise self._error("GET", path, reply)
        try:
            return reply.json()
        except (ValueError, RecursionError):
            raise Unobservable(f"GET {path}: the answer is no JSON; is {self.base_url} the control plane?") from None

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
        try:
            reply = self._authorized(
                lambda: self._http.build_request("GET", url, headers={"Accept": "*/*"}),
                lambda request: self._send(request, LOG_BYTES),
            )
        except httpx.InvalidURL as error:
            raise Unobservable(f"GET {url}: no address: {error}") from None
        if not reply.is_success:
            raise self._error("GET", url, reply)
        return reply.content

    # ---- sending ---------------------------------------------------------------------------------------------------

    def _once(self, method: Literal["POST", "DELETE"], path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            self._tokens.get()
        except Unobservable as error:
            raise Deferred(str(error)) from error  # nothing was sent
        try:
            reply = self._authorized(lambda: self._http.build_request(method, path, json=body), self._send)
        except _Unsent as error:
            raise Deferred(f"{method} {path}: {error}") from error
        except Unobservable as error:
            raise SubmitUncertain(f"{error}; it may have worked") from error
        if not reply.is_success:
            raise self._error(method, path, reply, is_submission=True)
        try:
            return reply.json() if reply.content else None
        except (ValueError, RecursionError):
            return None

    def _authorized(
        self, build: Callable[[], httpx.Request], send: Callable[[httpx.Request], httpx.Response]
    ) -> httpx.Response:
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
        for wait_s in WAITS_S if self._clock.now() >= self._down_until else ():
            try:
                reply = self._send(request)
            except Unobservable:
                self._clock.sleep(wait_s)
                continue
            if reply.status_code != 429 and reply.status_code < 500:
                return reply
            self._clock.sleep(max(wait_s, _retry_after_s(reply)))
        try:
            reply = self._send(request)
        except Unobservable:
            self._down_until = self._clock.now() + DOWN_FOR_S
            raise
        self._down_until = self._clock.now() + DOWN_FOR_S if reply.status_code >= 500 else float("-inf")
        return reply

    def _send(self, request: httpx.Request, most: int = MOST_BYTES) -> httpx.Response:
        """One answer, of whose content no more is read than `most` bytes."""
        try:
            reply = self._http.send(request, stream=True)
            try:
                content = self._beginning(reply, most)
            finally:
                reply.close()
        except (httpx.RequestError, UnicodeError, OverflowError) as error:
            said = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
            what = f"{request.method} {request.url.copy_with(query=None)}: no answer ({self._tokens.hide(said)})"
            if isinstance(error, _NEVER_SENT):
                raise _Unsent(f"{what}; {_way_out(said)}") from None
            raise Unobservable(what) from None
        # what was read is decoded already
        headers = [(name, value) for name, value in reply.headers.raw if name.lower() != b"content-encoding"]
        return httpx.Response(reply.status_code, headers=headers, content=content, request=request)

    def _beginning(self, reply: httpx.Response, most: int) -> bytes:
        content, deadline = bytearray(), self._clock.now() + self._longest_s
        for piece in reply.iter_bytes():
            content += piece
            if len(content) >= most:
                break
            if self._clock.now() > deadline:
                raise httpx.ReadTimeout(f"no end of the answer within {self._longest_s:g} s")
        return bytes(content[:most])

    def _error(self, method: str, path: str, reply: httpx.Response, *, is_submission: bool = False) -> BackendError:
        try:
            body: Any = reply.json()
        except (ValueError, RecursionError):
            body = reply.text
        call = f"{method} {path}"
        error = faults.of_answer(
            call, reply.status_code, body, is_submission=is_submission, hide=self._tokens.hide, is_ours=path[:1] == "/"
        )
        return Unobservable(str(error)) if isinstance(error, Deferred) and not is_submission else error


class _Unsent(Unobservable):
    """No connection came about, so no request was sent."""


def _retry_after_s(reply: httpx.Response) -> float:
    """What the server asks for, in seconds; dates are not understood."""
    text = reply.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT_S) if text.isascii() and text.isdigit() else 0.0


def _way_out(said: str) -> str:
    """What to do where no connection came about."""
    if "CERTIFICATE" in said.upper():
        return "name the file with its certificates in runai.ca_file"
    return "is RUNAI_BASE_URL right, and can it be reached from here (VPN, proxy)?"


def _trusted(ca_file: str | None) -> ssl.SSLContext:
    """The system's certificates and the usual public ones, and those of `ca_file`."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    if ca_file is not None:
        path = Path(ca_file).expanduser()
        try:
            context.load_verify_locations(path)
        except OSError as error:
            why = error.strerror or "no certificates in PEM form in it"
            raise EnvironmentProblem(f"runai.ca_file: {path} cannot be used: {why}") from None
    return context
