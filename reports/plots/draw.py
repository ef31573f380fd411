"""The plots of a sweep as files."""

from __future__ import annotations

from pathlib import Path

from reports.plots.catalogue import PLOTTERS, plots
from reports.snapshot import SweepSnapshot
from trainer_ext.records import write_atomic


def draw(snapshot: SweepSnapshot, folder: Path) -> tuple[Path, ...]:
    """`<name>.png` and `<name>.svg` of every plot, whole or not at all; those of plots that are no more are removed.

    Raises:
        OSError: the folder cannot be written.
    """
    from reports.plots import style

    images = {f"{plot.name}.{kind}": data for plot in plots(snapshot) for kind, data in style.images(plot).items()}
    if images:
        folder.mkdir(parents=True, exist_ok=True)
    written = tuple(folder / name for name in images)
    for path in written:
        write_atomic(path, images[path.name])
    for path in {folder / f"{plotter.__name__}.{kind}" for plotter in PLOTTERS for kind in style.FORMATS} - set(
        written
    ):
        path.unlink(missing_ok=True)
    return written
