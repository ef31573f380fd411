"""Containers without processes, for time that only moves when somebody sleeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.runai.containers import SIGNALLED, Container, Launch


@dataclass
class IdleContainer:
    """Does nothing until it is told to end."""

    code: int | None = None

    def end(self, code: int) -> None:
        if self.code is None:
            self.code = code

    def exit_code(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.end(SIGNALLED + 15)

    def kill(self) -> None:
        self.end(SIGNALLED + 9)


@dataclass
class Idle:
    """Starts containers that do nothing."""

    started: list[Launch] = field(default_factory=list)

    def start(self, launch: Launch) -> Container:
        self.started.append(launch)
        return IdleContainer()
