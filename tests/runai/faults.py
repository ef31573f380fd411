"""What goes wrong between a client and the control plane, planned ahead by a test."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Fate(StrEnum):
    """What the client gets."""

    ANSWER = "answer"
    """The true answer, late by `seconds`."""
    STATUS = "status"
    """Another status, with an error of Run:ai's form."""
    GATEWAY = "gateway"
    """Another status, with a proxy's page."""
    DROP = "drop"
    """The connection is closed without a word."""
    HANG = "hang"
    """The connection stays open without a word."""


@dataclass
class Fault:
    """Something that goes wrong with some requests.

    Args:
        fate: what the client gets.
        method, path: of the requests, the path as a regular expression that is searched.
        accepted: whether the request takes effect all the same.
        times: how many of them.
        status, seconds: what `fate` needs.
        issues: of the control plane's policy, shown with a status of 400.
        afterwards: what happens once the request has had its effect and before anybody else is heard.
    """

    fate: Fate = Fate.ANSWER
    method: str = "POST"
    path: str = r"/workloads/(trainings|distributed)$"
    accepted: bool = False
    times: int = 1
    status: int = 503
    seconds: float = 0.0
    issues: tuple[str, ...] = ()
    afterwards: Callable[[], None] = lambda: None

    def concerns(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and re.search(self.path, path) is not None


def rejected(status: int = 400, **more: object) -> Fault:
    return Fault(Fate.STATUS, status=status, **more)  # type: ignore[arg-type]


def accepted_then(status: int = 503, **more: object) -> Fault:
    return Fault(Fate.STATUS, accepted=True, status=status, **more)  # type: ignore[arg-type]


def accepted_then_dropped(**more: object) -> Fault:
    return Fault(Fate.DROP, accepted=True, **more)  # type: ignore[arg-type]


def hangs(accepted: bool, seconds: float = 60.0, **more: object) -> Fault:
    return Fault(Fate.HANG, accepted=accepted, seconds=seconds, **more)  # type: ignore[arg-type]


def slow(seconds: float, **more: object) -> Fault:
    return Fault(accepted=True, seconds=seconds, **more)  # type: ignore[arg-type]


@dataclass
class Faults:
    """Faults in the order in which they are tried; each request meets the first that concerns it."""

    planned: list[Fault] = field(default_factory=list)
    met: list[Fault] = field(default_factory=list)
    phases: dict[str, str] = field(default_factory=dict)
    """Workload id, or `*` -> a phase to show instead of the true one, which no model needs to know."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> Fault:
        self.planned.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            fault = next((fault for fault in self.planned if fault.concerns(method, path)), None)
            if fault is not None:
                fault.times -= 1
                self.met.append(fault)
            return fault
