"""Which card a foreign run had, as far as its log or its scheduler names it: torch's figures are judged against the card.

Surest first: nvidia-smi's table, the product's name, the capacity that an allocator states when it fails. The last is what
CUDA can give out, about half a percent less than what the driver states; a known card of nearly that size is taken for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

CARDS_MIB = {
    "a100-40": 40_960,
    "a100": 81_920,
    "h100": 81_559,
    "h200": 143_771,
    "b200": 183_359,
    "l40s": 46_068,
}
"""Physical memory of the cards that people name, as the driver states it."""

NEARLY = 0.02
"""Share by which what CUDA can give out may be less than what the card has."""

_POOL = re.compile(r"(?<![a-z0-9])(a100-40|a100|h100|h200|b200|l40s)(?![0-9])", re.IGNORECASE)
_PRODUCT = re.compile(r"NVIDIA (A100|H100|H200|B200|L40S)\b(?:[ -](?:SXM4-|PCIE-|PCIe )?(40GB))?")
_TABLE = re.compile(r"\d+MiB / +(\d{4,6})MiB")
_CAPACITY = re.compile(
    r"has a total capac\w+ of (\d+\.\d+) GiB|; (\d+\.\d+) GiB total capacity"
    r"|Free memory on device .{0,12}\(\d+\.\d+/(\d+\.\d+) GiB\)"
)


def card_of_pool(name: str) -> int | None:
    """MiB of the card in a pool's name: `h200`, `dgx-h100-80g`."""
    found = _POOL.search(name)
    return CARDS_MIB[found[1].lower()] if found else None


class CardMemory:
    """Fed with lines of a log; `mib` is what the surest place said first."""

    def __init__(self) -> None:
        self.mib: int | None = None
        self._sources: tuple[tuple[str, Callable[[str], int | None]], ...] = (
            ("MiB / ", _of_table),
            ("NVIDIA ", _of_product),
            (" total capac", _of_capacity),
            ("Free memory on device", _of_capacity),
        )

    @property
    def literals(self) -> tuple[bytes, ...]:
        """Lines without any of these need not be looked at: nothing surer can come in them."""
        return tuple(literal.encode() for literal, _ in self._sources)

    def look(self, line: str) -> None:
        for place, (literal, read) in enumerate(self._sources):
            if literal in line and (mib := read(line)):
                self.mib = mib
                self._sources = self._sources[:place]
                return


def _of_table(line: str) -> int | None:
    found = _TABLE.search(line)
    return int(found[1]) if found else None


def _of_product(line: str) -> int | None:
    found = _PRODUCT.search(line)
    return CARDS_MIB["a100-40" if found[2] else found[1].lower()] if found else None


def _of_capacity(line: str) -> int | None:
    found = _CAPACITY.search(line)
    if found is None:
        return None
    stated = float(found[1] or found[2] or found[3]) * 1024
    known = [mib for mib in CARDS_MIB.values() if stated <= mib <= stated * (1 + NEARLY)]
    return min(known) if known else round(stated)
