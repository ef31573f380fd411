"""The restated formulas of the trace beside their sources in the engine."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from orchestrator.preflight import influence
from orchestrator.preflight.influence import GroupSize, TraceSettings, layer_sides, workspace_bytes
from orchestrator.preflight.models import KNOWN
from trainer_ext.influence import InfluenceConfig
from trainer_ext.influence.layout import Group, Layout
from trainer_ext.influence.pairs import padded_pairs
from trainer_ext.influence.projection import projection_dims
from trainer_ext.influence.storage import RESERVE_BYTES, bytes_per_token
from trainer_ext.influence.workspace import workspace_bytes as engine_workspace_bytes

SIDES = st.tuples(st.integers(1, 400), st.integers(1, 400))


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 600), st.sampled_from([-1, 0, 1, 50, 384, 5000]))
def test_projected_sides_are_the_engines(in_features: int, out_features: int, factor: int, cap: int) -> None:
    config = InfluenceConfig(projection_dim_factor=factor, max_hessian_dim=cap)
    ours = influence.projection_sides(in_features, out_features, factor, cap)
    assert ours == projection_dims(in_features, out_features, config)


@given(st.lists(SIDES, max_size=8), st.booleans(), st.sampled_from([4, 8]))
def test_bytes_of_a_token_are_the_stores(sides: list[tuple[int, int]], half: bool, itemsize: int) -> None:
    dims = {str(n): pair for n, pair in enumerate(sides)}
    assert influence.bytes_per_token(sides, half, itemsize) == bytes_per_token(dims, half, itemsize)


@given(st.integers(1, 2000))
def test_pair_features_are_the_engines(k: int) -> None:
    assert influence.padded_pairs(k) == padded_pairs(k)


def test_the_reserve_on_the_card_is_the_stores() -> None:
    assert influence.RESERVE_BYTES == RESERVE_BYTES


def test_the_modules_of_the_reports_come_out() -> None:
    """Qwen2.5-1.5B at factor 32: D of 2,304, 384 and 13,440, and 72,332 bytes a token."""
    sides = layer_sides(KNOWN["qwen2.5-1.5b"], TraceSettings(factor=32))
    assert [k_in * k_out for k_in, k_out in sides] == [2304, 384, 384, 2304, 13440, 13440, 13440]
    assert influence.bytes_per_token(sides * 28, half=True) == 72_332


def _layout(groups: list[GroupSize], device: str) -> Layout:
    """The engine's own description of groups of these sizes; nothing is allocated."""
    made, tokens, responses = [], 0, 0
    for group in groups:
        size = int(group.tokens)
        omega = torch.ones(group.directions, group.responses)
        place = slice(responses, responses + group.responses)
        made.append(Group(slice(tokens, tokens + size), size, place, omega))
        tokens, responses = tokens + size, responses + group.responses
    spans = tuple((0, int(group.tokens / group.responses)) for group in groups for _ in range(group.responses))
    return Layout(None, spans, tuple(made), tokens, torch.device(device))


MODULES = [(48, 48), (48, 280), (280, 48), (24, 140), (64, 64)]
"""Whose workspace can be the largest of a model; that of smaller ones never is."""
BATCHES = {
    "all_selected": [GroupSize(733_870, 96, 96)],
    "one direction": [GroupSize(733_870, 96, 1)],
    "per_prompt": [GroupSize(122_311, 16, 16)] * 6,
    "short": [GroupSize(2_000, 16, 16)] * 4,
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("sides", MODULES, ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"hessian_mode": "identity"},
        {"hessian_source": "token", "solver": "direct"},
        {"hessian_source": "token", "solver": "pcg"},
        {"hessian_source": "response", "solver": "dual"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_workspace_is_the_engines_within_a_half(
    settings: dict[str, str], sides: tuple[int, int], batch: str, device: str
) -> None:
    """The engine's own count moves with every tuning of its chunks; here it is enough to be near it."""
    groups = BATCHES[batch]
    precision = "fast" if device == "cuda" else "fp32"
    trace = TraceSettings.of(settings)
    assert trace is not None
    ours = workspace_bytes(sides, groups, trace, cuda=device == "cuda", precision=precision)
    routes = [] if trace.mode == "identity" else [settings["solver"]] * len(groups)
    config = InfluenceConfig.from_mapping(settings)
    theirs = engine_workspace_bytes(sides, _layout(groups, device), routes, config, precision)  # type: ignore[arg-type]
    assert theirs / 1.5 <= ours <= 1.5 * theirs


def test_settings_come_from_the_configuration_and_its_defaults_are_the_engines() -> None:
    ours, theirs = TraceSettings(), InfluenceConfig()
    assert (ours.mode, ours.source, ours.scope) == (theirs.hessian_mode, theirs.hessian_source, theirs.scope)
    assert (ours.factor, ours.max_dim, ours.max_tokens) == (
        theirs.projection_dim_factor,
        theirs.max_hessian_dim,
        theirs.max_tokens_per_response,
    )
    assert (ours.solver, ours.precision, ours.modules) == (theirs.solver, theirs.precision, theirs.target_modules)
    assert TraceSettings.of({"enable": False}) is None
    read = TraceSettings.of({"scope": "all_selected", "projection_dim_factor": 32, "target_modules": ["q_proj"]})
    assert read == TraceSettings(scope="all_selected", factor=32, modules=("q_proj",))


def test_groups_are_prompts_or_everything_on_the_rank() -> None:
    per_prompt = influence.groups(TraceSettings(excludes_self=True), 960.0, 96, 16)
    assert per_prompt == [GroupSize(160.0, 16, 16)] * 6
    assert influence.groups(TraceSettings(scope="all_selected"), 960.0, 96, 16) == [GroupSize(960.0, 96, 1)]
    assert influence.groups(TraceSettings(), 10.0, 4, 16) == [GroupSize(10.0, 4, 1)]
