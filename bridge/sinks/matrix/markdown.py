"""Markdown as the HTML that Matrix rooms may hold. Pure.

The text comes from anywhere, a model above all. So HTML in it is text; what the parser makes is cleaned once
more by another library; and images, which would be fetched by whoever reads, are links. Tags and attributes
are those that the specification lets clients show (client-server API, `m.room.message`).
"""

from __future__ import annotations

import html
from typing import Final

import nh3
from markdown_it import MarkdownIt

_TAGS: Final = frozenset(
    ("a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
     "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul")
)  # fmt: skip
_ATTRIBUTES: Final = {"a": {"href"}, "code": {"class"}, "ol": {"start"}}
_SCHEMES: Final = frozenset({"https", "http", "mailto"})

_DEEPEST: Final = 40
"""So many blocks may stand in each other. What is deeper the parser leaves out, and we would lose it."""
_LONGEST: Final = 60_000
"""Characters of HTML that could still be sent. A few references or an odd table can make millions."""

# Lines of an answer stay lines (`breaks`): what a command prints isn't written as Markdown.
_PARSER: Final = (
    MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": _DEEPEST})
    .enable(["table", "strikethrough"])
    .disable("image")
)


def as_html(markdown: str) -> str:
    """The HTML of a text, or nothing where it would say no more than the text itself, or be too much."""
    tokens = _PARSER.parse(markdown)
    if any(token.level >= _DEEPEST - 1 for token in tokens):
        return ""
    made = str(_PARSER.renderer.render(tokens, _PARSER.options, {})).strip()
    if len(made) > _LONGEST:
        return ""
    clean = nh3.clean(
        made,
        tags=set(_TAGS),
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=_only_languages,
        url_schemes=set(_SCHEMES),
        link_rel=None,
    )
    return "" if clean == f"<p>{html.escape(markdown.strip(), quote=False)}</p>" else clean


def escaped(text: str) -> str:
    """A text that is no Markdown, as HTML."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _only_languages(tag: str, name: str, value: str) -> str | None:
    if (tag, name) == ("code", "class") and not value.startswith("language-"):
        return None
    return value
