"""Storage on a GPU: hooks wait for nothing, and rows come back from pinned memory bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from trainer_ext.influence.capture import LinearCapture
from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.factors import ModuleFactors
from trainer_ext.influence.picked_rows import PickedRows
from trainer_ext.influence.projection import JointProjection, Projection
from trainer_ext.influence.storage import (
    FactorStore,
    Placement,
    StoredBatch,
    free_device_bytes,
    half_output_grads,
    half_rows,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

MODULES = ("q_proj", "up_proj", "down_proj")
TOKENS = 40
LONG_WAIT = 200_000_000
"""Clock cycles, some 0.1 s: what is not ordered by an event comes before them."""


class Chain(nn.Module):
    """Three linear modules, one after another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q_proj = nn.Linear(64, 48, bias=False)
        self.up_proj = nn.Linear(48, 96, bias=False)
        self.down_proj = nn.Linear(96, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.down_proj(torch.tanh(self.up_proj(torch.tanh(self.q_proj(x)))))
        return hidden


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _passes(model: Chain, capture: LinearCapture, count: int = 3) -> None:
    """Micro-batches with positions on the CPU, as the trainer plugin has them; none may wait for the device."""
    for row in range(count):
        random = torch.Generator(device="cuda").manual_seed(row)
        x = torch.randn(2, TOKENS, 64, generator=random, device="cuda")
        capture.select(torch.arange(row, 2 * TOKENS, 2), torch.full((len(range(row, 2 * TOKENS, 2)),), row))
        with _waiting_is_an_error():
            model(x).square().sum().backward()


def _captured(placement: Placement, precision: str, reserve_bytes: int = 0) -> dict[str, ModuleFactors]:
    model = Chain().cuda()
    config = InfluenceConfig(projection_dim_factor=4, precision=precision)  # type: ignore[arg-type]
    with LinearCapture(model, config, placement=placement, reserve_bytes=reserve_bytes) as capture:
        capture.select(torch.tensor([0]), torch.tensor([0]))
        model(torch.ones(1, 1, 64, device="cuda")).sum().backward()  # brings the projections to the device
        capture.take()
        _passes(model, capture)
        return capture.pop()


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_hooks_never_wait_and_placement_changes_no_bit(precision: str) -> None:
    everything_reserved = 2**62
    device, host, full = (
        _captured("device", precision),
        _captured("host", precision),
        _captured("auto", precision, everything_reserved),
    )

    assert list(device) == list(host) == list(full) == list(MODULES)
    for name in MODULES:
        for other in (host[name], full[name]):
            assert other.inputs.device.type == other.response.device.type == "cuda"
            assert other.inputs.dtype == (torch.float16 if precision == "auto" else torch.float32)
            assert torch.equal(device[name].inputs, other.inputs)
            assert torch.equal(device[name].output_grads, other.output_grads)
            assert torch.equal(device[name].response, other.response)
            expected, exponent = device[name].exponent, other.exponent
            assert (expected is None) == (exponent is None) == (precision == "fp32")
            assert expected is None or exponent is None or torch.equal(expected, exponent)
        assert device[name].response.tolist() == [0] * 40 + [1] * 40 + [2] * 39


def test_rounding_on_the_device_is_that_of_the_cpu_and_waits_for_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(4096, 33, generator=random) * (8 * torch.randn(4096, 1, generator=random)).exp()
    rows[0] = 0
    rows[1], rows[2], rows[3] = 2.0**-149, 1e-39, 1e38
    rows[4, 0], rows[5, 1], rows[6, 2] = torch.nan, torch.inf, -torch.inf
    moved = rows.cuda()
    with _waiting_is_an_error():
        inputs, input_exponent = half_rows(moved)
        output_grads, exponent = half_output_grads(moved, input_exponent)

    expected_inputs, expected_input_exponent = half_rows(rows)
    expected_grads, expected = half_output_grads(rows, expected_input_exponent)
    finite = rows.isfinite().all(dim=1)
    assert torch.equal(input_exponent.cpu()[finite], expected_input_exponent[finite])
    assert torch.equal(exponent.cpu()[finite], expected[finite])
    for ours, theirs in ((inputs.cpu(), expected_inputs), (output_grads.cpu(), expected_grads)):
        torch.testing.assert_close(ours[finite], theirs[finite], rtol=0, atol=0, equal_nan=True)
        assert not ours[~rows.isfinite()].isfinite().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wanted", [slice(100, 190), slice(10, 1000)])
@pytest.mark.parametrize("weights", [None, torch.float32, torch.bfloat16])
def test_one_kernel_takes_the_rows_of_a_product_like_plain_operations(
    dtype: torch.dtype, wanted: slice, weights: torch.dtype | None
) -> None:
    parts = [Projection(96, k, seed=0, module=str(k), side="in") for k in (48, 8, 96, 3)]
    rows = torch.randn(1024, 96, device="cuda").to(dtype)
    positions = torch.randperm(1024, device="cuda")[wanted]
    factors = None if weights is None else torch.linspace(-2, 3, len(positions), device="cuda", dtype=weights)
    joint = JointProjection(parts)
    joint(rows, positions)  # brings the signs there
    for picked in (part.weighed(factors) for part in joint(rows, positions)):
        with _waiting_is_an_error():
            inputs, input_exponent = half_rows(picked)
            output_grads, exponent = half_output_grads(picked, input_exponent)

        on_cpu = PickedRows(*(x.cpu() if isinstance(x, Tensor) else x for x in picked))
        expected_inputs, expected_input_exponent = half_rows(on_cpu)
        expected_grads, expected = half_output_grads(on_cpu, expected_input_exponent)
        assert torch.equal(inputs.cpu(), expected_inputs)
        assert torch.equal(input_exponent.cpu(), expected_input_exponent)
        assert torch.equal(output_grads.cpu(), expected_grads)
        assert torch.equal(exponent.cpu(), expected)
        for found, plain in zip((inputs, input_exponent), half_rows(picked.values()), strict=True):
            assert torch.equal(found, plain)


def _put(store: FactorStore, tokens: int) -> tuple[StoredBatch, Tensor]:
    """One micro-batch of rows that the device has still to compute when they are put."""
    batch = store.open(torch.zeros(tokens, dtype=torch.int64))
    expected = torch.arange(tokens * 64, device="cuda", dtype=torch.float32).reshape(tokens, 64) % 8191
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG_WAIT)
    rows = expected + 0
    with _waiting_is_an_error():
        store.put(batch, "q", store.round_inputs(rows), rows + 1)
    return batch, expected


@pytest.mark.parametrize("precision", ["fp32", "fast"])
@pytest.mark.parametrize(("placement", "free"), [("host", 2**40), ("auto", 0)])
def test_rows_on_the_host_are_pinned(precision: str, placement: Placement, free: int) -> None:
    store = FactorStore({"q": (64, 64)}, precision=precision, placement=placement, free_bytes=lambda _device: free)
    batch, _ = _put(store, 8)

    assert batch.on_host
    assert len(batch.chunks["q"]) == (3 if precision == "fast" else 2)
    assert all(rows.device.type == "cpu" and rows.is_pinned() for rows in batch.chunks["q"])


@pytest.mark.parametrize(("placement", "free"), [("device", 0), ("auto", 2**40)])
def test_rows_on_the_device_stay_there(placement: Placement, free: int) -> None:
    store = FactorStore({"q": (64, 64)}, placement=placement, free_bytes=lambda _device: free)
    batch, _ = _put(store, 8)

    assert not batch.on_host
    assert all(rows.is_cuda for rows in batch.chunks["q"])


@pytest.mark.parametrize("device", [None, "cuda", "cpu"])
@pytest.mark.parametrize("batches", [1, 2])
def test_copies_follow_the_computation_and_reading_follows_the_copies(device: str | None, batches: int) -> None:
    store = FactorStore({"q": (64, 64)}, precision="fp32", placement="host")
    expected = torch.cat([_put(store, 40_000)[1] for _ in range(batches)])

    _, factors = next(store.take(device).items())

    assert factors.inputs.device.type == (device or "cuda")
    assert torch.equal(factors.inputs, expected.to(factors.inputs.device))
    assert torch.equal(factors.output_grads, expected.to(factors.inputs.device) + 1)


def test_memory_is_not_used_anew_before_its_rows_were_copied() -> None:
    store = FactorStore({"q": (64, 64)}, precision="fp32", placement="host")
    _, expected = _put(store, 200_000)
    overwriting = [torch.full_like(expected, -1.0) for _ in range(4)]

    _, factors = next(store.take().items())

    assert torch.equal(factors.inputs, expected)
    assert len(overwriting) == 4


@pytest.mark.parametrize("placement", ["device", "host"])
def test_factors_can_be_read_on_another_stream(placement: Placement) -> None:
    store = FactorStore({"q": (64, 64)}, precision="fp32", placement=placement)
    expected = torch.cat([_put(store, 40_000)[1] for _ in range(2)])
    stored = store.take()

    with torch.cuda.stream(torch.cuda.Stream()):
        _, factors = next(stored.items())
        assert torch.equal(factors.inputs, expected)


def test_two_modules_are_on_the_device_at_a_time() -> None:
    names = [f"m{i}" for i in range(8)]
    store = FactorStore(dict.fromkeys(names, (64, 64)), precision="fp32", placement="host")
    tokens = 8192
    for _ in range(2):
        batch = store.open(torch.zeros(tokens, dtype=torch.int64))
        for name in names:
            rows = torch.randn(tokens, 64, device="cuda")
            store.put(batch, name, store.round_inputs(rows), rows)
        del rows
    stored = store.take()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # lets go of rows that waited for their copies
    before, held = torch.cuda.memory_allocated(), []

    for _, factors in stored.items():
        held.append(torch.cuda.memory_allocated() - before)
        del factors

    module = 2 * tokens * (64 + 64) * 4
    counts = 8 * 2 * 512  # of values that are not finite, one for each side of a module, looked at in the end
    for found, rows in zip(held, [2 * module] * 7 + [module], strict=True):
        assert rows <= found <= rows + counts


def test_reading_may_end_early() -> None:
    names = [f"m{i}" for i in range(4)]
    store = FactorStore(dict.fromkeys(names, (64, 64)), precision="fp32", placement="host")
    batches = [store.open(torch.zeros(100_000, dtype=torch.int64)) for _ in range(2)]
    for batch in batches:
        for name in names:
            rows = torch.ones(100_000, 64, device="cuda")
            store.put(batch, name, store.round_inputs(rows), rows)
    reading = store.take().items()
    next(reading)
    del reading

    others = [torch.full((200_000, 64), 7.0, device="cuda") for _ in range(4)]

    torch.cuda.synchronize()
    assert all(bool((other == 7).all()) for other in others)


def test_free_bytes_count_what_the_allocator_holds_unused() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.empty_cache()
    before = free_device_bytes(device)
    block = torch.empty(2**28, dtype=torch.uint8, device=device)
    used = free_device_bytes(device)
    del block

    assert before - used == pytest.approx(2**28, abs=2**24)
    assert free_device_bytes(device) - used == pytest.approx(2**28, abs=2**24)
    assert 0 < before <= torch.cuda.get_device_properties(device).total_memory
