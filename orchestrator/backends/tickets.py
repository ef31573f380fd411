"""Tickets: what was asked of a scheduler for an attempt, as a file in its folder, written before it is asked.

Without a ticket nothing was ever asked. With one, a job whose id was never written down can be found again. What a ticket
says is its backend's own.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.errors import Unobservable
from trainer_ext.records import write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Ticket = TypeVar("_Ticket")


def write(path: Path, ticket: DataclassInstance) -> None:
    write_atomic(path, json.dumps(asdict(ticket)))


def read(path: Path, kind: type[_Ticket]) -> _Ticket | None:
    """None where there is no ticket.

    Raises:
        Unobservable: the file is there and cannot be read.
    """
    try:
        return kind(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Unobservable(f"cannot read {path}: {error}") from error
