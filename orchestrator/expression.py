"""The language of `exclude` and of patches: comparisons and arithmetic over named values. Never `eval`.

    scope == 'per_prompt' and factor < 512
    trainer.lr not in [1e-5, 1e-6] or not exclude_self_response

Python's syntax and meaning for `and or not`, comparisons (chained ones too), `in`, `+ - * / %`, numbers, strings, lists
and parentheses; `true`, `false` and `null` may be written as in YAML. Everything else is refused when it is parsed, so
an expression can neither call, nor look into, nor change anything.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.model import Scalar
from orchestrator.suggest import did_you_mean

MAX_LENGTH = 500
MAX_DEPTH = 50

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Expression:
    """A parsed expression."""

    text: str
    names: frozenset[str]
    """The parameters that it reads; dotted ones as written."""
    _tree: ast.expr

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Whether it is true of one point.

        Raises:
            SpecError: an unknown name, an order between unlike types, a division by zero.
        """
        return bool(self.value(values))

    def value(self, values: Mapping[str, Scalar]) -> Any:
        """What it comes to: a single value, or a list where a list was written.

        Raises:
            SpecError: as `holds`.
        """
        return _value(self._tree, values, self.text)


def parse(text: str) -> Expression:
    """Parse and check an expression.

    Raises:
        SpecError: a syntax error or anything outside the language; the message holds the column.
    """
    if len(text) > MAX_LENGTH:
        raise SpecError(f"an expression has at most {MAX_LENGTH} characters, this one {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        column = error.offset or len(text) + 1  # 0: at the end
        raise SpecError(f"cannot read the expression '{text}' at column {column}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"cannot read the expression '{text}': {error or 'too deeply nested'}") from None
    names: set[str] = set()
    _check(tree, names, text.strip())
    return Expression(text.strip(), frozenset(names), tree)


def _check(node: ast.AST, names: set[str], text: str, depth: int = 0) -> None:
    """Refuse what the language does not have; gather the names it reads."""
    if (name := _name(node)) is not None:
        if name not in _WORDS:
            names.add(name)
        return
    if not _allowed(node):
        raise _refused(node, text)
    if depth > MAX_DEPTH:
        raise _at(node, text, "too deeply nested")
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            _check(child, names, text, depth + 1)


def _allowed(node: ast.AST) -> bool:
    match node:
        case ast.BoolOp() | ast.List() | ast.Tuple():
            return True
        case ast.Constant(value=value):
            return value is None or isinstance(value, str | int | float)
        case ast.BinOp(op=op):
            return type(op) in _ARITHMETIC
        case ast.UnaryOp(op=op):
            return type(op) in _UNARY
        case ast.Compare(ops=ops):
            return all(type(op) in _COMPARE for op in ops)
        case _:
            return False


def _name(node: ast.AST) -> str | None:
    """`factor`, or `trainer.lr` for a dotted parameter; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _name(node.value)) is not None:
        return f"{owner}.{node.attr}"
    return None


def _value(node: ast.expr, values: Mapping[str, Scalar], text: str) -> Any:
    if (name := _name(node)) is not None:
        return _look_up(name, values, node, text)
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, values, text) for item in items]
        case ast.BoolOp(op=op, values=parts):
            return _logic(isinstance(op, ast.And), parts, values, text)
        case ast.UnaryOp(op=op, operand=operand):
            inner = _value(operand, values, text)
            return _guarded(node, text, _UNARY[type(op)], inner)
        case ast.BinOp(left=left, op=op, right=right):
            pair = _value(left, values, text), _value(right, values, text)
            if not all(isinstance(side, int | float) for side in pair):
                raise _at(node, text, "arithmetic needs numbers on both sides")
            return _guarded(node, text, _ARITHMETIC[type(op)], *pair)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            return _comparison(node, left, ops, rights, values, text)
    raise _refused(node, text)


def _look_up(name: str, values: Mapping[str, Scalar], node: ast.AST, text: str) -> Scalar:
    if name in values:
        return values[name]
    if name in _WORDS:
        return _WORDS[name]
    raise _at(node, text, f"`{name}` is no parameter of this sweep", did_you_mean(name, values))


def _logic(is_and: bool, parts: list[ast.expr], values: Mapping[str, Scalar], text: str) -> Any:
    """`and` and `or` stop early and give the deciding value, as in Python."""
    result: Any = is_and
    for part in parts:
        result = _value(part, values, text)
        if bool(result) is not is_and:
            break
    return result


def _comparison(
    node: ast.Compare,
    left: ast.expr,
    ops: list[ast.cmpop],
    rights: list[ast.expr],
    values: Mapping[str, Scalar],
    text: str,
) -> bool:
    first = _value(left, values, text)
    for op, right in zip(ops, rights, strict=True):
        second = _value(right, values, text)
        if not _guarded(node, text, _COMPARE[type(op)], first, second):
            return False
        first = second
    return True


def _guarded(node: ast.AST, text: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ArithmeticError) as error:
        raise _at(node, text, str(error)) from None


def _refused(node: ast.AST, text: str) -> SpecError:
    return _at(
        node,
        text,
        f"{type(node).__name__} is not part of the expression language",
        "allowed: and, or, not, comparisons, in, + - * / %, numbers, strings, lists, parameter names",
    )


def _at(node: ast.AST, text: str, message: str, hint: str | None = None) -> SpecError:
    column = getattr(node, "col_offset", 0) + 1
    return SpecError(f"in the expression '{text}' at column {column}: {message}", hint=hint)
