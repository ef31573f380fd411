"""How directions are projected out, as one frozen value; a config that exists is valid."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_type_hints

from trainer_ext.vhack.noise_floor import check_fraction

Mode = Literal["one_sided", "no_gate", "reverse", "route", "measure"]
Form = Literal["gradient", "update"]
Train = Literal["weights", "singular_values"]


@dataclass(frozen=True, kw_only=True)
class VhackConfig:
    """Immutable; construction validates.

    Raises:
        ValueError: a field holds a value that it cannot have; the message names the field and what it takes.
    """

    file: str
    """The safetensors file of directions."""
    k: int = 5
    """Directions a module, the strongest first, before the noise floor."""
    drop_bottom_frac: float = 0.25
    """Share of all (module, axis) pairs, by singular value, that the noise floor drops; 0: none."""
    mode: Mode = "one_sided"
    """What is taken out of a coefficient c: one_sided relu(c); no_gate c; reverse 2 c; route as one_sided, and the part taken
    out trains weights of its own that are removed for deployment; measure nothing."""
    form: Form = "gradient"
    """gradient: before the optimizer's step, which Adam undoes in part; update: the step itself."""
    train: Train = "weights"
    """weights: all of them, as without directions; singular_values: those alone of the modules that the file names, which is
    the adapter that directions are written for."""
    overshoot: float = 1.0
    """Factor of what is taken out; 1.1 turns 10% of it round."""
    preserve_magnitude: bool = False
    """What remains of a module is scaled to the length that it had."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("mode", "form", "train"):
            known, value = get_args(hints[name]), getattr(self, name)
            if value not in known:
                raise ValueError(f"vhack.{name}: must be one of {', '.join(known)}, got {value!r}")
        if not isinstance(self.file, str) or not self.file:
            raise ValueError(
                "vhack.file: names no file of directions; write one with `python -m trainer_ext.vhack extract`, or choose "
                "vhack=generated"
            )
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"vhack.k: must be a whole number of 1 or more, got {self.k!r}")
        if not isinstance(self.preserve_magnitude, bool):
            raise ValueError(f"vhack.preserve_magnitude: must be true or false, got {self.preserve_magnitude!r}")
        for name in ("drop_bottom_frac", "overshoot"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"vhack.{name}: must be a number, got {value!r}")
        try:
            check_fraction(self.drop_bottom_frac)
        except ValueError as error:
            raise ValueError(f"vhack.{error}") from None
        if self.overshoot < 0:
            raise ValueError(f"vhack.overshoot: must be 0 or more, got {self.overshoot}")
        if self.mode == "route" and self.preserve_magnitude:
            raise ValueError(
                "vhack.preserve_magnitude: not with mode route, where nothing is lost that could be made up for"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """
        Raises:
            ValueError: an unknown key, with the nearest valid one, or a bad value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise ValueError(f"vhack.{name}: no such setting; {hint}")
        return cls(**{str(name): value for name, value in values.items()})
