from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import expression
from orchestrator.errors import SpecError
from orchestrator.model import Scalar

VALUES: dict[str, Scalar] = {"factor": 128, "scope": "per_prompt", "trainer.lr": 1e-5, "on": True, "nothing": None}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("scope == 'per_prompt' and factor < 512", True),
        ("factor in [64, 128] and not on", False),
        ("trainer.lr < 1e-4", True),
        ("64 < factor <= 128", True),
        ("factor % 3 == 2 or factor / 2 == 1", True),
        ("on == true and nothing == null", True),
        ("'prompt' in scope", True),
        ("(factor - 28) * 2 == 200", True),
        ("-factor < +0", True),
        ("on", True),
        ("nothing", False),
    ],
)
def test_means_what_python_means(text: str, holds: bool) -> None:
    assert expression.parse(text).holds(VALUES) is holds


def test_names_are_the_parameters_it_reads() -> None:
    assert expression.parse("a.b.c > 1 and d == true").names == {"a.b.c", "d"}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "factor.__class__()",
        "(1).__class__",
        "[x for x in (1, 2)]",
        "lambda: 1",
        "factor if on else 1",
        "factor ** 9999",
        "f'{factor}'",
        "scope[0]",
        "factor := 3",
        "{1: 2}",
        "1 << 99",
        "b'x' == 1",
        "factor is 1",
        "...",
    ],
)
def test_what_is_outside_the_language_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        expression.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("factor <", "cannot read the expression 'factor <' at column"),
        ("factor < 1 and len(scope)", "at column 16: Call is not part"),
        ("(" * 220 + "1" + ")" * 220, "cannot read the expression"),
        ("-" * 400 + "1", "too deeply nested"),
        ("a" * 501, "at most 500 characters"),
        ("a == '\0'", "cannot read the expression"),
    ],
)
def test_unreadable_text_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        expression.parse(text).holds({"a": 1, "factor": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("factr < 512", r"column 1: `factr` is no parameter of this sweep \(did you mean `factor`\?\)"),
        ("on and scope < 3", "column 8: '<' not supported"),
        ("1 / (factor - 128) > 1", "column 1: division by zero"),
        ("scope + 'x' == 'y'", "arithmetic needs numbers"),
        ("scope * 99999999 == 'y'", "arithmetic needs numbers"),
        ("3 in factor", "not iterable|not a container"),
    ],
)
def test_evaluation_errors_name_the_column(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        expression.parse(text).holds(VALUES)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    operators = st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or"])
    return (
        st.tuples(pair, operators).map(lambda made: f"({made[0][0]} {made[1]} {made[0][1]})")
        | inner.map(lambda text: f"(not {text})")
        | inner.map(lambda text: f"(-{text})")
        | pair.map(lambda made: f"({made[0]} in [{made[1]}, 1, 2])")
        | st.tuples(inner, inner, inner).map(lambda made: f"({made[0]} < {made[1]} <= {made[2]})")
    )


_atoms = st.integers(0, 5).map(str) | st.sampled_from(["a", "b", "c", "True", "0.5"])


@given(
    st.recursive(_atoms, _compound, max_leaves=10),
    st.fixed_dictionaries({"a": st.integers(-3, 3), "b": st.floats(-2, 2), "c": st.booleans()}),
)
@settings(deadline=None)
def test_agrees_with_python(text: str, values: dict[str, Scalar]) -> None:
    try:
        expected = bool(eval(text, {"__builtins__": {}}, dict(values)))
    except ArithmeticError:
        with pytest.raises(SpecError):
            expression.parse(text).holds(values)
    else:
        assert expression.parse(text).holds(values) is expected
