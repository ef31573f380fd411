"""`collect PATH...`: judge runs that someone else started, by the same rules as our own.

A path is a folder with a log and NPZ files, and where they were saved the output of `runai describe job` (describe.txt)
or of sacct (sacct.txt). An attempt folder of ours is one too. `--into NAME` keeps them as a sweep, with report and MLflow.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from orchestrator.cli.arguments import add_json, add_root, open_store, print_json
from orchestrator.cli.driving import drive_to_end
from orchestrator.clock import SystemClock
from orchestrator.collect.card import CARDS_MIB, card_of_pool
from orchestrator.collect.foreign import collect_folder
from orchestrator.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, UsageError
from orchestrator.importing import ForeignRun, import_runs, noted_overrides
from orchestrator.model import Verdict
from orchestrator.naming import safe_name
from orchestrator.paths import RootPaths
from orchestrator.triage.anomalies import find_anomalies
from orchestrator.triage.evidence import MIB, Evidence
from orchestrator.triage.verdict import judge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a run's folder")
    parser.add_argument(
        "--pool", metavar="NAME", help=f"the card, where the log does not name it: {', '.join(CARDS_MIB)}"
    )
    parser.add_argument("--into", metavar="NAME", help="keep the runs as the sweep NAME, and write its report")
    add_json(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    card_mib = card_of_pool(args.pool) if args.pool else None
    if args.pool and card_mib is None:
        raise UsageError(f"--pool {args.pool}: known cards are {', '.join(CARDS_MIB)}")
    for path in args.paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder")
    if args.into:
        return _keep(args, card_mib)
    found = [judged(path, card_mib) for path in args.paths]
    if args.json:
        print_json(found)
    else:
        for run_ in found:
            _print(run_)
    return EXIT_SUCCEEDED if all(run_["verdict"] == Verdict.COMPLETED for run_ in found) else EXIT_SOME_FAILED


def _keep(args: argparse.Namespace, card_mib: int | None) -> int:
    if args.json:
        raise UsageError("--into prints no JSON; `status --json` does for the sweep that it makes")
    if safe_name(args.into) != args.into:
        raise UsageError(f"--into {args.into}: no name of a sweep; write {safe_name(args.into)}")
    paths = RootPaths.resolve(args.root)
    runs = [
        ForeignRun(path, collect_folder(path, card_mib=card_mib), args.pool, noted_overrides(path))
        for path in dict.fromkeys(path.resolve() for path in args.paths)
    ]
    store = open_store(paths)
    command = shlex.join(["python", "-m", "orchestrator", *sys.argv[1:]])
    import_runs(store, paths, args.into, runs, command, SystemClock().now())
    return drive_to_end(paths, store, args.into)


def judged(path: Path, card_mib: int | None) -> dict[str, Any]:
    """One run in the documented form of `collect --json`; figures that are not finite are null."""
    evidence = collect_folder(path, card_mib=card_mib)
    judgement = judge(evidence)
    anomalies = find_anomalies(evidence, judgement.verdict)
    return {
        "path": str(path),
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
        "evidence": list(judgement.evidence),
        "anomalies": [anomaly.code for anomaly in anomalies],
        "messages": [anomaly.message for anomaly in anomalies],
        "card_mib": evidence.card_bytes // MIB if evidence.card_bytes else None,
        "steps": list(evidence.steps),
        "metrics": {
            step: {name: _finite(value) for name, value in values.items()} for step, values in evidence.metrics.items()
        },
        "npz": _npz(evidence),
    }


def _npz(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "file": file.file,
            "valid": file.valid,
            "mean": _finite(file.mean),
            "std": _finite(file.std),
            "min": _finite(file.min),
            "max": _finite(file.max),
            "nan_in_valid": file.nan_in_valid,
            "error": file.error,
        }
        for file in evidence.npz
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _print(run_: dict[str, Any]) -> None:
    steps = ", ".join(map(str, run_["steps"])) or "none"
    print(f"{run_['path']}: {run_['verdict']} — {run_['reason']}")
    card = f"; card of {run_['card_mib'] / 1024:.1f} GiB" if run_["card_mib"] else ""
    print(f"  steps {steps}; {len(run_['npz'])} NPZ files{card}")
    for fact in run_["evidence"]:
        print(f"  {fact}")
    for code, message in zip(run_["anomalies"], run_["messages"], strict=True):
        print(f"  ! {code}: {message}")
