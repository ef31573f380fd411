"""Which card a log or a scheduler names."""

from __future__ import annotations

import io

import pytest

from orchestrator.collect.card import CARDS_MIB, card_of_pool
from orchestrator.collect.console import parse_console

TABLE = "| N/A   34C    P0    76W / 700W |      4MiB / 143771MiB |      0%      Default |"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.69 GiB. GPU 3 has a total capacity of 79.11 GiB of which"


def card_in(*lines: str) -> int | None:
    return parse_console(io.BytesIO(("\n".join(lines) + "\n").encode()), find_card=True).card_mib


@pytest.mark.parametrize(
    ("line", "mib"),
    [
        (TABLE, 143_771),
        ("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)", CARDS_MIB["h100"]),
        ("device: NVIDIA A100-SXM4-80GB", CARDS_MIB["a100"]),
        ("device: NVIDIA A100-SXM4-40GB", CARDS_MIB["a100-40"]),
        ("device: NVIDIA H200", CARDS_MIB["h200"]),
        (OOM, CARDS_MIB["h100"]),
        (
            "CUDA out of memory. Tried to allocate 1 GiB (GPU 0; 79.15 GiB total capacity; 77 GiB already",
            CARDS_MIB["h100"],
        ),
        ("ValueError: Free memory on device (67.24/79.25 GiB) on startup is less than desired", CARDS_MIB["h100"]),
        ("CUDA out of memory. Tried to allocate 1 GiB. GPU 0 has a total capacity of 23.69 GiB of which", 24_259),
        ("NVIDIA driver 570", None),
        ("step:1 - perf/max_memory_allocated_gb:170.0", None),
    ],
)
def test_each_form_names_the_card(line: str, mib: int | None) -> None:
    assert card_in("loading", line) == mib


def test_the_surest_place_wins_wherever_it_stands() -> None:
    assert card_in(OOM, "NVIDIA H200", TABLE.replace("143771", "141000")) == 141_000
    assert card_in(TABLE, OOM) == 143_771


def test_nobody_looks_unless_asked() -> None:
    assert parse_console(io.BytesIO(TABLE.encode())).card_mib is None


@pytest.mark.parametrize(
    ("pool", "card"),
    [
        ("h200", "h200"),
        ("dgx-h100-80g", "h100"),
        ("H200_spot", "h200"),
        ("a100-40", "a100-40"),
        ("sh200", None),
        ("cpu", None),
    ],
)
def test_a_pool_may_be_named_after_its_card(pool: str, card: str | None) -> None:
    assert card_of_pool(pool) == (CARDS_MIB[card] if card else None)
