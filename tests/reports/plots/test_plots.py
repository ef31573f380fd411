"""What is drawn of which sweep, in words and as files."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from reports.plots.catalogue import PLOTTERS, plots
from reports.plots.draw import draw
from reports.plots.plot import Plot, extremes, short
from reports.plots.section import context
from reports.plots.style import DPI, images
from reports.plots.timing import parts
from reports.report import render
from reports.snapshot import NpzSnapshot, PointSnapshot, SweepSnapshot

Sweeps = Callable[[int, int], SweepSnapshot]


def by_name(snapshot: SweepSnapshot) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots(snapshot)}


def test_a_sweep_with_everything_has_every_plot_but_the_course_of_two_steps(rich_sweep: SweepSnapshot) -> None:
    assert list(by_name(rich_sweep)) == ["scores", "timing", "scaling", "cost", "memory"]


@pytest.mark.parametrize("snapshot", [SweepSnapshot("none"), SweepSnapshot("one", points=(PointSnapshot("a", "b"),))])
def test_a_sweep_without_figures_has_no_plots_and_no_section(snapshot: SweepSnapshot, tmp_path: Path) -> None:
    assert plots(snapshot) == []
    assert context(snapshot) is None
    assert "### Plots" not in render(snapshot)
    assert draw(snapshot, tmp_path / "plots") == ()
    assert not (tmp_path / "plots").exists()


def test_a_plot_is_called_as_its_function(rich_sweep: SweepSnapshot, sweep_of: Sweeps) -> None:
    for snapshot in (rich_sweep, sweep_of(3, 6)):
        for plotter in PLOTTERS:
            plot = plotter(snapshot)
            assert plot is None or plot.name == plotter.__name__


def test_words_say_the_figures_of_the_plot(rich_sweep: SweepSnapshot) -> None:
    said = {name: plot.alt for name, plot in by_name(rich_sweep).items()}
    assert "standard deviations from 0.088 to 0.207, scores between -265.25 and 119.25" in said["scores"]
    assert "4 jobs" in said["timing"]
    assert "hessian_solve: 31.1 s at factor 64, 0.29 s at 512, exponent -2.25" in said["scaling"]
    assert "43% of the largest in 146 s at factor 512" in said["cost"]
    assert "knee at factor 128" in said["cost"]
    assert "118.0 GiB; torch claims 141.1 to 170.0 GiB, which is unreliable; h200 has 140.4 GiB" in said["memory"]
    assert "Host memory: 436.0 GiB; limit of the job has 900.0 GiB" in said["memory"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"step": 10, "gen": 4, "update_actor": 5}, {"gen": 4, "rest of the update": 5, "rest of the step": 1}),
        (
            {"step": 10, "update_actor": 6, "influence_pop_rows": 3, "influence_hessian_solve": 2},
            {"hessian_solve": 2, "rest of pop_rows": 1, "rest of the update": 3, "rest of the step": 4},
        ),
        ({"influence_hessian_solve": 2, "step": 1}, {"hessian_solve": 2}),
        ({"update_actor": 4, "influence_forward_1": 3, "influence_logprob_backward": 2}, {"passes of the trace": 5}),
        ({"step": math.nan}, {}),
    ],
)
def test_the_parts_of_a_step_do_not_overlap_and_add_up(times: dict[str, float], expected: dict[str, float]) -> None:
    point = PointSnapshot("p", "p", metrics={1: {f"timing_s/{name}": value for name, value in times.items()}})
    assert {name: value for name, value in parts(point, 1).items() if value} == expected


def test_of_many_points_the_extremes_are_drawn_and_the_plot_says_so(sweep_of: Sweeps) -> None:
    found = by_name(sweep_of(500, 6))
    assert found["scores"].note == "Shown are 8 of 500 points, with the smallest and the largest standard deviation."
    assert found["timing"].note == "Shown are 24 of 500 points, with the smallest and the largest time."
    assert found["cost"].note.startswith("Shown are 8 of 100 settings")
    assert all(plot.height < 9 for plot in found.values()), "one page at most"


def test_extremes_keep_their_order() -> None:
    points = [PointSnapshot(str(place), str(place)) for place in range(6)]
    figures = dict(zip("012345", [5.0, 1.0, None, 9.0, 4.0, 6.0], strict=True))
    assert [p.id for p in extremes(points, lambda p: figures[p.id], 4)] == ["1", "2", "3", "5"]


def test_a_long_name_keeps_its_end() -> None:
    assert short("a" * 40 + "-f128") == "a" * 10 + "…" + "a" * 14 + "-f128"
    assert len(short("x" * 99)) == 30


def test_files_are_drawn_whole_and_repeat_to_the_byte(rich_sweep: SweepSnapshot, tmp_path: Path) -> None:
    written = draw(rich_sweep, tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    first = {path.name: path.read_bytes() for path in written}
    for plot in plots(rich_sweep):
        for kind, data in images(plot).items():
            assert first[f"{plot.name}.{kind}"] == data, f"{plot.name}.{kind} repeats"
        with Image.open(io.BytesIO(first[f"{plot.name}.png"])) as image:
            assert image.size[0] == pytest.approx(7.2 * DPI, abs=1)
            assert "Software" not in image.info
        root = ElementTree.fromstring(first[f"{plot.name}.svg"])
        assert root.tag.endswith("svg")
        assert b"<dc:" not in first[f"{plot.name}.svg"], "no date, no version"
    text = render(rich_sweep)
    linked = re.findall(r"!\[[^\n]*\]\(([^)]+)\)", text)
    assert linked == [f"plots/{plot.name}.png" for plot in plots(rich_sweep)]
    assert draw(SweepSnapshot("none"), tmp_path) == ()
    assert list(tmp_path.iterdir()) == [], "plots that are no more are removed"


def test_files_that_are_no_plots_of_ours_are_left(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"")
    draw(SweepSnapshot("none"), tmp_path)
    assert (tmp_path / "mine.png").exists()


NASTY = ["$\\frac{$", "--><script>alert(1)</script>", "a\nb\tc", "日本語", "\x00\x1b[31m", "]]>&amp;", "é" * 80, ""]


def test_any_name_can_be_drawn(sweep_of: Sweeps) -> None:
    sweep = sweep_of(len(NASTY), 4)
    points = tuple(
        dataclasses.replace(point, name=name, parameters={**point.parameters, "lr": name}, attempts=())
        for point, name in zip(sweep.points, NASTY, strict=True)
    )
    for plot in plots(dataclasses.replace(sweep, points=points)):
        svg = images(plot, ["svg"])["svg"]
        assert b"<script" not in svg
        assert {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()} <= SVG_TAGS


SVG_TAGS = {"svg", "defs", "style", "g", "path", "use", "clipPath", "rect", "pattern", "title", "metadata"}


ODD = [(math.nan, 1e38), (math.inf, -math.inf), (0.0, 0.0), (1e9, 1e-38)]
"""Seconds, and scores."""


def test_no_figure_of_a_run_breaks_a_plot(sweep_of: Sweeps) -> None:
    sweep = sweep_of(len(ODD) + 2, 4)
    odd = [_with(point, *figures) for point, figures in zip(sweep.points, ODD, strict=False)]
    for plot in plots(dataclasses.replace(sweep, points=(*odd, *sweep.points[len(ODD) :]))):
        assert images(plot, ["svg"])["svg"]
    for point in odd:
        plot = by_name(dataclasses.replace(sweep, points=(point,))).get("scores")
        assert plot is None or images(plot, ["svg"])["svg"]


def _with(point: PointSnapshot, seconds: float, score: float) -> PointSnapshot:
    return dataclasses.replace(
        point,
        metrics={step: dict.fromkeys(values, seconds) for step, values in point.metrics.items()},
        npz=(NpzSnapshot("influence/step_000001.npz", 1, None, 16, 10_753, score, abs(score), score, score),),
    )


def test_a_report_needs_no_matplotlib_until_it_draws() -> None:
    script = (
        "import sys\nfrom reports.plots.catalogue import plots\nfrom reports.report import render\n"
        "from reports.snapshot import *\n"
        "p = PointSnapshot('a', 'b', attempts=(AttemptSnapshot(1),), metrics={1: {'timing_s/step': 1.0}})\n"
        "assert 'plots/timing.png' in render(SweepSnapshot('s', points=(p,)))\n"
        "print('matplotlib' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_trace_beside_the_update_is_no_part_of_the_rest_of_the_step() -> None:
    times = {"timing_s/update_actor": 20.0, "timing_s/influence": 10.0, "timing_s/influence_pop_rows": 4.0}
    found = parts(PointSnapshot("a", "a", metrics={1: {**times, "timing_s/step": 50.0, "timing_s/gen": 5.0}}), 1)
    assert (found["rest of the update"], found["rest of the step"]) == (26.0, 15.0)
