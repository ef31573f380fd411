"""`python -m tests.runai.mortal SPEC ROOT [STEP ...]`: a mortal orchestrator; a step is a request too.

Where none of the STEPs is left to do the exit code is 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

import httpx

from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.observation import Patience
from orchestrator.spec_model import SweepSpec
from tests.e2e.mortal import die, drive

PATIENCE = Patience(settle_s=1.0, visible_s=3.0, completing_s=6.0, ask_again_s=2.0)


class MortalTransport(httpx.HTTPTransport):
    """Lets one request pass."""

    def __init__(self, steps: Collection[str]) -> None:
        super().__init__()
        self._steps = steps

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method in self._steps and not request.url.path.endswith("/token"):
            response.read()
            die(request.method)
        return response


if __name__ == "__main__":
    deadly = sys.argv[3:]

    def backend(spec: SweepSpec) -> RunaiBackend:
        return RunaiBackend.of(spec.runai, os.environ, transport=MortalTransport(deadly), patience=PATIENCE)

    drive(Path(sys.argv[1]), Path(sys.argv[2]), deadly, backend, poll_s=0.1)
