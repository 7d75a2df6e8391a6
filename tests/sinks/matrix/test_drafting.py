"""What is sent when, by the drafting alone; `Room` stands for a homeserver, also with its transaction ids."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.errors import SinkRefused
from bridge.events import Chunk, End, Position, Progress, Reset, State
from bridge.sinks.matrix.drafting import Draft, Drafting, Request
from bridge.sinks.matrix.layout import Limits
from bridge.sinks.matrix.memory import from_json, to_json
from bridge.sinks.matrix.message import LIVE, Content, Place, Style
from bridge.sinks.matrix.pace import LONGEST, MOST_EDITS
from bridge.view import View

PLACE = Place("!room:example.org")
CLOCK = 1_763_650_000.0


class Room:
    """A room on a homeserver: its events in order, and what a client that knows edits shows of them."""

    def __init__(self) -> None:
        self.events: list[Content] = []
        self.shown: dict[str, Content] = {}
        self._txns: dict[str, str] = {}

    def take(self, request: Request) -> str:
        if request.txn in self._txns:
            return self._txns[request.txn]
        event_id = f"${len(self.events)}"
        self._txns[request.txn] = event_id
        if request.content is None:
            del self.shown[request.target]
            self.events.append({"redacts": request.target})
            return event_id
        self.events.append(request.content)
        if request.begins:
            self.shown[event_id] = request.content
        else:
            assert request.content["m.relates_to"]["event_id"] == request.target
            assert request.target in self.shown, "an edit of what isn't there"
            self.shown[request.target] = request.content["m.new_content"]
        return event_id

    @property
    def bodies(self) -> list[str]:
        return [content["body"] for content in self.shown.values()]


class Desk:
    """A drafting with a room, a view and a clock of its own."""

    def __init__(self, style: Style | None = None, draft: Draft | None = None) -> None:
        self.room = Room()
        self.view = View("job-1")
        self.now = 1000.0
        self.style = style or Style()
        self._seq = itertools.count(1)
        self._txn = itertools.count()
        self.begin(draft or Draft())
        self.tell(State("running", 1))

    def begin(self, draft: Draft) -> None:
        self.drafting = Drafting("job-1", PLACE, self.style, draft, self.now, lambda: f"t{next(self._txn)}")

    def tell(self, *events: Any) -> None:
        for event in events:
            self.view.apply(Position(1, next(self._seq)), event)

    def next(self) -> Request | float:
        return self.drafting.next(self.view, self.now)

    def send(self) -> Request:
        """Send what is due, which must be something."""
        request = self.next()
        assert isinstance(request, Request), request
        self.drafting.accepted(self.room.take(request), self.now)
        return request

    def send_all(self) -> None:
        """Send until nothing lacks, as fast as it may go."""
        while (step := self.next()) != math.inf:
            if isinstance(step, Request):
                self.send()
            else:
                self.now = step


def test_the_first_text_is_sent_at_once() -> None:
    """And an answer that is quick never says that it thinks."""
    desk = Desk()
    desk.tell(Chunk("Hel"))
    assert desk.send().begins
    assert desk.room.bodies == ["Hel"]


def test_thinking_is_said_after_a_second() -> None:
    """Then the text comes into that same message."""
    desk = Desk()
    assert desk.next() == 1001.0
    desk.now = 1001.0
    desk.send()
    assert desk.room.bodies == ["Thinking…"]
    desk.tell(Chunk("Hello"))
    assert desk.next() == 1001.5
    desk.send_all()
    assert desk.room.bodies == ["Hello"]
    assert len(desk.room.events) == 2


def test_nothing_is_said_where_no_thinking_is_wanted() -> None:
    """Nothing is due before there is text."""
    assert Desk(Style(thinking="")).next() == math.inf


def test_the_newest_text_wins() -> None:
    """What came while a request was on its way goes in one edit, half a second after it."""
    desk = Desk()
    desk.tell(Chunk("a"))
    desk.send()
    desk.tell(Chunk("b"))
    desk.tell(Chunk("c"))
    assert desk.next() == 1000.5
    desk.now = 1000.5
    desk.send()
    assert desk.room.bodies == ["abc"]
    assert len(desk.room.events) == 2


def test_equal_text_is_not_sent() -> None:
    """A change that the room wouldn't see is none."""
    desk = Desk()
    desk.tell(Chunk("a"))
    desk.send()
    desk.tell(Chunk("hm", "reasoning"), Progress(0.5, "reading"))
    desk.now += 10
    assert desk.next() == math.inf


def test_the_last_edit_is_complete_and_without_the_live_mark() -> None:
    """It goes half a second after the one before, however old the message is."""
    desk = Desk()
    desk.tell(Chunk("a"))
    desk.send()
    assert LIVE in next(iter(desk.room.shown.values()))
    desk.now += 500
    desk.tell(Chunk("b"))
    desk.send()
    desk.tell(End("succeeded"))
    assert desk.next() == desk.now + 0.5
    desk.send_all()
    (shown,) = desk.room.shown.values()
    assert shown["body"] == "ab"
    assert LIVE not in shown


def test_a_task_that_did_not_stream_is_one_message() -> None:
    """One event, complete from the beginning."""
    desk = Desk()
    desk.tell(Chunk("all"), End("succeeded"))
    desk.send_all()
    (event,) = desk.room.events
    assert event["body"] == "all"
    assert LIVE not in event


def test_a_long_answer_goes_on_in_a_second_message() -> None:
    """The first is complete before the second begins, and is never touched again."""
    desk = Desk()
    desk.tell(Chunk("a" * 15_000))
    desk.send()
    desk.tell(Chunk("b" * 10_000))
    desk.now += 0.5
    assert not desk.send().live
    desk.now += 0.5
    second = desk.send()
    assert (second.begins, second.live, second.index) == (True, True, 1)
    desk.tell(Chunk("c"), End("succeeded"))
    desk.send_all()
    assert "".join(desk.room.bodies) == "a" * 15_000 + "b" * 10_000 + "c"
    assert len(desk.room.events) == 4


def test_a_message_that_was_edited_often_enough_is_left_alone() -> None:
    """Until it is completed; what doesn't fit into it begins the next all the same."""
    desk = Desk()
    desk.tell(Chunk("a"))
    desk.send()
    for _ in range(MOST_EDITS):
        desk.tell(Chunk("b"))
        desk.now += LONGEST
        assert desk.send().live
    desk.tell(Chunk("c"))
    for _ in range(5):
        desk.now += LONGEST
        assert isinstance(desk.next(), float)
    desk.tell(Chunk("d" * 20_000))
    desk.now += LONGEST
    assert not desk.send().live
    desk.now += LONGEST
    assert desk.send().begins
    assert "".join(desk.room.bodies) == desk.view.text


def test_a_request_without_an_answer_is_repeated_as_it_was() -> None:
    """With its transaction id, however much text has come since; then the newest text goes."""
    desk = Desk()
    desk.tell(Chunk("a"))
    request = desk.next()
    assert isinstance(request, Request)
    desk.room.take(request)
    desk.drafting.unanswered(desk.now, 2.0)
    desk.tell(Chunk("b"))
    assert desk.next() == 1002.0
    desk.now = 1002.0
    assert desk.send() == request
    desk.send_all()
    assert desk.room.bodies == ["ab"]
    assert len(desk.room.events) == 2


def test_too_many_means_later_and_with_the_newest_text() -> None:
    """The refused request is forgotten; what goes at the named time is another, with another id."""
    desk = Desk()
    desk.tell(Chunk("a"))
    desk.send()
    desk.tell(Chunk("b"))
    desk.now += 0.5
    refused = desk.next()
    assert isinstance(refused, Request)
    desk.drafting.limited(desk.now, 4.0)
    desk.tell(Chunk("c"))
    assert desk.next() == desk.now + 4.0
    desk.now += 4.0
    assert desk.send().txn != refused.txn
    assert desk.room.bodies == ["abc"]
    desk.tell(Chunk("d"))
    assert desk.next() == desk.now + 4.0  # no quicker from then on


def test_a_task_that_begins_anew_uses_its_messages_again() -> None:
    """What it said is replaced; messages that the new text doesn't need are emptied, then removed."""
    desk = Desk()
    desk.tell(Chunk("a" * 20_000))
    desk.send_all()
    assert len(desk.room.shown) == 2
    desk.tell(Reset("retry", 2), State("running", 2))
    desk.send_all()
    assert desk.room.bodies == ["Thinking…", "…"]
    desk.tell(Chunk("short"), End("succeeded"))
    desk.send_all()
    assert desk.room.bodies == ["short"]


def test_what_is_too_large_is_sent_smaller() -> None:
    """Without HTML first, then in more messages; at the end it says that it isn't the size."""
    desk = Desk()
    desk.tell(Chunk("**a** " * 2000), End("succeeded"))
    for _ in range(2):
        assert isinstance(desk.next(), Request)
        desk.drafting.too_large("too large")
    desk.send_all()
    assert "".join(desk.room.bodies) == "**a** " * 2000
    assert len(desk.room.shown) == 2
    assert all("formatted_body" not in content for content in desk.room.shown.values())
    for _ in range(4):
        desk.drafting.too_large("too large")
    with pytest.raises(SinkRefused, match="too large"):
        desk.drafting.too_large("too large")


@pytest.mark.parametrize("later", ["limited", "postponed"])
def test_a_request_that_may_have_arrived_is_never_made_anew(later: str) -> None:
    """Not even when its repetition is refused: the first one may be in the room."""
    desk = Desk()
    desk.tell(Chunk("a"))
    request = desk.next()
    assert isinstance(request, Request)
    desk.room.take(request)
    desk.drafting.unanswered(desk.now, 1.0)
    getattr(desk.drafting, later)(desk.now, 1.0)
    desk.tell(Chunk("b"), End("succeeded"))
    desk.send_all()
    assert desk.room.bodies == ["ab"]


def test_a_request_that_was_not_sent_is_made_anew() -> None:
    """With the newest text, when time has come."""
    desk = Desk()
    desk.tell(Chunk("a"))
    assert isinstance(desk.next(), Request)
    desk.drafting.postponed(desk.now, 1.0)
    desk.tell(Chunk("b"))
    assert desk.next() == 1001.0
    desk.now = 1001.0
    desk.send()
    assert desk.room.bodies == ["ab"]


class AnyAnswer(RuleBasedStateMachine):
    """Text, retries, failures of every kind and restarts, in any order: at the end the room shows the answer,
    and at no time does it show anything twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.desk.drafting._limits = Limits(text_bytes=100)
        self.kept = b""

    @property
    def running(self) -> bool:
        return not self.desk.view.ended

    @precondition(lambda self: self.running)
    @rule(text=st.text(st.sampled_from("ab \n*`"), min_size=1, max_size=150))
    def text_comes(self, text: str) -> None:
        self.desk.tell(Chunk(text))

    @precondition(lambda self: self.running)
    @rule()
    def it_begins_anew(self) -> None:
        self.desk.tell(Reset("retry", 2), State("running", 2))

    @precondition(lambda self: self.running)
    @rule(state=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def it_ends(self, state: str) -> None:
        self.desk.tell(End(state))

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.desk.now += seconds

    @rule(
        fate=st.sampled_from(
            [
                "good",
                "good",
                "good",
                "limited",
                "lost",
                "unseen",
                "postponed",
                "killed before",
                "killed after",
            ]
        )
    )
    def something_is_sent(self, fate: str) -> None:
        desk = self.desk
        request = desk.next()
        if not isinstance(request, Request):
            return
        if request.begins:
            self.kept = self.keep()
        event_id = desk.room.take(request) if fate in ("good", "lost", "killed after") else ""
        if fate == "good":
            desk.drafting.accepted(event_id, desk.now)
            self.kept = self.keep()
        elif fate == "limited":
            desk.drafting.limited(desk.now, 3.0)
        elif fate == "postponed":
            desk.drafting.postponed(desk.now, 1.0)
        elif fate in ("lost", "unseen"):
            desk.drafting.unanswered(desk.now, 1.0)
        else:
            self.killed()

    @rule()
    def killed(self) -> None:
        """Another process goes on with what was kept last."""
        limits = self.desk.drafting._limits
        self.desk.now += 7000.0
        self.desk.begin(from_json(self.kept, self.desk.now, CLOCK + self.desk.now))
        self.desk.drafting._limits = limits

    def keep(self) -> bytes:
        return to_json(self.desk.drafting.draft, self.desk.now, CLOCK + self.desk.now)

    @invariant()
    def no_message_is_there_twice(self) -> None:
        parts = [content["bridge.task"]["part"] for content in self.desk.room.shown.values()]
        assert parts == list(range(len(parts)))

    def teardown(self) -> None:
        if self.running:
            self.desk.tell(End("succeeded"))
        self.desk.send_all()
        self.no_message_is_there_twice()
        shown = list(self.desk.room.shown.values())
        assert not any(LIVE in content for content in shown)
        said = "".join(content["body"] for content in shown)
        text = self.desk.view.text
        assert said.startswith(text if text.strip() else "")
        assert len(said) - len(text) < 40


TestAnyAnswer = AnyAnswer.TestCase
TestAnyAnswer.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
