"""Stored factors are the factors that were put in: rounded no more than stated, wherever they lay in between."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from trainer_ext.influence.factors import ModuleFactors
from trainer_ext.influence.storage import (
    FactorStore,
    HostBlocks,
    Placement,
    bytes_per_token,
    goes_to_host,
    half_output_grads,
    half_rows,
)

DIMS = {"q": (6, 5), "up": (4, 16), "down": (3, 2)}
SIZES = (5, 1, 9)
"""Tokens of each micro-batch."""
QWEN_LAYER = {"q": (48, 48), "k": (48, 8), "v": (48, 8), "o": (48, 48), "gate": (48, 280), "up": (48, 280)}
QWEN = {f"{i}.{name}": dims for i in range(28) for name, dims in {**QWEN_LAYER, "down": (280, 48)}.items()}
"""The modules of Qwen2.5-1.5B at factor 32."""


@pytest.mark.parametrize(("input_value", "grad_value"), [(2.0**64, 2.0**64), (1e30, 1e30), (3e38, 3e38)])
def test_a_gradient_that_float32_cannot_hold_is_refused_with_its_module(input_value: float, grad_value: float) -> None:
    store = FactorStore({"q": (1, 2)}, precision="fast")
    batch = store.open(torch.zeros(2, dtype=torch.int64))
    rows = store.round_inputs(torch.tensor([[1.0], [input_value]]))
    store.put(batch, "q", rows, torch.tensor([[1.0, 1.0], [grad_value, 0.0]]))

    with pytest.raises(ValueError, match=r"q: ModuleFactors.output_grads: .* not finite, the first in row 1"):
        next(store.take().items())


def test_bytes_a_token_are_those_stated() -> None:
    assert bytes_per_token(QWEN, half=True) == 2 * 36_064 + 196 + 8 == 72_332
    assert bytes_per_token(QWEN, half=False) == 4 * 36_064 + 8
    assert bytes_per_token(DIMS, half=False, itemsize=8) == 8 * 36 + 8


def _rows(dtype: torch.dtype = torch.float32, sizes: tuple[int, ...] = SIZES) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """By micro-batch and module, inputs and output gradients."""
    random = torch.Generator().manual_seed(0)

    def side(count: int, width: int) -> Tensor:
        return torch.randn(count, width, generator=random, dtype=dtype)

    return [{name: (side(n, a), side(n, b)) for name, (a, b) in DIMS.items()} for n in sizes]


def _fill(store: FactorStore, batches: list[dict[str, tuple[Tensor, Tensor]]]) -> list[bool]:
    """Put everything, the last module first as a backward pass does; where each micro-batch went."""
    on_host = []
    for row, modules in enumerate(batches):
        batch = store.open(torch.full((len(next(iter(modules.values()))[0]),), row))
        for name in reversed(modules):
            inputs, output_grads = modules[name]
            store.put(batch, name, store.round_inputs(inputs), output_grads)
        on_host.append(batch.on_host)
    return on_host


def _room_for(*fits: bool) -> Callable[[torch.device], int]:
    """A device with room for some micro-batches and not for others, in the order in which it is asked."""
    answers: Iterator[bool] = iter(fits)
    return lambda _device: 10**9 if next(answers) else 0


@pytest.mark.parametrize("precision", ["fp32", "fast"])
def test_stored_bytes_are_those_stated(precision: str) -> None:
    store = FactorStore(DIMS, precision=precision, free_bytes=_room_for(True, False, True), reserve_bytes=0)
    _fill(store, _rows())

    stored = store.take()

    each = bytes_per_token(DIMS, half=precision == "fast")
    assert stored.response.nbytes == 8 * 15
    assert stored.held_bytes(on_host=False) == (each - 8) * 14
    assert stored.held_bytes(on_host=True) == (each - 8) * 1


@pytest.mark.parametrize(
    ("placement", "needed", "reserve", "to_host"),
    [
        ("auto", 60, 40, False),
        ("auto", 61, 40, True),
        ("auto", 1, 100, True),
        ("auto", 1, 1000, True),
        ("device", 1000, 1000, False),
        ("host", 0, 0, True),
    ],
)
def test_a_micro_batch_goes_to_the_host_where_the_device_lacks_room(
    placement: Placement, needed: int, reserve: int, to_host: bool
) -> None:
    asked = []

    def free() -> int:
        asked.append(1)
        return 100

    assert goes_to_host(placement, needed, free, reserve) is to_host
    assert bool(asked) == (placement == "auto")


def test_placement_is_decided_for_a_micro_batch_as_a_whole() -> None:
    needed = 9 * bytes_per_token(DIMS, half=False)

    def went_to_host(free: int) -> list[bool]:
        store = FactorStore(DIMS, precision="fp32", free_bytes=lambda _device: free, reserve_bytes=1000)
        return _fill(store, _rows())

    assert went_to_host(needed + 1000) == [False, False, False]
    assert went_to_host(needed + 999) == [False, False, True]


@pytest.mark.parametrize("fits", [(True,) * 3, (False,) * 3, (False, True, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_come_back_in_order_from_wherever_they_were(fits: tuple[bool, ...], dtype: torch.dtype) -> None:
    batches = _rows(dtype)
    store = FactorStore(DIMS, precision="fp32", free_bytes=_room_for(*fits), reserve_bytes=0)
    assert _fill(store, batches) == [not fit for fit in fits]

    stored = store.take()
    modules = dict(stored.items())

    assert list(modules) == list(DIMS)
    for name, factors in modules.items():
        for side, got in enumerate((factors.inputs, factors.output_grads)):
            assert torch.equal(got, torch.cat([batch[name][side] for batch in batches]))
        assert factors.exponent is None
        assert factors.response is stored.response
    assert stored.response.tolist() == [0] * 5 + [1] + [2] * 9


@pytest.mark.parametrize("fits", [(True,) * 3, (False, True, False)])
def test_rounded_factors_are_those_of_the_rounding_functions(fits: tuple[bool, ...]) -> None:
    batches = _rows()
    store = FactorStore(DIMS, precision="fast", free_bytes=_room_for(*fits), reserve_bytes=0)
    _fill(store, batches)

    for name, factors in store.take().items():
        inputs, output_grads = (torch.cat([batch[name][side] for batch in batches]) for side in (0, 1))
        expected_inputs, exponent = half_rows(inputs)
        expected_grads, exponent = half_output_grads(output_grads, exponent)
        assert torch.equal(factors.inputs, expected_inputs)
        assert torch.equal(factors.output_grads, expected_grads)
        assert torch.equal(factors.exponent, exponent)  # type: ignore[arg-type]
        exact = output_grads.double()[:, :, None] * inputs.double()[:, None, :]
        restored = factors.output_grads.double()[:, :, None] * factors.inputs.double()[:, None, :]
        error = (restored.flatten(1) * torch.exp2(exponent.double())[:, None] - exact.flatten(1)).abs().amax(dim=1)
        assert (error <= 1.01 * 2.0**-10 * exact.flatten(1).abs().amax(dim=1)).all()


@pytest.mark.parametrize("precision", ["fp32", "fast"])
@pytest.mark.parametrize("placement", ["device", "host"])
def test_a_module_without_rows_in_a_micro_batch_has_zeros_there(precision: str, placement: Placement) -> None:
    batches = _rows()
    del batches[0]["up"], batches[2]["up"], batches[0]["down"], batches[1]["down"], batches[2]["down"]
    store = FactorStore(DIMS, precision=precision, placement=placement)
    _fill(store, batches)

    modules = dict(store.take().items())

    assert list(modules) == ["q", "up"]
    up = modules["up"]
    there = torch.tensor([False] * 5 + [True] + [False] * 9)
    assert (up.tokens, up.k_in, up.k_out) == (15, 4, 16)
    for side in (up.inputs, up.output_grads):
        assert torch.equal((side != 0).any(dim=1), there)
    if precision == "fast":
        assert up.exponent is not None
        assert torch.equal(up.exponent == -128, ~there)


@pytest.mark.parametrize(("placement", "ahead"), [("device", 0), ("host", 1)])
def test_reading_drops_what_it_hands_out(placement: Placement, ahead: int) -> None:
    store = FactorStore(DIMS, precision="fp32", placement=placement)
    _fill(store, _rows())
    stored, on_host = store.take(), placement == "host"
    sizes = [4 * 15 * sum(sides) for sides in DIMS.values()]
    assert stored.held_bytes(on_host=on_host) == sum(sizes)

    held, alive = [], []
    for _, factors in stored.items():
        alive.append(weakref.ref(factors.inputs))
        del factors
        held.append(stored.held_bytes(on_host=on_host))
        assert alive[-1]() is None

    assert held == [sum(sizes[i + 1 + ahead :]) for i in range(3)]


def test_a_single_micro_batch_on_the_device_is_not_copied() -> None:
    store = FactorStore(DIMS, precision="fp32", placement="device")
    batches = _rows(sizes=(4,))
    _fill(store, batches)

    for name, factors in store.take().items():
        assert factors.inputs is batches[0][name][0]


def test_factors_are_read_once() -> None:
    store = FactorStore(DIMS)
    _fill(store, _rows())
    stored = store.take()
    assert len(list(stored.items())) == 3

    with pytest.raises(RuntimeError, match=r"read only once, and items\(\) was called before"):
        stored.items()


def test_names_and_dims_are_known_before_and_after_reading() -> None:
    batches = _rows()
    for batch in batches:
        del batch["up"]
    store = FactorStore(DIMS)
    _fill(store, batches)
    stored = store.take()

    def known() -> tuple[int, list[str], dict[str, tuple[int, int]], int]:
        return len(stored), list(stored.keys()), stored.dims(), len(stored.response)

    before = known()
    dict(stored.items())

    assert before == known() == (2, ["q", "down"], {"q": (6, 5), "down": (3, 2)}, 15)


def test_a_store_starts_anew_after_it_was_taken_from() -> None:
    store = FactorStore(DIMS)
    _fill(store, _rows())
    first = store.take()
    _fill(store, _rows(sizes=(2,)))
    second = store.take()

    assert {factors.tokens for _, factors in first.items()} == {15}
    assert {factors.tokens for _, factors in second.items()} == {2}
    assert len(store.take().response) == 0


def test_without_tokens_every_module_is_empty() -> None:
    store = FactorStore(DIMS, precision="fast")
    store.open(torch.empty(0, dtype=torch.int64))

    modules = dict(store.take().items())

    assert {name: (f.tokens, f.k_in, f.k_out) for name, f in modules.items()} == {
        name: (0, *sides) for name, sides in DIMS.items()
    }


@pytest.mark.parametrize("precision", ["fp32", "fast"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", ["inputs", "output_grads"])
def test_a_value_that_is_not_finite_is_refused_with_its_module(precision: str, value: float, side: str) -> None:
    batches = _rows()
    batches[1]["up"][side == "output_grads"][0, 2] = value
    store = FactorStore(DIMS, precision=precision)
    _fill(store, batches)

    items = store.take().items()
    assert isinstance(next(items)[1], ModuleFactors)
    with pytest.raises(ValueError, match=rf"up: ModuleFactors.{side}: .* not finite, the first in row 5"):
        next(items)


def _blocks(block_bytes: int) -> tuple[HostBlocks, list[int]]:
    sizes: list[int] = []

    def allocate(size: int) -> Tensor:
        sizes.append(size)
        return torch.empty(size, dtype=torch.uint8)

    return HostBlocks(allocate, block_bytes), sizes


def test_blocks_hold_many_tensors_without_overlap() -> None:
    blocks, sizes = _blocks(4096)
    wanted = [
        torch.full((n, k), n, dtype=dtype) for n in range(1, 30) for k, dtype in ((7, torch.half), (1, torch.int8))
    ]

    copies = [blocks.empty_like(tensor).copy_(tensor) for tensor in wanted]

    assert all(torch.equal(copy, tensor) for copy, tensor in zip(copies, wanted, strict=True))
    assert all(copy.data_ptr() % 64 == copies[0].data_ptr() % 64 for copy in copies)
    assert set(sizes) == {4096}


def test_host_memory_is_what_a_token_takes_and_less_than_a_block() -> None:
    blocks, sizes = _blocks(2**20)
    tokens, micro_batches = 64, 5
    for _ in range(micro_batches):
        for k_in, k_out in QWEN.values():
            for width, dtype in ((k_in, torch.half), (k_out, torch.half)):
                blocks.empty_like(torch.empty(tokens, width, dtype=dtype))
            blocks.empty_like(torch.empty(tokens, dtype=torch.int8))

    stated = tokens * micro_batches * (bytes_per_token(QWEN, half=True) - 8)
    assert stated <= sum(sizes) <= stated + 2**20


def test_a_tensor_larger_than_a_block_gets_a_power_of_two_whose_rest_is_used() -> None:
    blocks, sizes = _blocks(1024)

    large = blocks.empty_like(torch.empty(3000, dtype=torch.uint8))
    small = blocks.empty_like(torch.empty(1000, dtype=torch.uint8))

    assert sizes == [4096]
    assert small.data_ptr() - large.data_ptr() == 3008


def test_a_block_goes_with_its_last_tensor() -> None:
    blocks, _ = _blocks(256)
    first, last = (blocks.empty_like(torch.empty(128, dtype=torch.uint8)) for _ in range(2))
    block = StorageWeakRef(first.untyped_storage())
    del first
    assert not block.expired()
    del last
    assert block.expired()


def test_a_host_without_memory_is_an_error_that_says_what_to_do() -> None:
    def refuse(_size: int) -> Tensor:
        raise RuntimeError("CUDA error: out of memory")

    with pytest.raises(
        RuntimeError, match=r"no further 256 MiB of host memory \(CUDA error.*raise projection_dim_factor"
    ):
        HostBlocks(refuse).empty_like(torch.empty(1))
