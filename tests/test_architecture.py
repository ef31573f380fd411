"""What keeps the tree readable, as checks: no cycles, short files, light imports, every shipped sweep loadable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.spec import load

ROOT = Path(__file__).parent.parent
PACKAGES = ("orchestrator", "reports", "trainer_ext")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 500


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imported_modules(path: Path) -> set[str]:
    """Modules of this repository that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & MODULES.keys()


def test_no_import_cycles() -> None:
    graph = {name: imported_modules(path) - {name} for name, path in MODULES.items()}
    settled: set[str] = set()
    while rest := {name for name, needs in graph.items() if name not in settled and needs <= settled}:
        settled |= rest
    assert graph.keys() == settled, f"in or behind a cycle: {sorted(graph.keys() - settled)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < MAX_LINES
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a file opens with its docstring"


VERL = ("trainer_ext.verl_plugin", "trainer_ext.bench.step")
"""The plugin, and the benchmark that drives its worker."""


def test_verl_is_imported_by_the_plugin_and_its_benchmark_alone() -> None:
    importers = set()
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(module.partition(".")[0] == "verl" for module in named):
                importers.add(name)
    assert any(name.startswith(VERL[0]) for name in importers)
    assert [name for name in sorted(importers) if not name.startswith(VERL)] == []


HEAVY = {"torch", "verl", "ray", "mlflow", "hydra", "omegaconf", "numpy", "pandas", "sqlalchemy", "transformers"}
DRAWING = {"jinja2", "matplotlib", "markdown_it", "scipy"}
"""What a report is drawn with; no other verb waits for it."""


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    script = "import sys, orchestrator.cli; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not (HEAVY | DRAWING) & set(loaded)


def test_a_sweep_starts_without_what_its_report_is_drawn_with() -> None:
    script = "import sys, orchestrator.session; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not (DRAWING | {"torch", "verl", "mlflow"}) & set(loaded)


SWEEPS = sorted(path for path in (ROOT / "sweeps").glob("*.yaml") if path.name != "pools.yaml")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_shipped_sweep_loads_and_opens_with_its_question(path: Path) -> None:
    assert load(path).name
    assert path.read_text().startswith("#"), "a sweep file opens with the question that it answers"


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"
