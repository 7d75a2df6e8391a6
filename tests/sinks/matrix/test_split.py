from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sinks.matrix.split import json_size, split

LIMIT = 60
texts = st.text(st.sampled_from('ab \n`~"\\\x01é🙂\ud800'), max_size=400) | st.text(max_size=300)


@given(texts)
def test_no_text_is_lost(text: str) -> None:
    """The pieces, joined, are the text, whatever it holds."""
    pieces, left_out = split(text, LIMIT, 10_000)
    assert "".join(piece.text for piece in pieces) == text
    assert left_out == 0


@given(texts, st.integers(0, 3))
def test_what_is_left_out_is_counted(text: str, most: int) -> None:
    """With fewer pieces than the text needs, the number of characters after them is told."""
    pieces, left_out = split(text, LIMIT, most)
    assert len(pieces) <= most
    assert sum(len(piece.text) for piece in pieces) + left_out == len(text)


@given(texts)
def test_every_piece_fits(text: str) -> None:
    """As JSON, no piece is over the limit, and none is empty."""
    pieces, _ = split(text, LIMIT, 10_000)
    assert all(json_size(piece.text) - 2 > 0 and json_size(piece.text) <= LIMIT for piece in pieces)


@given(texts, texts)
def test_pieces_stay_while_the_text_grows(text: str, more: str) -> None:
    """Pieces that are followed by another are the same when more text has come."""
    before, _ = split(text, LIMIT, 10_000)
    after, _ = split(text + more, LIMIT, 10_000)
    assert after[: max(len(before) - 1, 0)] == before[:-1]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("x" * 20 + "\n\n" + "y" * 10 + "\n" + "z" * 30, "x" * 20 + "\n\n"),
        ("x" * 30 + "\n" + "y" * 5 + " " + "z" * 30, "x" * 30 + "\n"),
        ("x" * 30 + " " + "y" * 40, "x" * 30 + " "),
        ("\n\n" + "x" * 60, "\n\n" + "x" * 34),
        ("x" * 60, "x" * 38),
        ("é" * 30, "é" * 19),
        ('"' * 30, '"' * 19),
    ],
)
def test_a_text_is_cut_at_a_good_place(text: str, first: str) -> None:
    """After a paragraph, a line or a word, unless that would leave half of the message empty."""
    assert split(text, 40, 10)[0][0].text == first


@pytest.mark.parametrize(
    ("text", "openings"),
    [
        ("```python\n" + "x = 1\n" * 10 + "```\nend\n" + "y " * 30, ["", "```python", ""]),
        ("~~~~\n```\n" + "x = 1\n" * 14, ["", "~~~~", "~~~~"]),
        ("```no`fence\n" + "x = 1\n" * 8, ["", ""]),
        ("````\n```\n" + "x = 1\n" * 8, ["", "````"]),
        ("```\nx\n```\n" + "x = 1\n" * 8, ["", ""]),
    ],
)
def test_code_that_is_cut_goes_on_as_code(text: str, openings: list[str]) -> None:
    """A piece that begins inside a fenced block knows the line that opened it; a closed block is over."""
    assert [piece.opening for piece in split(text, 50, 3)[0]] == openings
