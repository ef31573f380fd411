"""`python -m tests.slurm up | down`: a Slurm cluster to play with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.slurm.cluster import Cluster, timed_up

FOLDER = Path("/var/tmp/orchestrator-slurm")


def main(words: list[str]) -> int:
    cluster = Cluster(Path(os.environ.get("SLURM_FOLDER", FOLDER)), "lab")
    if words == ["up"]:
        try:
            seconds = timed_up(cluster)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        cluster.link()
        print(cluster.run("sinfo"), end="")
        print(f"up after {seconds:.0f} s, in {cluster.folder}; if another cluster is configured here:")
        print(f"export SLURM_CONF={cluster.environ['SLURM_CONF']}")
        return 0
    if words == ["down"]:
        cluster.down()
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
