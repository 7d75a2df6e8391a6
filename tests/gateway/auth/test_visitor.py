"""Whom a request comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.gateway.auth.visitor import ANYBODY, TICKET, Question, Visitor, hide_ticket, principal

OWNERS = st.none() | st.text(max_size=5)


@given(owner=OWNERS)
def test_who_was_granted_the_task_sees_it_whoever_owns_it(owner: str | None) -> None:
    """But nobody sees a task that isn't there."""
    assert Visitor("v", granted=True).may_see(owner) is (owner is not None)
    assert ANYBODY.may_see(owner) is (owner is not None)


@given(owner=OWNERS, own=OWNERS)
def test_an_owner_sees_exactly_their_own(owner: str | None, own: str | None) -> None:
    """Letter by letter; a task that is nobody's isn't theirs, nor is it when their own name is empty."""
    assert Visitor("v", owner=own).may_see(owner) is (bool(owner) and owner == own)


@given(name=st.text())
def test_a_principal_is_short_and_fits_into_one_line_of_a_log(name: str) -> None:
    """Whatever a token's subject holds."""
    shown = principal("sub", name)
    assert len(shown) <= 104
    assert shown.isascii()
    assert shown.isprintable()


def test_principals_of_two_users_differ() -> None:
    """Limits count by them, also where a name has to be hashed."""
    names = ["ann", "bob", "a b", "a\nb", "é", "è", "x" * 101, "x" * 102]
    assert len({principal("sub", name) for name in names}) == len(names)
    assert principal("sub", "ann@example.org") == "sub:ann@example.org"


@pytest.mark.parametrize(
    ("query", "ticket", "rest"),
    [
        (b"", "", b""),
        (b"after=1-2", "", b"after=1-2"),
        (b"ticket=abc", "abc", b""),
        (b"after=1-2&ticket=abc&wait=3", "abc", b"after=1-2&wait=3"),
        (b"ticket=a&ticket=b", "b", b""),
        (b"myticket=abc", "", b"myticket=abc"),
        (b"a=ticket=abc", "", b"a=ticket=abc"),
        (b"ticket=\xff%0Aa%2Eb", "\xff\na.b", b""),
    ],
)
def test_the_ticket_is_taken_out_of_the_url(query: bytes, ticket: str, rest: bytes) -> None:
    """What follows, access logs too, sees the rest of the query, unchanged."""
    scope = {"type": "http", "query_string": query}
    hide_ticket(scope)
    assert scope["query_string"] == rest
    assert scope.get(TICKET, "") == ticket


def test_a_question_does_not_print_credentials() -> None:
    """Wherever it may come to be shown: a traceback, a debugger, a log."""
    question = Question("job-1", "read", "192.0.2.7", b"Bearer secret-1", b"session=secret-2", "secret-3")
    assert "secret" not in repr(question)
    assert question.has_credentials
    assert not Question("job-1", "read", "192.0.2.7", None, None, "").has_credentials
