from __future__ import annotations

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model import Scalar
from orchestrator.overrides import assignment, override_key

PRINTABLE = st.text(st.characters(codec="utf-8")).filter(str.isprintable)
TRICKY = st.text(st.sampled_from("'\"\\ab =,{}[]()$#:1.e-"), max_size=12)


@given(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PRINTABLE | TRICKY)
@settings(deadline=None)
def test_hydra_reads_back_the_exact_value(value: Scalar) -> None:
    (override,) = OverridesParser.create().parse_overrides([assignment("a.b", value)])
    assert override.value() == value
    assert type(override.value()) is type(value)


@pytest.mark.parametrize("word", ["true", "FALSE", "null", "NaN", "inf", "1e3", "007", "a,b", "choice(1,2)", "", "A¹"])
def test_words_with_a_meaning_stay_words(word: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([assignment("a", word)])
    assert override.value() == word


def test_infinity_is_a_number() -> None:
    (override,) = OverridesParser.create().parse_overrides([assignment("a", -math.inf)])
    assert override.value() == -math.inf


@pytest.mark.parametrize("override", ["a.b=1", "+a.b=x=y", "++a.b=", "~a.b", "~a.b=3", "a.b@pkg=1"])
def test_key_is_found_in_every_form(override: str) -> None:
    assert override_key(override) == "a.b"
