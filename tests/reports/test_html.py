"""The page: the report's words, nothing from outside, and no way in for what a run is called."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.html import page, to_html
from reports.plots.draw import draw
from reports.report import render
from reports.snapshot import AttemptSnapshot, GitState, PointSnapshot, SweepSnapshot
from tests.reports.colours import contrast

TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "nav",
        "main",
        "a",
        "div",
        "img",
        "em",
        "strong",
        "code",
        "pre",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "p",
        "ul",
        "ol",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "br",
        "hr",
    ),
    "blockquote",
}
ATTRIBUTES = {"href", "src", "alt", "id", "class", "lang", "charset", "name", "content", "http-equiv", "title", "start"}


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.found if attribute in attrs]


def assert_harmless(text: str) -> Reader:
    read = Reader(text)
    assert {tag for tag, _ in read.found} <= TAGS
    assert {name for _, attrs in read.found for name in attrs} <= ATTRIBUTES
    assert all(src.startswith("data:image/") for src in read.values("src"))
    for href in read.values("href"):
        assert re.match(r"https?:|mailto:|#", href) or not re.match(r"[^/?#]*:", href), href
    assert text.count("<style") == 1
    return read


def no_image(_: str) -> None:
    return None


def test_the_page_says_what_the_report_says(factor_sweep: SweepSnapshot) -> None:
    report = render(factor_sweep)
    read = assert_harmless(page(report, no_image))
    for words in ("2026-02-22 - exclude-self-response", "infl-excl-allsel-f128", "6,129,414", "-265.25", "Validation"):
        assert words in read.text
    cells = sum(tag in ("td", "th") for tag, _ in read.found)
    lines = [line for line in report.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert cells == sum(len(re.split(r"(?<!\\)\|", line)) - 2 for line in lines)
    assert page(report, no_image) == page(report, no_image)


def test_sections_are_linked_from_the_top(factor_sweep: SweepSnapshot) -> None:
    read = assert_harmless(page(render(factor_sweep), no_image))
    anchors = [href[1:] for href in read.values("href") if href.startswith("#")]
    assert "experiment-results" in anchors
    assert "validation" in anchors
    assert set(anchors) <= set(read.values("id"))
    assert len(anchors) == len(set(anchors))


def test_figures_stand_right_and_verdicts_are_marked_without_inline_styles(factor_sweep: SweepSnapshot) -> None:
    text = page(render(factor_sweep), no_image)
    assert '<td class="figure">6,129,414</td>' in text
    assert '<td class="pass">Pass</td>' in text
    assert "style=" not in text


def test_the_policy_allows_this_style_alone(factor_sweep: SweepSnapshot) -> None:
    text = page(render(factor_sweep), no_image)
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in text
    assert "url(" not in style
    assert "@import" not in style


def test_text_stands_out_in_light_and_dark(factor_sweep: SweepSnapshot) -> None:
    style = page(render(factor_sweep), no_image).split("<style>")[1].split("</style>")[0]
    light, dark, *_ = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in style.split(":root")[1:])
    for colours in (light, dark):
        for name in ("ink", "soft", "link", "pass", "fail"):
            assert min(contrast(colours[name], colours[ground]) for ground in ("ground", "panel")) >= 4.5, name


def test_plots_are_inside_the_page_with_their_words(factor_sweep: SweepSnapshot, tmp_path: Path) -> None:
    for name in ("scores", "timing"):
        (tmp_path / "plots").mkdir(exist_ok=True)
        (tmp_path / "plots" / f"{name}.png").write_bytes(b"png of " + name.encode())
    (tmp_path / "plots" / "scores.svg").write_bytes(b"<svg/>")
    read = assert_harmless(to_html(render(factor_sweep), tmp_path))
    images = [attrs for tag, attrs in read.found if tag == "img"]
    assert [image["src"] for image in images] == [
        f"data:image/svg+xml;base64,{base64.b64encode(b'<svg/>').decode()}",
        f"data:image/png;base64,{base64.b64encode(b'png of timing').decode()}",
    ], "plots that were not drawn leave their words"
    assert "standard deviations from 0.088 to 0.207" in str(images[0]["alt"])
    assert "exponent -2.25" in read.text


def test_a_drawn_report_is_one_file_without_links_to_others(factor_sweep: SweepSnapshot, tmp_path: Path) -> None:
    one = dataclasses.replace(factor_sweep, points=factor_sweep.points[:1])
    drawn = draw(one, tmp_path / "plots")
    read = assert_harmless(to_html(render(one), tmp_path))
    assert sum(tag == "img" for tag, _ in read.found) == len(drawn) / 2 > 0
    assert "plots/" not in " ".join(read.values("href"))


@pytest.mark.parametrize(
    "markdown",
    [
        "![x](plots/../secret.png)",
        "![x](../plots/scores.png)",
        "![x](/etc/passwd)",
        "![x](https://example.org/pixel.png)",
        "![x](data:image/svg+xml;base64,PHN2Zy8+)",
        "![x](plots/scores.png?y)",
        "![x](plots/%2e%2e/a.png)",
    ],
)
def test_images_other_than_the_plots_are_words(markdown: str) -> None:
    asked: list[str] = []
    read = assert_harmless(page(markdown, lambda name: asked.append(name) or ("image/png", b"")))  # type: ignore[func-returns-value]
    assert asked == []
    assert not any(tag == "img" for tag, _ in read.found)
    assert "x" in read.text.rpartition("}")[2], "its words are left"


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("https://example.org/a?b=c", True),
        ("#notes", True),
        ("report-points.csv", True),
        ("mailto:a@example.org", True),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        ("&#106;avascript:alert(1)", False),
        ("vbscript:x", False),
        ("data:text/html,x", False),
        ("file:///etc/passwd", False),
        ("//example.org/x", False),
    ],
)
def test_links_lead_to_the_web_or_beside_the_report(target: str, kept: bool) -> None:
    read = assert_harmless(page(f"see [here]({target})", no_image))
    assert any(tag == "a" for tag, _ in read.found) is kept
    assert "here" in read.text


ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><script>1</script>",
    "![p](https://example.org/p.png)",
    "[x](javascript:alert(1))",
    "<svg/onload=alert(1)>",
    "&lt;script&gt;",
    "a | b \\| c \\\\| d",
    "`</code><b>`",
    "</table><iframe src='//x'></iframe>",
    "<!-- --><a href='javascript:1'>",
    "{{ 7 * 7 }} {% raw %}",
    "<https://example.org/auto>",
    "<javascript:alert(1)>",
    "### not a heading\n# nor this",
]


def attacked(words: str) -> SweepSnapshot:
    """A sweep in which every text that people and runs choose is this one."""
    point = PointSnapshot(
        id=words,
        name=words,
        parameters={words: words, "factor": 1},
        replicate={},
        state="failed",
        verdict=words,
        reason=words,
        anomalies=((words, words),),
        attempts=(AttemptSnapshot(1, words, words, words, 1, reason=words, patch={words: words}),),
        metrics={1: {words: 1.0, "timing_s/step": 2.0, "actor/grad_norm": 1.0}},
        evidence=(words,),
        folder=words,
    )
    other = dataclasses.replace(point, id="other", name="other", parameters={words: "other", "factor": 2})
    return SweepSnapshot(
        name=words,
        description=words,
        state=words,
        spec_path=words,
        command=words,
        config=words,
        profile=words,
        overrides=(words,),
        axes=(words, "factor"),
        points=(point, other),
        git=GitState(words, words, True, words, words, words, False),
        environment={words: words},
    )


@pytest.mark.parametrize("words", ATTACKS)
def test_no_name_becomes_markup(words: str) -> None:
    read = assert_harmless(page(render(attacked(words)), no_image))
    levels = [tag for tag, _ in read.found if tag in ("h1", "h2", "h3")]
    assert levels[0] == "h2"
    assert set(levels[1:]) <= {"h3"}, "a name makes no heading"


@given(st.text(alphabet=st.sampled_from("<>\"'&`|\\[]()!#*_\n\t /:;=-{}%ascriptonerrorhref0é\x00"), max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_combination_of_marks_becomes_markup(words: str) -> None:
    assert_harmless(page(render(attacked(words)), no_image))


@given(st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_text_at_all_makes_a_harmless_page(words: str) -> None:
    assert_harmless(page(words, no_image))
