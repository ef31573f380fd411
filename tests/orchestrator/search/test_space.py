"""The notation of searched parameters: what it says, and that every domain reads back as it is written."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.search.space import Choice, Domain, Integers, Interval, parse
from orchestrator.search.study import distribution

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
numbers = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | words


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    log = draw(st.booleans())
    ends = st.floats(min_value=1e-9 if log else None, max_value=1e9, allow_nan=False, allow_infinity=False)
    low, high = sorted((draw(ends), draw(ends)))
    return Interval(low, high, log)


@st.composite
def integers(draw: st.DrawFn) -> Integers:
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -1000, 1000))
    return Integers(low, low + draw(st.integers(0, 1000)), 1 if log else draw(st.integers(1, 50)), log)


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    return Choice(tuple(draw(st.lists(scalars, min_size=1, max_size=5, unique=True))))


@given(intervals() | integers() | choices())
@example(Choice(("INF", "nan", "true", "Infinity")))
def test_a_domain_reads_back_as_it_is_written(domain: Domain) -> None:
    assert parse(str(domain)) == domain


@given(intervals() | integers() | choices())
def test_corners_and_values_lie_inside(domain: Domain) -> None:
    assert all(domain.contains(value) for value in (*domain.corners(), *(domain.values() or ())))


@given(intervals() | integers(), st.integers(0, 1000))
def test_what_optuna_draws_lies_inside(domain: Domain, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    assert domain.contains(study.ask({"x": distribution(domain)}).params["x"])


@given(st.text(max_size=30))
def test_any_text_is_a_domain_or_a_message(text: str) -> None:
    try:
        domain = parse(text)
    except ValueError:
        return
    assert parse(str(domain)) == domain


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("interval(0.0001, 1e-1, log)", Interval(1e-4, 0.1, True)),
        ("interval(-1,1)", Interval(-1.0, 1.0)),
        ("int(32, 512, log)", Integers(32, 512, 1, True)),
        ("int(8, 64, 8)", Integers(8, 64, 8)),
        (
            "choice(per_prompt, 'a, b', \"it's\", 3, 1.5, true, null)",
            Choice(("per_prompt", "a, b", "it's", 3, 1.5, True, None)),
        ),
        ("choice('3', 3)", Choice(("3", 3))),
        ("choice(log)", Choice(("log",))),
    ],
)
def test_the_notation(text: str, domain: Domain) -> None:
    assert parse(text) == domain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("32..512", "is not interval("),
        ("range(1, 2)", "there is no range()"),
        ("interval(2, 1)", "holds nothing: 2 is above 1"),
        ("interval(0, 1, log)", "begins above zero"),
        ("int(1, 9, 2, log)", "a step or log, not both"),
        ("int(1, 2.5)", "takes whole numbers"),
        ("int(1)", "has 1 arguments"),
        ("interval(1, 2, 3)", "has 3 arguments"),
        ("interval(a, 2)", "takes numbers and the word log, not a"),
        ("choice()", "needs values"),
        ("choice(a, a)", "names a twice"),
        ("choice(1, true)", "cannot tell true from 1; put one in quotes"),
        ("choice(a, , b)", "an empty place"),
        ("choice(a b, c(d))", "cannot read"),
        ("interval(0, inf)", "no number to search at"),
    ],
)
def test_a_slip_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)
