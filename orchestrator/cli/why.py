"""`why POINT`: the evidence that led to a point's verdict, on one page."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from orchestrator.cli.arguments import add_json, add_root, find_point, near, open_existing, print_json
from orchestrator.cli.asking import scheduler_facts
from orchestrator.explanation import Explanation, Tried, explain_point
from orchestrator.triage.explain import Fact

SAID_BY_FACTS = frozenset({"missing_npz", "corrupt_npz", "incomplete_steps", "log_truncated"})
"""Flags that say no more than the evidence above them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("point", help="id, beginning of an id, or name of a point")
    parser.add_argument("--sweep", help="where to look (default: all sweeps, newest first)")
    parser.add_argument("--attempt", type=int, metavar="N", help="which try to explain in full (default: the newest)")
    add_json(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    found = explain_point(store, paths, find_point(store, args.point, args.sweep), args.attempt)
    if found.shown is not None:
        found = replace(found, facts=(*scheduler_facts(store, paths, found.shown), *found.facts))
    if args.json:
        print_json(as_json(found))
    elif sys.stdout.isatty():
        _draw(found)
    else:
        print("\n".join(plain(found)))
    return 0


def heading(found: Explanation) -> str:
    point, tries = found.point, len(found.tried)
    after = f" after {tries} attempt{'s' * (tries > 1)}" if tries else ""
    reason = f": {point.reason}" if point.reason else ""
    return f"{point.name} ({point.id}) of sweep {point.sweep} {point.state.value}{after}{reason}"


def page(found: Explanation) -> list[Fact]:
    """The whole page below the heading: attempts in order, the explained one in full, then what to do."""
    facts = []
    for tried in found.tried:
        in_full = found.shown is not None and tried.attempt.n == found.shown.n
        below = (
            *(found.facts if in_full else ()),
            *_flags(tried, in_full),
            *_outdated(found, in_full),
            *_decision(tried),
        )
        facts.append(Fact(_attempt(tried), _verdict(tried), below))
    folder = [Fact("folder", near(found.folder))] if found.folder else []
    return [*facts, *folder, Fact("next", found.advice)]


def plain(found: Explanation) -> list[str]:
    """For a pipe: two blanks a level, a line each."""
    return [heading(found), *(line for fact in page(found) for line in _lines(fact, 1))]


def _lines(fact: Fact, depth: int) -> list[str]:
    return [
        f"{'  ' * depth}{fact.label}: {fact.text}",
        *(line for below in fact.below for line in _lines(below, depth + 1)),
    ]


def _draw(found: Explanation) -> None:
    from rich.text import Text
    from rich.tree import Tree

    from orchestrator.tui import STYLES, open_console

    def grow(tree: Tree, fact: Fact) -> None:
        branch = tree.add(Text.assemble((f"{fact.label}  ", "bold cyan"), fact.text))
        for below in fact.below:
            grow(branch, below)

    tree = Tree(Text(heading(found), style=f"bold {STYLES.get(found.point.state, '')}".strip()))
    for fact in page(found):
        grow(tree, fact)
    open_console().print(tree)


def _attempt(tried: Tried) -> str:
    attempt = tried.attempt
    node = attempt.measured.node if attempt.measured else None
    where = " on " + ", ".join(filter(None, (attempt.pool, node))) if attempt.pool or node else ""
    return f"attempt {attempt.n}{where}"


def _verdict(tried: Tried) -> str:
    attempt = tried.attempt
    if attempt.verdict is None:
        return attempt.state.value
    return f"{attempt.verdict.value}: {attempt.reason}"


def _flags(tried: Tried, in_full: bool) -> list[Fact]:
    shown = [flag for flag in tried.attempt.anomalies if not (in_full and flag.code in SAID_BY_FACTS)]
    return [Fact(f"flag {flag.code}", flag.message) for flag in shown]


def _outdated(found: Explanation, in_full: bool) -> list[Fact]:
    if not in_full or not found.outdated or found.judgement is None:
        return []
    return [Fact("note", f"today this would be {found.judgement.verdict.value}; `reclassify` judges it again")]


def _decision(tried: Tried) -> list[Fact]:
    return [Fact("then", tried.decision)] if tried.decision else []


def as_json(found: Explanation) -> dict[str, Any]:
    """The documented form of `why --json`."""
    cause = found.judgement.cause if found.judgement else None
    return {
        "point": found.point.id,
        "name": found.point.name,
        "sweep": found.point.sweep,
        "state": found.point.state.value,
        "reason": found.point.reason,
        "attempts": [
            {
                "n": tried.attempt.n,
                "pool": tried.attempt.pool,
                "node": tried.attempt.measured.node if tried.attempt.measured else None,
                "verdict": tried.attempt.verdict.value if tried.attempt.verdict else None,
                "reason": tried.attempt.reason,
                "anomalies": [{"code": flag.code, "message": flag.message} for flag in tried.attempt.anomalies],
                "decision": tried.decision,
            }
            for tried in found.tried
        ],
        "explained": found.shown.n if found.shown else None,
        "folder": str(found.folder) if found.folder else None,
        "cause": None
        if cause is None
        else {key: getattr(cause, key) for key in ("code", "role", "file", "line", "rank", "time", "text", "where")},
        "evidence": [_fact(fact) for fact in found.facts],
        "today": found.judgement.verdict.value if found.outdated and found.judgement else None,
        "next": found.advice,
    }


def _fact(fact: Fact) -> dict[str, Any]:
    return {"label": fact.label, "text": fact.text, "below": [_fact(below) for below in fact.below]}
