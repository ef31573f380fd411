"""What an attempt runs on: cards, driver, container image, and a hash of the installed Python packages."""

from __future__ import annotations

import hashlib
import platform
import re
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.job.nvml import Nvml
from trainer_ext.records import ENV_IMAGE, Node, write_atomic

# the folder's name holds both, and opening the metadata of hundreds of packages takes seconds on a network file system
_INSTALLED = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info$")


@dataclass(frozen=True)
class NodeWriter:
    """Writes `node.json` each time it is called.

    Args:
        environ: of the job.
    """

    path: Path
    environ: Mapping[str, str]

    def __call__(self) -> None:
        nvml = Nvml(self.environ.get("CUDA_VISIBLE_DEVICES"))
        write_atomic(self.path, describe(nvml, self.environ, sys.path).to_json(), durable=False)


def describe(nvml: Nvml, environ: Mapping[str, str], search_path: Sequence[str]) -> Node:
    """The node as seen from inside the job."""
    packages = installed(search_path)
    return Node(
        host=socket.gethostname(),
        gpus=[card.name for card in nvml.cards()],
        driver=nvml.driver(),
        image=environ.get(ENV_IMAGE) or None,
        python=platform.python_version(),
        packages=len(packages),
        packages_sha256=packages_hash(packages),
    )


def installed(search_path: Iterable[str]) -> dict[str, str]:
    """Name -> version of all packages, by their folders' names; of several of one name the first counts, as for `import`."""
    found: dict[str, str] = {}
    for folder in search_path:
        try:
            names = sorted(entry.name for entry in Path(folder or ".").iterdir())
        except OSError:  # no such folder, or a zip file
            continue
        for match in filter(None, map(_INSTALLED.match, names)):
            found.setdefault(re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"])
    return found


def packages_hash(packages: Mapping[str, str]) -> str:
    """sha256 of `name==version` lines, sorted."""
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
