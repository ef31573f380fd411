"""The gallery is what the code writes, of modest size, and names nobody's machine."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
from PIL import Image

from reports.gallery.__main__ import GALLERY, NODE, anonymous, refresh, snapshots
from reports.snapshot import SweepSnapshot

MOST_BYTES = 2 * 1024**2


def committed() -> dict[str, Path]:
    """Of every report: the files as they lie in the repository."""
    return {str(path.relative_to(GALLERY)): path for name in snapshots() for path in files(GALLERY / name)}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(one: Path, other: Path) -> bool:
    """Equal bytes; of pictures, what another processor's rounding leaves alone: a last digit moves no line that one sees."""
    if one.suffix == ".png":
        pixels = [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (one, other)]
        return pixels[0].shape == pixels[1].shape and float(np.abs(pixels[0] - pixels[1]).mean()) < 0.2
    texts = [path.read_text(encoding="utf-8") for path in (one, other)]
    if one.suffix == ".html":
        return _IMAGE.sub("", texts[0]) == _IMAGE.sub("", texts[1])
    if one.suffix != ".svg":
        return texts[0] == texts[1]
    words, numbers = zip(
        *((_NUMBER.sub("", text), _NUMBER.findall(text)) for text in map(_unnamed, texts)), strict=True
    )
    return words[0] == words[1] and np.allclose(*(np.array(found, dtype=float) for found in numbers), atol=0.01)


def _unnamed(svg: str) -> str:
    """Without the names that matplotlib makes of what it draws."""
    return re.sub(r"\b[mp][0-9a-f]{10}\b", "", svg)


_IMAGE = re.compile(r"data:image/[^\"]*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def test_a_picture_that_shows_something_else_is_not_the_same(tmp_path: Path) -> None:
    for path in committed().values():
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            (tmp_path / "moved.svg").write_text(
                re.sub(r"(?<=L )(\d+)", lambda found: str(int(found[1]) + 1), text, count=1)
            )
            assert same(path, path)
            assert not same(path, tmp_path / "moved.svg")
        if path.suffix == ".png":
            shown = np.array(Image.open(path).convert("RGB"))
            shown[shown.shape[0] // 3 : shown.shape[0] // 3 + 20] = 0
            Image.fromarray(shown).save(tmp_path / "other.png")
            assert not same(path, tmp_path / "other.png")


def test_the_gallery_is_what_the_code_writes(tmp_path: Path) -> None:
    refresh(tmp_path)
    drawn = {str(path.relative_to(tmp_path)): path for path in files(tmp_path)}
    assert drawn.keys() == committed().keys(), "python -m reports.gallery"
    stale = [name for name, path in committed().items() if not same(path, drawn[name])]
    assert not stale, "python -m reports.gallery draws it again"


def test_it_holds_the_smoke_and_the_factor_sweep_as_they_really_ran() -> None:
    found = snapshots()
    assert set(found) == {"factor", "smoke"}
    for sweep in found.values():
        assert sweep.state == "succeeded"
        assert all(len(point.metrics) == sweep.expected_steps for point in sweep.points)
        assert all(file.valid > 0 and file.histogram for point in sweep.points for file in point.npz)


def test_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in files(GALLERY)) < MOST_BYTES


def test_no_machine_is_named() -> None:
    for path in [*GALLERY.glob("*.json"), *(path for path in committed().values() if path.suffix in (".md", ".csv"))]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|mnt|Users|var|opt|data|scratch)\b", text), path
        assert not re.search(r"\b(?:\d{1,3}\.){3}\d{1,3}\b|@[\w-]+\.\w", text), path
        assert "hostname" not in text
    nodes = {attempt.node for sweep in snapshots().values() for point in sweep.points for attempt in point.attempts}
    assert nodes <= {None, NODE}


def test_a_new_snapshot_is_taken_in_without_the_names_of_nodes(factor_sweep: SweepSnapshot) -> None:
    first, *rest = factor_sweep.points
    attempts = (
        dataclasses.replace(first.attempts[0], node="gpu17.example.org"),
        dataclasses.replace(first.attempts[0]),
    )
    sweep = dataclasses.replace(factor_sweep, points=(dataclasses.replace(first, attempts=attempts), *rest))
    assert [attempt.node for attempt in anonymous(sweep).points[0].attempts] == [NODE, None]
    assert anonymous(anonymous(sweep)) == anonymous(sweep)
