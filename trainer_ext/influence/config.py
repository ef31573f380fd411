"""Every choice that decides an influence score, as one frozen value.

A typo in a sweep must never fall back to a default in silence: unknown keys and values are refused by name, with the
nearest valid one, and a config that exists is valid. The symbols (H, D, lambda, Omega) are those of `scoring.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class InfluenceConfig:
    """What to score and how. Immutable; construction validates.

    Raises:
        ValueError: a field holds a value that it cannot have; the message names the field and what it takes.
    """

    hessian_mode: Literal["identity", "inverse"] = "inverse"
    """identity: plain dot products (H = I); inverse: preconditioned by the damped inverse Hessian."""
    hessian_source: Literal["token", "response"] = "token"
    """Whose gradients H sums over: one outer product per token, or one per response. Unused with identity."""
    scope: Literal["per_prompt", "all_selected", "global"] = "per_prompt"
    """Who is contrasted with whom: the responses of one prompt, all responses on this rank as one group, or all
    responses of all ranks as one group with one Hessian (`distributed.py`)."""
    contrastive_agg: Literal["sum", "mean", "advantage"] = "mean"
    """Weight of a response in the contrast: +1/-1, +1/n_accepted and -1/n_rejected, or its advantage."""
    exclude_self_response: bool = False
    """Leave a token's own response out of the contrast that the token is scored against."""
    leave_one_out: Literal["keep", "renorm", "auto"] = "auto"
    """What leaving one out does to a mean: keep divides by n still, renorm by n - 1; auto is renorm with inverse,
    else keep."""
    true_loo: bool = False
    """Leave the own response's tokens out of the Hessian too, not only out of the direction; needs
    `exclude_self_response` and hessian_mode inverse."""
    token_unit_norm: bool = False
    """identity: every token's gradient has unit length, in directions too. inverse: a token's score is divided by
    sqrt(g^T H^-1 g), its length in the metric of the inverse Hessian; directions and Hessian keep raw gradients."""
    reg_lambda: float = -1.0
    """Damping added to H; zero or less: 0.1 * trace(H) / D, per module and group."""
    max_hessian_dim: int = -1
    """Cap on D = k_in * k_out; zero or less: none. The larger side shrinks first."""
    projection_dim_factor: int = 512
    """Each side is projected from `dim` down to max(1, dim // factor); 1 keeps the activations as they are."""
    max_tokens_per_response: int = -1
    """Score only the first n tokens of each response; -1: all."""
    output_function: Literal["training_loss", "log_prob_reward", "log_prob_advantage"] = "training_loss"
    """The scalar whose gradient is captured; read by the trainer plugin."""
    skip_optimizer_step: bool = False
    """Score without training on the batch; read by the trainer plugin."""
    solver: Literal["auto", "direct", "dual", "pcg"] = "auto"
    """Route of the inverse mode: direct factors the D x D Hessian, dual the N x N Gram of its N rows, pcg iterates with
    the Hessian applied through its rows; auto: what the device's cost model predicts to be fastest (`cost.py`)."""
    precision: Literal["auto", "fp64", "fp32", "fast"] = "auto"
    """fp64: everything in float64. fp32: float32 factors, answers refined until the float64 residual is small. fast:
    factors rounded to float16 with a power of two a token, products on the tensor cores. auto: fast on a GPU, fp32 on
    a CPU."""
    residual_tolerance: float = -1.0
    """Largest |W H - d| / |d| that a solution may keep; zero or less: that of the precision (`precision.py`)."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """An `nn.Linear` takes part when its dotted name contains one of these."""
    seed: int = 0
    """Seed of the projections."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint))
        if self.projection_dim_factor < 1:
            raise ValueError(f"projection_dim_factor: must be 1 or more, got {self.projection_dim_factor}")
        if self.max_tokens_per_response != -1 and self.max_tokens_per_response < 1:
            raise ValueError(
                f"max_tokens_per_response: must be -1 (all tokens) or 1 or more, got {self.max_tokens_per_response}"
            )
        if not math.isfinite(self.reg_lambda):
            raise ValueError(f"reg_lambda: must be finite, got {self.reg_lambda}")
        if not self.residual_tolerance < 1:
            raise ValueError(f"residual_tolerance: must be below 1, got {self.residual_tolerance}")
        if self.true_loo and not (self.exclude_self_response and self.hessian_mode == "inverse"):
            raise ValueError("true_loo: needs exclude_self_response=true and hessian_mode=inverse")
        if self.token_unit_norm and self.hessian_mode == "inverse" and self.solver == "pcg":
            raise ValueError(
                "token_unit_norm: with hessian_mode=inverse every token needs H^-1 itself, which solver=pcg never "
                "forms; set solver to auto, direct or dual"
            )
        if not self.target_modules or "" in self.target_modules:
            raise ValueError("target_modules: needs at least one name, none of them empty")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from a plain or OmegaConf mapping; keys left out keep their defaults.

        Raises:
            ValueError: a key that does not exist (the message names the nearest one), or a bad value.
        """
        valid = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in valid:
                raise ValueError(f"influence config has no key {key!r}; {_suggest(str(key), valid)}")
        return cls(**{str(key): value for key, value in values.items()})

    @property
    def renormalises(self) -> bool:
        """Whether leaving a response out of a mean divides by n - 1; `auto` resolved."""
        if self.leave_one_out == "auto":
            return self.hessian_mode == "inverse" and self.contrastive_agg == "mean"
        return self.leave_one_out == "renorm"


def _suggest(word: str, valid: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(word, valid, n=1, cutoff=0.4)
    return f"did you mean {nearest[0]!r}?" if nearest else f"valid keys: {', '.join(valid)}"


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value in the type of its field (an int becomes a float, a list a tuple, where those are meant)."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name}: {value!r} is not one of {', '.join(get_args(hint))}")
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) is tuple and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        names = tuple(value)
        if all(isinstance(item, str) for item in names):
            return names
    expected = "a list of strings" if get_origin(hint) is tuple else f"of type {hint.__name__}"
    raise ValueError(f"{name}: {value!r} is not {expected}")
