"""The report as one HTML page that needs nothing else: images inlined, no script, and a policy that forbids both network and
script to whatever a run's names might smuggle in.

It is the Markdown report, read by a CommonMark parser that takes no HTML. Beyond that, only links and images could lead
somewhere: links keep to http, https, mailto and places beside the report, and an image is shown when it is one of the
report's own plots.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_TEMPLATES = Path(__file__).parent / "templates" / "html"
_PLOT = re.compile(r"plots/([a-z][a-z0-9_-]*)\.(?:png|svg)")
_LINK = re.compile(r"(?:https?:|mailto:|#|(?![a-z][a-z0-9+.-]*:|//|\\))", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_RESULTS = {"Pass": "pass", "Fail": "fail"}
"""Cells that are coloured; their words stay."""

ReadImage = Callable[[str], tuple[str, bytes] | None]
"""Name of a plot -> MIME type and content; None where it was not drawn."""


def to_html(report: str, folder: Path) -> str:
    """`report.md` as a page.

    Args:
        report: Markdown.
        folder: where the report stands; its plots are read from `plots/` beneath.

    Raises:
        OSError: a plot is there and cannot be read.
    """
    return page(report, functools.partial(_read_plot, folder / "plots"))


def page(report: str, read_image: ReadImage) -> str:
    """The same with the images from anywhere: equal arguments give equal text."""
    parser = _parser()
    tokens = parser.parse(report)
    outline = _Outline()
    for place, token in enumerate(tokens):
        _prepare(tokens, place, token, outline)
    body = parser.renderer.render(tokens, parser.options, {"read_image": read_image})
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return str(
        _template().render(title=outline.title, sections=outline.sections, body=body, style=style, style_hash=digest)
    )


@dataclass
class _Outline:
    title: str = "Report"
    sections: list[tuple[str, str]] = field(default_factory=list)
    """(anchor, words) of every heading below the title."""
    anchors: dict[str, int] = field(default_factory=dict)

    def add(self, words: str, level: str) -> str:
        """Notes a heading and gives its anchor."""
        name = "-".join(_WORD.findall(words.lower())) or "section"
        self.anchors[name] = self.anchors.get(name, 0) + 1
        anchor = name if self.anchors[name] == 1 else f"{name}-{self.anchors[name]}"
        if level in ("h1", "h2") and not self.sections:
            self.title = words or self.title
        else:
            self.sections.append((anchor, words))
        return anchor


def _prepare(tokens: Sequence[Token], place: int, token: Token, outline: _Outline) -> None:
    """Anchors of headings; classes of cells instead of styles, which the page's policy forbids."""
    if token.type == "heading_open" and token.tag in ("h1", "h2", "h3"):
        token.attrSet("id", outline.add(_words(tokens[place + 1]), token.tag))
    elif token.type in ("th_open", "td_open"):
        right = "right" in str(token.attrs.pop("style", ""))
        kinds = [
            *(["figure"] if right else []),
            *([_RESULTS[word]] if (word := _words(tokens[place + 1])) in _RESULTS else []),
        ]
        if kinds:
            token.attrSet("class", " ".join(kinds))


def _words(inline: Token) -> str:
    """The text of an inline token without its marks."""
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.validateLink = lambda url: _LINK.match(url.strip()) is not None  # type: ignore[method-assign]
    parser.add_render_rule("image", _image)
    parser.add_render_rule("table_open", lambda *_: '<div class="table"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _image(
    renderer: Any, tokens: Sequence[Token], place: int, options: Mapping[str, Any], env: MutableMapping[str, Any]
) -> str:
    """A plot with its content in the page; of any other image, the words that stand for it."""
    from markdown_it.common.utils import escapeHtml

    alt = escapeHtml(renderer.renderInlineAsText(tokens[place].children or [], options, env))
    found = _PLOT.fullmatch(str(tokens[place].attrs.get("src", "")))
    image = env["read_image"](found[1]) if found else None
    if image is None:
        return f"<em>{alt}</em>"
    kind, content = image
    return f'<img src="data:{kind};base64,{base64.b64encode(content).decode()}" alt="{alt}">'


def _read_plot(folder: Path, name: str) -> tuple[str, bytes] | None:
    """Drawn to be scaled where that is there: it is sharp in print."""
    for suffix, kind in _TYPES.items():
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return kind, path.read_bytes()
    return None
