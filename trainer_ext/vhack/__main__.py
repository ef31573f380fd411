"""Command line of the directions: `python -m trainer_ext.vhack --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer_ext.vhack.commands import DTYPES, deploy, extract_file, summary
from trainer_ext.vhack.extract import TARGETS


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m trainer_ext.vhack",
        description="Directions of reward hacking: extract, look at, take out of a model.",
    )
    verbs = root.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("extract", help="directions from pairs of a hacking and a clean completion, once")
    made.add_argument("--model", required=True, help="folder of a transformers model, or its name on a hub")
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--pairs", type=Path, help="JSON Lines or a JSON list of {prompt, hack, clean}")
    source.add_argument("--generate", type=int, metavar="N", help="N made-up pairs: digits against words")
    made.add_argument("--seed", type=int, default=0, help="of --generate")
    made.add_argument("--k", type=int, default=12, help="most directions a module; the number of pairs caps it (12)")
    made.add_argument(
        "--tau-axis", type=float, default=0.0, help="axes below this share of the strongest become zero (0)"
    )
    made.add_argument(
        "--dtype", choices=sorted(DTYPES), default="float32", help="of the weights that are trained (float32)"
    )
    made.add_argument(
        "--targets", default=",".join(TARGETS), help="a linear module takes part when its name contains one"
    )
    made.add_argument("--out", type=Path, required=True)
    seen = verbs.add_parser("show", help="what a file of directions holds, and what the noise floor would leave")
    seen.add_argument("file", type=Path)
    seen.add_argument("--k", type=int, default=5)
    seen.add_argument("--drop-bottom-frac", type=float, default=0.25)
    clean = verbs.add_parser("deploy", help="take what mode route set aside out of a trained model")
    clean.add_argument("--base", required=True, help="the model that training began with")
    clean.add_argument("--model", required=True, help="folder of the trained model, in transformers' format")
    clean.add_argument("--routed", type=Path, required=True, help="vhack_state.pt of the same checkpoint")
    clean.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    return root


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if arguments.verb == "extract":
            extract_file(arguments)
        elif arguments.verb == "show":
            print(summary(arguments.file, arguments.k, arguments.drop_bottom_frac))
        else:
            deploy(arguments.base, arguments.model, arguments.routed, arguments.out)
    except (ValueError, OSError) as error:
        print(f"trainer_ext.vhack: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
