"""NVML: the graphics cards of this machine as the driver sees them. Everything here is empty without NVIDIA's driver.

NVML's figure is the truth about a card, whoever uses it; torch's own peak can exceed the card's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True)
class Card:
    """One card. Sizes in bytes."""

    name: str
    uuid: str
    used: int
    total: int
    busy: int | None = None
    """Percent of the last moments (up to a second) in which a kernel ran."""


class Nvml:
    """An open connection to the driver, restricted to some cards.

    Args:
        visible: the value of CUDA_VISIBLE_DEVICES that the job sees; None: all cards.
    """

    def __init__(self, visible: str | None = None) -> None:
        handles = _handles()
        chosen = visible_indices(visible, [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles])
        self._handles = [handles[index] for index in chosen]

    def driver(self) -> str | None:
        """Version of NVIDIA's driver; None without one."""
        try:
            return _text(pynvml.nvmlSystemGetDriverVersion())
        except pynvml.NVMLError:
            return None

    def cards(self) -> list[Card]:
        """The state of every card that answers."""
        found = []
        for handle in self._handles:
            try:
                found.append(_card(handle))
            except pynvml.NVMLError:
                continue  # a card that fell off the bus must not hide the others
        return found


def visible_indices(value: str | None, uuids: Sequence[str]) -> list[int]:
    """Which of the machine's cards `CUDA_VISIBLE_DEVICES=value` leaves visible.

    As CUDA reads it: indices or (beginnings of) UUIDs; the first invalid entry ends the list. A list without any card
    that we can name (MIG slices) says nothing about cards, so it counts as all of them.
    """
    if value is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in value.split(",")):
        matches = [i for i, uuid in enumerate(uuids) if entry == str(i) or (len(entry) > 4 and uuid.startswith(entry))]
        if len(matches) != 1:
            break
        chosen += matches
    return chosen or ([] if value.strip() in ("", "-1") else list(range(len(uuids))))


def _handles() -> list[Any]:
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _card(handle: Any) -> Card:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Card(
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        used=int(memory.used),
        total=int(memory.total),
        busy=_busy(handle),
    )


def _busy(handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:  # a card in MIG mode does not tell
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
