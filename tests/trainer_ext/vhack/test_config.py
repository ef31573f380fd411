"""Settings: what is refused, and by which words."""

from __future__ import annotations

from typing import Any

import pytest

from trainer_ext.vhack import VhackConfig


@pytest.mark.parametrize(("values", "message"), [
    ({"mode": "twosided"}, "vhack.mode: must be one of one_sided, no_gate, reverse, route, measure, got 'twosided'"),
    ({"form": "grad"}, "vhack.form: must be one of gradient, update, got 'grad'"),
    ({"train": "bias"}, "vhack.train: must be one of weights, singular_values, got 'bias'"),
    ({"file": ""}, "vhack.file: names no file of directions"),
    ({"file": None}, "vhack.file: names no file of directions"),
    ({"k": 0}, "vhack.k: must be a whole number of 1 or more, got 0"),
    ({"k": True}, "vhack.k: must be a whole number"),
    ({"drop_bottom_frac": 1.0}, "vhack.drop_bottom_frac: must be at least 0"),
    ({"drop_bottom_frac": "half"}, "vhack.drop_bottom_frac: must be a number"),
    ({"overshoot": -1}, "vhack.overshoot: must be 0 or more"),
    ({"overshoot": float("nan")}, "vhack.overshoot: must be a number"),
    ({"preserve_magnitude": 1}, "vhack.preserve_magnitude: must be true or false"),
    ({"mode": "route", "preserve_magnitude": True}, "vhack.preserve_magnitude: not with mode route"),
    ({"drop_bottom": 0.5}, "vhack.drop_bottom: no such setting; did you mean drop_bottom_frac"),
])  # fmt: skip
def test_refuses_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VhackConfig.from_mapping({"file": "d.safetensors", **values})


def test_the_defaults_are_those_of_the_seed() -> None:
    config = VhackConfig.from_mapping({"file": "d"})
    assert (config.k, config.drop_bottom_frac, config.mode, config.overshoot) == (5, 0.25, "one_sided", 1.0)
