"""The report's page and MLflow's comparison of the same real sweep, as Chromium draws them.

That they are pleasant to look at was seen by people (docs/img, taken by `python -m tests.screenshots`); here is checked that
they are drawn at all, with their plots, in light and dark, and that the documentation's pictures are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from reports.gallery.__main__ import snapshots
from tests.browser import CHROMIUM, MISSING, Page, browsing
from tests.screenshots import SWEEP, shoot_mlflow, shoot_report

IMAGES = Path(__file__).parent.parent / "docs" / "img"
Colour = tuple[int, int, int]

looks = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browsing() as tab:
        yield tab


def colours(path: Path) -> Counter[Colour]:
    """How often each colour occurs."""
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(1 << 24)
    return Counter({colour: number for number, colour in found or () if isinstance(colour, tuple)})


def ground(path: Path) -> Colour:
    return colours(path).most_common(1)[0][0]


@pytest.mark.slow
@looks
def test_the_reports_page_is_drawn_in_light_and_dark_with_its_plots(page: Page, tmp_path: Path) -> None:
    found = shoot_report(page, tmp_path)
    assert ground(found["top"]) == (0xFF, 0xFF, 0xFF)
    assert ground(found["dark"]) == (0x14, 0x18, 0x1D)
    assert colours(found["top"])[(0x1F, 0x23, 0x28)] > 500, "there is text"
    plotted = colours(found["plots"])
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert plotted[colour] > 500, "plots are drawn under the page's own policy"
    assert page.value("document.documentElement.scrollWidth <= innerWidth"), "nothing stands out to the side"


@pytest.mark.slow
@looks
def test_mlflow_compares_the_points_of_the_sweep_in_parallel_coordinates(page: Page, tmp_path: Path) -> None:
    path = shoot_mlflow(page, tmp_path)
    number = len(snapshots()[SWEEP].points)
    words = page.value("document.body.innerText")
    assert f"{number} matching runs" in words
    assert "Parallel Coordinates" in words
    assert all(point.name in words for point in snapshots()[SWEEP].points)
    drawn = "[...document.querySelectorAll('canvas.foreground')].some(canvas => canvas.getContext('2d')"
    drawn += ".getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte))"
    assert page.value(drawn), "lines are drawn"
    assert len(colours(path)) > 100


def test_the_documentations_pictures_are_there_and_light() -> None:
    found = {path.name: path.stat().st_size for path in IMAGES.glob("*.png")}
    assert {"report.png", "report-plots.png", "report-dark.png", "mlflow-compare.png"} <= found.keys()
    assert all(size < 400 * 1024 for size in found.values())
