"""Headless Chromium, driven over a pipe in its own protocol: pages that draw themselves by script are waited for, not guessed.

Chrome DevTools Protocol: JSON messages, each ended by a zero byte, on descriptors 3 (to the browser) and 4 (from it).
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
"""Debian's package; None where it is not installed."""
MISSING = "chromium is not installed here (Debian: apt-get install chromium): no page is looked at"
_PATIENCE_S = 60.0


class Page:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest = to_browser, from_browser, b""
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of one command.

        Raises:
            RuntimeError: the browser refused it.
            TimeoutError: no answer within a minute.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            pass  # events
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url: str, width: int, height: int, *, dark: bool = False) -> None:
        """Goes to a page and waits until it has loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until it is true.

        Raises:
            TimeoutError: it is not within a minute.
        """
        end = time.monotonic() + _PATIENCE_S
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"the page never came to {expression}")
            time.sleep(0.1)

    def shoot(self, path: Path) -> Path:
        """What is in view, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def _read(self) -> Any:
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], _PATIENCE_S)[0]:
                raise TimeoutError("chromium does not answer")
            data = os.read(self._from, 1 << 16)
            if not data:
                raise RuntimeError("chromium ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


def _pipe() -> tuple[int, int]:
    """Both ends above 9, out of the way of those that the browser expects."""
    ends = os.pipe()
    moved = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 10), fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 10)
    for end in ends:
        os.close(end)
    return moved


@contextmanager
def browsing() -> Iterator[Page]:
    """A tab of a browser of its own, which ends with the block."""
    assert CHROMIUM is not None, MISSING
    (child_in, to_browser), (from_browser, child_out) = _pipe(), _pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        browser = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{child_in} 4>&{child_out}', *command],
            pass_fds=(child_in, child_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(child_in)
        os.close(child_out)
        try:
            yield Page(to_browser, from_browser)
        finally:
            os.close(to_browser)  # it ends by itself when nobody talks to it any more
            try:
                browser.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(browser.pid, 9)
                browser.wait()
            os.close(from_browser)
