"""Colours as the colour-blind and a grey printer see them.

Colour blindness is simulated by Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision
Deficiency (2009), severity 1, on linear RGB; differences are distances in CIE 1976 L*a*b* under D65 (2.3 is just noticeable);
contrast is WCAG 2's, which asks 3 of graphical objects.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from reports.plots.style import FILLS, INK, LIMIT, LINES

Array = NDArray[np.float64]

VISIONS = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ @ np.ones(3)


def linear(colour: str) -> Array:
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: Array) -> Array:
    ratio = XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(one: str, other: str, vision: str) -> float:
    seen = VISIONS[vision]
    return float(np.linalg.norm(lab(seen @ linear(one)) - lab(seen @ linear(other))))


def contrast(colour: str, ground: str = "#FFFFFF") -> float:
    bright, dark = sorted((float(XYZ[1] @ linear(one)) for one in (colour, ground)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


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
