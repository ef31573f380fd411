"""The control plane on a port of loopback, and in this process without one."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from orchestrator.clock import FakeClock
from tests.runai.faults import Fate
from tests.runai.plane import ControlPlane
from tests.runai.routes import Answer, Api, Request

HOST = "127.0.0.1"
TICK_S = 0.05
IDLE_S = 60.0
"""A connection that says nothing is closed after this long."""


class Server:
    """Serves a control plane while a `with` block lasts; its containers end with it."""

    def __init__(self, plane: ControlPlane, port: int = 0) -> None:
        self.plane, self.api = plane, Api(plane)
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer((HOST, port), _handler(self.api, self._closing))
        self._http.daemon_threads = True
        self.url = f"http://{HOST}:{self._http.server_address[1]}"
        plane.domain = self.url
        self._threads = [
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": TICK_S}),
            threading.Thread(target=self._tick),
        ]

    @property
    def environ(self) -> dict[str, str]:
        return self.plane.environ(self.url)

    def __enter__(self) -> Server:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        for thread in self._threads:
            thread.join()
        self.plane.close()

    def _tick(self) -> None:
        while not self._closing.wait(TICK_S):
            self.plane.advance()


def _handler(api: Api, closing: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_S

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = api.handle(request_of(self.command, self.path, headers, body))
            if answer.seconds:
                closing.wait(answer.seconds)
            if answer.fate in (Fate.DROP, Fate.HANG):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._send(answer)

        do_GET = do_POST = do_DELETE = do_PUT = _serve

        def _send(self, answer: Answer) -> None:
            body, content_type = answer.body()
            self.send_response(answer.status)
            for name, value in {"content-type": content_type, **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:  # the client did not wait
                self.close_connection = True

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    return Handler


def request_of(method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, body)


class InProcess(httpx.BaseTransport):
    """The control plane as a transport of httpx: no socket, and by its clock no waiting either."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.api = plane, Api(plane)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = self.api.handle(
            request_of(request.method, str(request.url.raw_path, "ascii"), headers, request.read())
        )
        patience = (request.extensions.get("timeout") or {}).get("read")
        if answer.fate is Fate.DROP:
            raise httpx.RemoteProtocolError("the connection was closed without an answer", request=request)
        if answer.fate is Fate.HANG or (patience is not None and answer.seconds > patience):
            assert patience is not None, f"{request.method} {request.url} waits for ever"
            self.plane.clock.sleep(patience)
            raise httpx.ReadTimeout("no answer", request=request)
        self.plane.clock.sleep(answer.seconds)
        body, content_type = answer.body()
        return httpx.Response(answer.status, headers={"content-type": content_type, **answer.headers}, content=body)


def imagined(folder: Path, clock: FakeClock, **more: Any) -> ControlPlane:
    """A control plane in time that only moves when somebody sleeps."""
    return ControlPlane(folder, clock=clock, domain="http://cluster.invalid", **more)
