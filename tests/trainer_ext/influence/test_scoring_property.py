"""Any small batch at all: the float64 engine gives what the definition gives."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer_ext.influence.against_truth import Options, name, score, truth
from tests.truth.cases import Case


@st.composite
def batches(draw: st.DrawFn) -> Case:
    """Up to 8 responses of up to 4 prompts and up to 30 tokens; now and then tokens of no or of great length."""
    count, tokens = draw(st.integers(1, 8)), draw(st.integers(0, 30))
    k_in, k_out = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    length = draw(st.sampled_from([[1.0], [0.0, 1.0], [1e-3, 1.0, 1e3]]))
    return Case(
        inputs=rng.normal(size=(tokens, k_in)) + draw(st.sampled_from([0.0, 10.0])),
        output_grads=rng.normal(size=(tokens, k_out)) * rng.choice(length, size=(tokens, 1)),
        response=rng.integers(0, count, size=tokens),
        group=rng.integers(-1, draw(st.integers(0, 3)), size=count),
        accepted=rng.random(count) < draw(st.sampled_from([0.2, 0.5, 1.0])),
        advantage=rng.normal(size=count).round(draw(st.sampled_from([0, 3]))),
    )


@st.composite
def choices(draw: st.DrawFn) -> Options:
    """Any valid choice of what to score and how."""
    inverse, excluded = draw(st.booleans()), draw(st.booleans())
    unit = draw(st.booleans())
    solvers = ["auto", "direct", "dual"] if unit and inverse else ["auto", "direct", "dual", "pcg"]
    return {
        "hessian_mode": "inverse" if inverse else "identity",
        "hessian_source": draw(st.sampled_from(["token", "response"])),
        "scope": draw(st.sampled_from(["per_prompt", "all_selected", "global"])),
        "contrastive_agg": draw(st.sampled_from(["sum", "mean", "advantage"])),
        "exclude_self_response": excluded,
        "leave_one_out": draw(st.sampled_from(["keep", "renorm", "auto"])),
        "true_loo": draw(st.booleans()) if excluded and inverse else False,
        "token_unit_norm": unit,
        "solver": draw(st.sampled_from(solvers)),
        "residual_tolerance": 1e-12,
    }


@settings(max_examples=150, deadline=None)
@given(batches(), choices(), st.sampled_from([None, 0.01, 10.0]))
def test_scores_equal_the_definition(case: Case, options: Options, damping: float | None) -> None:
    length = np.linalg.norm(case.inputs, axis=1) * np.linalg.norm(case.output_grads, axis=1)
    if damping is not None:  # relative to the trace, or the condition number could be anything
        options = {**options, "reg_lambda": damping * (float(np.square(length).sum()) or 1.0)}

    result = score(case, **options)

    expected = truth(case, **options)
    assert result.scores.dtype == torch.float64
    # the sums of a contrast may cancel to nothing: then their terms are the measure, less than one each in the inverse
    terms = float(length.max(initial=0.0) * length.sum()) if options["hessian_mode"] == "identity" else 1.0
    terms = 1.0 if options["token_unit_norm"] else terms
    scale = max(np.nanmax(np.abs(expected), initial=0.0), 1e-3 * terms)
    np.testing.assert_allclose(
        result.scores.numpy(), expected, rtol=0, atol=1e-9 * scale, err_msg=f"{name(options)} by {result.route}"
    )
