"""The noise floor against a plain NumPy reading of what it is to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer_ext.vhack.noise_floor import noise_floor, quantile


def plain_reading(singular: dict[str, np.ndarray], frac: float) -> tuple[float, dict[str, np.ndarray]]:
    """Collect every S_i across every module, take the global quantile, drop any (module, axis) where S_i is below it."""
    threshold = float(np.quantile(np.concatenate([s.astype(np.float64) for s in singular.values()]), frac))
    return threshold, {name: s.astype(np.float64) >= threshold for name, s in singular.items()}


@pytest.mark.parametrize("frac", [0.01, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(4))
def test_keeps_what_the_plain_reading_keeps(frac: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    singular = {f"m{i}": (draw.lognormal(0, 2, draw.integers(1, 7))).astype(np.float32) for i in range(9)}
    threshold, keep = noise_floor({name: torch.from_numpy(s) for name, s in singular.items()}, frac)
    expected, kept = plain_reading(singular, frac)
    assert threshold == pytest.approx(expected, rel=1e-12)
    assert {name: mask.tolist() for name, mask in keep.items()} == {name: mask.tolist() for name, mask in kept.items()}


def test_is_one_threshold_for_all_modules_so_that_a_weak_module_loses_every_axis() -> None:
    threshold, keep = noise_floor({"weak": torch.tensor([0.2, 0.1]), "strong": torch.tensor([9.0, 3.0])}, 0.5)
    assert threshold == pytest.approx(1.6)
    assert (keep["weak"].tolist(), keep["strong"].tolist()) == ([False, False], [True, True])


def test_an_axis_at_the_threshold_stays() -> None:
    _, keep = noise_floor({"m": torch.tensor([3.0, 2.0, 1.0])}, 0.5)
    assert keep["m"].tolist() == [True, True, False]


@pytest.mark.parametrize("percent", [7, 14, 28, 55, 56, 57, 29])
def test_a_place_that_is_a_whole_number_is_that_axis_however_its_product_rounds(percent: int) -> None:
    threshold, keep = noise_floor({"m": torch.arange(101.0)}, percent / 100)
    assert threshold == percent
    assert int(keep["m"].sum()) == 101 - percent


def test_an_axis_at_the_threshold_stays_in_float64_too() -> None:
    _, keep = noise_floor({"m": torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64)}, 0.5)
    assert keep["m"].tolist() == [True, True, False]


def test_zero_filters_nothing_not_even_axes_of_strength_zero() -> None:
    threshold, keep = noise_floor({"m": torch.tensor([1.0, 0.0]), "n": torch.zeros(2)}, 0)
    assert threshold is None
    assert all(bool(mask.all()) for mask in keep.values())


@pytest.mark.parametrize("frac", [1.0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_that_drops_everything_or_makes_no_sense_is_an_error(frac: float) -> None:
    with pytest.raises(ValueError, match="drop_bottom_frac: must be at least 0"):
        noise_floor({"m": torch.ones(2)}, frac)


def test_takes_more_values_than_torch_quantile_does() -> None:
    values = torch.arange(2**24 + 1, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values, 0.25)
    threshold, keep = noise_floor({"m": values[1::2], "n": values[::2]}, 0.25)
    assert threshold == 2**22
    assert sum(int(mask.sum()) for mask in keep.values()) == 3 * 2**22 + 1


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 1.0), (1.0, 4.0), (0.5, 2.5), (1 / 3, 2.0)])
def test_quantile_reaches_both_ends_and_interpolates(fraction: float, expected: float) -> None:
    assert quantile(torch.tensor([4.0, 1.0, 3.0, 2.0]), fraction) == pytest.approx(expected)


def test_quantile_of_nothing_or_of_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile(torch.zeros(0), 0.5)
    with pytest.raises(ValueError, match="NaN"):
        quantile(torch.tensor([1.0, float("nan")]), 0.5)
