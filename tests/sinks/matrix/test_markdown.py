from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sinks.matrix.markdown import as_html

ALLOWED = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**bold** and `code`", "<p><strong>bold</strong> and <code>code</code></p>"),
        ("one\ntwo", "<p>one<br>\ntwo</p>"),
        ("```py\nx < 1\n```", '<pre><code class="language-py">x &lt; 1\n</code></pre>'),
        ("3. c\n4. d", '<ol start="3">\n<li>c</li>\n<li>d</li>\n</ol>'),
        ("~~no~~", "<p><s>no</s></p>"),
        ("[a](https://x.example/?a=1&b=2)", '<p><a href="https://x.example/?a=1&amp;b=2">a</a></p>'),
        ("![a](https://x.example/spy.png)", '<p>!<a href="https://x.example/spy.png">a</a></p>'),
        ("<b>raw</b> *x*", "<p>&lt;b&gt;raw&lt;/b&gt; <em>x</em></p>"),
    ],
)
def test_markdown_becomes_html(markdown: str, html: str) -> None:
    """Formatting is kept, lines stay lines, HTML is text, and an image is a link."""
    assert as_html(markdown) == html


@pytest.mark.parametrize("text", ["plain", "a < b & c > d \"e\" 'f'", "  spaces  ", "ümläut 🙂"])
def test_a_text_without_markup_has_no_html(text: str) -> None:
    """Where the HTML would say the same, there is none."""
    assert as_html(text) == ""


@given(st.sampled_from(["> ", "- ", "1. "]), st.integers(1, 200))
def test_nothing_is_left_out_for_its_depth(mark: str, depth: int) -> None:
    """What stands deeper than the parser goes has no HTML at all, so the text itself is shown."""
    html = as_html(mark * depth + "here")
    assert html == "" or "here" in html
    assert depth > 15 or "here" in html


@pytest.mark.parametrize(
    "text", ["[a]: " + "x" * 3000 + "\n" + "[a] " * 3000, "a|" * 200 + "\n" + "-|" * 200 + "\na" * 300]
)
def test_html_that_would_be_far_too_much_is_none(text: str) -> None:
    """Short text can make long HTML."""
    assert as_html(text) == ""


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "<javascript:alert(1)>",
        '[x](https://a.example/"onmouseover="alert(1))',
        '```x" onload="alert(1)\nx\n```',
        "``` onload=alert(1)\nx\n```",
        '<a href="https://a.example" onclick="x">y</a>',
        "<style>*{display:none}</style>*x*",
        "![x](javascript:alert(1))",
        "<mx-reply><b>x</b></mx-reply> *y*",
    ],
)
def test_nothing_harmful_comes_through(attack: str) -> None:
    """No tag, attribute or scheme that would do something."""
    check(as_html(attack))


@given(st.text(st.sampled_from("<>&\"'[]()!`*_~#|-: \n/=abjsx1"), max_size=120))
def test_only_harmless_tags_come_of_any_text(text: str) -> None:
    """Whatever the text, what comes of it holds nothing but known tags with known attributes."""
    check(as_html(text))


def check(html: str) -> None:
    """Hold HTML to what Matrix rooms may hold."""
    for tag, attributes in re.findall(r"</?([a-zA-Z0-9-]+)([^>]*)>", html):
        assert tag in ALLOWED, html
        for name, value in re.findall(r'([a-zA-Z-]+)="([^"]*)"', attributes):
            assert (tag, name) in {("a", "href"), ("code", "class"), ("ol", "start")}, html
            if name == "href":
                assert value.partition(":")[0] in {"https", "http", "mailto"} or ":" not in value, html
            if name == "class":
                assert value.startswith("language-"), html
    assert "<" not in re.sub(r"</?[a-z0-9]+( [a-z]+=\"[^\"<>]*\")*>", "", html), html
