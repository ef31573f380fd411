"""Colours of plots as the colour-blind and a grey printer see them (`tests.reports.colours`)."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from reports.plots.style import FILLS, INK, LIMIT, LINES
from tests.reports.colours import VISIONS, contrast, difference, lab, linear


def test_the_measures_are_the_published_ones() -> None:
    assert contrast("#000000") == pytest.approx(21)
    assert contrast("#777777") == pytest.approx(4.48, abs=0.01)
    assert difference("#FFFFFF", "#000000", "normal") == pytest.approx(100, abs=0.01)
    assert difference("#E41A1C", "#4DAF4A", "deuteranopia") < difference("#E41A1C", "#4DAF4A", "normal") / 2


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_of_lines_stay_apart(vision: str) -> None:
    colours = list(dict.fromkeys(colour for colour, _, _ in LINES))
    assert len(colours) == 5
    for one, other in combinations(colours, 2):
        assert difference(one, other, vision) > 15, (one, other)


def test_lines_are_visible_on_paper_and_differ_without_colour() -> None:
    assert all(contrast(colour) >= 3 for colour, _, _ in LINES)
    assert min(contrast(INK), contrast(LIMIT)) >= 7
    assert len({marker for _, marker, _ in LINES}) == len(LINES)


@pytest.mark.parametrize("vision", VISIONS)
def test_areas_that_touch_differ_by_colour_or_at_least_by_hatch(vision: str) -> None:
    for one, other in pairwise(FILLS):
        assert one.hatch != other.hatch
        assert difference(one.colour, other.colour, vision) > 15, (one, other)
    assert len(set(FILLS)) == len(FILLS)


def test_areas_that_touch_differ_in_grey() -> None:
    """Where the lightness is near, the hatch must tell: one of the two is then plain."""
    for one, other in pairwise(FILLS):
        lightness = abs(lab(linear(one.colour))[0] - lab(linear(other.colour))[0])
        assert lightness > 20 or not (one.hatch and other.hatch), (one, other)


def test_dark_hatches_show_on_their_ground() -> None:
    assert all(contrast(fill.colour, INK) >= 3 for fill in FILLS if fill.hatch)
