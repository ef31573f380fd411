"""The confusion matrix over the gold corpus: `python -m tests.triage.confusion [--write]`.

`--write` puts it into docs/triage.md, where a test compares it with what the code says.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from orchestrator.model import Verdict
from tests.triage.gold import cases, judged

DOCS = Path(__file__).parents[2] / "docs" / "triage.md"
BEGINS, ENDS = "<!-- confusion matrix: begins -->\n", "<!-- confusion matrix: ends -->\n"

SHOWN = [verdict for verdict in Verdict if verdict is not Verdict.HANG]
"""A hang is told by the wrapper, which watches the job; no log alone shows it."""


def main(words: list[str]) -> int:
    text = matrix()
    print(text, end="")
    if "--write" in words:
        DOCS.write_text(in_docs(DOCS.read_text(), text))
    return 0


def matrix() -> str:
    """Rows: what a colleague says; columns: what the code says. Ends with what is wrong."""
    found = [judged(case) for case in cases()]
    counts = Counter((one.case.verdict, one.judgement.verdict) for one in found)
    head = ["gold \\ code", *(f"`{verdict.value}`" for verdict in SHOWN), "all", "right"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(SHOWN) + 2)}"]
    for gold in SHOWN:
        row = [counts[gold, code] for code in SHOWN]
        share = f"{100 * counts[gold, gold] / sum(row):.0f}%"
        lines.append(f"| `{gold.value}` | {' | '.join(str(n) if n else '' for n in row)} | {sum(row)} | {share} |")
    right = sum(one.judgement.verdict is one.case.verdict for one in found)
    lines += [
        "",
        f"{right} of {len(found)} verdicts right ({100 * right / len(found):.1f}%). Made here by really failing:",
    ]
    lines[-1] += f" {sum(one.case.name.startswith(('ran-', 'wrapped-')) for one in found)}; captured on a real Slurm:"
    lines[-1] += f" {sum(one.case.name.startswith('slurm-') for one in found)}; the rest typed after the source named."
    wrong = [one for one in found if not one.right]
    lines += [
        f"- `{one.case.name}` is {one.judgement.verdict.value}: {one.case.known or one.judgement.reason}"
        for one in wrong
    ]
    return "\n".join(lines) + "\n"


def in_docs(page: str, text: str) -> str:
    """The page with the matrix between its two marks."""
    before, _, rest = page.partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    return before + BEGINS + text + ENDS + after


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
