"""The protocol without a server: what is sent next, after each kind of answer."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from bridge.codec import encode
from bridge.errors import StoreError, StoreUnavailable
from bridge.events import Data, Position
from bridge.settings import Settings
from bridge.store.keys import Keys
from bridge.store.scripts import Answer, Call, Calls
from bridge.worker import attempt as module
from bridge.worker.attempt import Attempt
from bridge.worker.batch import BATCH_BYTES
from bridge.worker.buffer import PROGRESS_INTERVAL_SECONDS, Buffer
from bridge.worker.outcome import Ending

CALLS = Calls(Keys("bridge:", 0, 86_400_000, 3_600_000))
SETTINGS = Settings(flush_milliseconds=0)


class Bench:
    """An attempt, and what its test says in Redis's place."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.now = 1000.0
        self.buffer = Buffer(settings.max_task_bytes, settings.flush_bytes)
        self.attempt = Attempt("t", settings, self.buffer)
        self.generation = 0
        self.calls: list[Call] = []

    def next(self) -> list[str]:
        """The scripts that it wants to run now."""
        self.calls = self.attempt.next_calls(CALLS, self.generation, self.now)
        return [call.script.name for call in self.calls]

    def answer(self, *replies: Answer | StoreError) -> None:
        """Answer them."""
        self.attempt.answered(self.calls, replies, self.now)

    def opened(self) -> Bench:
        """After an answered `open`."""
        assert self.next() == ["open"]
        self.answer(reply("applied"))
        return self

    def arguments(self, index: int = -1) -> tuple[Any, ...]:
        """One call's own arguments."""
        return self.calls[index].args[3:]


def reply(verdict: str, *, batch: int = 0, attempt: int = 1, **more: Any) -> Answer:
    """What a script answers."""
    fields: dict[str, Any] = {"cancel_requested": False, "state": "running", "code": "", "now": 5000, **more}
    return Answer(verdict, Position(4000, 1), attempt, batch, **fields)


def test_open_goes_in_front_of_the_first_batch() -> None:
    """Nothing waits for the answer to `open`: both are one round trip."""
    bench = Bench()
    bench.buffer.add_text("x", "text")
    assert bench.next() == ["open", "append"]
    bench.answer(reply("applied"), reply("applied", batch=1))
    assert bench.next() == []
    bench.buffer.add_text("y", "text")
    assert bench.next() == ["append"]
    assert bench.arguments()[1] == 2


def test_a_short_task_is_one_round_trip() -> None:
    """`open` and the end with all text go together."""
    bench = Bench()
    bench.buffer.add_text("x", "text")
    bench.buffer.close()
    bench.attempt.end(Ending("succeeded"))
    assert bench.next() == ["open", "close"]
    bench.answer(reply("applied"), reply("applied", batch=1, state="succeeded"))
    assert (bench.attempt.over, bench.attempt.confirmed) == (True, True)
    assert bench.attempt.done.is_set()
    assert bench.next() == []


def test_what_has_no_answer_is_sent_again_unchanged() -> None:
    """The very same batch, though more has been reported meanwhile."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    assert bench.next() == ["append"]
    (first,) = bench.calls
    bench.buffer.add_text("y", "text")
    bench.answer(StoreUnavailable("away"))
    assert bench.next() == ["append"]
    assert bench.calls == [first]
    bench.answer(reply("seen", batch=1))
    assert bench.next() == ["append"]
    assert bench.arguments()[4:] == ("chunk", b'{"text":"y"}')


@pytest.mark.parametrize(
    "loss",
    [
        reply("lost", attempt=0),
        reply("gap", batch=0),
        reply("fenced", attempt=0),
    ],
)
def test_a_loss_is_repaired_first(loss: Answer) -> None:
    """`restore` brings what was acknowledged; the batch without an answer follows with its old number."""
    bench = Bench().opened()
    bench.buffer.add_text("one", "text")
    bench.next()
    bench.answer(reply("applied", batch=1))
    bench.buffer.add_text("two", "text")
    bench.next()
    (second,) = bench.calls
    bench.answer(loss)
    assert bench.next() == ["restore"]
    token, number, name, reason, batch, *_, events = (*bench.arguments()[:5], bench.arguments()[12:])
    assert (number, reason, batch) == (1, "log_lost", 1)
    assert events == ("chunk", b'{"text":"one"}')
    bench.answer(StoreUnavailable("away"))
    assert bench.next() == ["restore"]
    assert bench.arguments()[:3] == (token, number, name)
    bench.answer(reply("applied", batch=1))
    assert bench.next() == ["append"]
    assert bench.calls == [second]


def test_a_renewal_that_knows_less_is_a_loss() -> None:
    """A batch number below what was acknowledged means that Redis went back in time."""
    bench = Bench().opened()
    bench.buffer.add_text("one", "text")
    bench.next()
    bench.answer(reply("applied", batch=1))
    bench.now += SETTINGS.cancel_check_seconds
    assert bench.next() == ["renew"]
    bench.answer(reply("applied", batch=0))
    assert bench.next() == ["restore"]


def test_another_server_is_repaired_before_anything_else() -> None:
    """When the connection leads elsewhere, an opened attempt restores; one that isn't opens."""
    bench = Bench()
    bench.generation = 1
    assert bench.next() == ["open"]
    bench.generation = 2
    assert bench.next() == ["open"]
    bench.answer(reply("applied"))
    bench.generation = 3
    bench.buffer.add_text("x", "text")
    assert bench.next() == ["restore"]
    bench.answer(reply("applied"))
    assert bench.next() == ["append"]


def test_a_newer_attempt_stops_this_one() -> None:
    """Fenced: the hook says stop, and nothing is sent any more, not even an end."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    bench.next()
    bench.answer(reply("fenced", attempt=2))
    assert bench.attempt.over
    assert not bench.attempt.confirmed
    assert not bench.buffer.go_on
    assert not bench.buffer.cancel_requested
    bench.attempt.end(Ending("succeeded"))
    assert bench.next() == []


def test_a_fenced_repair_stops_this_attempt() -> None:
    """Whether a loss or another worker: `restore` decides."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    bench.next()
    bench.answer(reply("lost"))
    bench.next()
    bench.answer(reply("fenced", attempt=1))
    assert bench.attempt.over
    assert not bench.buffer.go_on


def test_worker_lost_is_taken_back() -> None:
    """The one end that isn't final, also after `open` whose first answer got lost."""
    for opened in (True, False):
        bench = Bench()
        if opened:
            bench.opened()
        bench.buffer.add_text("x", "text")
        bench.next()
        ended = reply("ended", state="failed", code="worker_lost")
        bench.answer(*([ended] if opened else [ended, ended]))
        assert bench.next() == ["restore"]
        assert bench.arguments()[3] == "worker_returned"
        bench.answer(reply("applied"))
        assert bench.attempt.begun.is_set()
        assert bench.next() == ["append"]


@pytest.mark.parametrize("ours", [True, False])
def test_nothing_is_told_of_a_repair_that_another_attempt_would_need(
    ours: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A lost task that was asked to stop refuses a new attempt, as it does one whose `open` had been done:
    which of both this is `restore` decides, and only then it is told.
    """
    caplog.set_level(logging.INFO)
    bench = Bench()
    assert bench.next() == ["open"]
    bench.answer(reply("ended", state="failed", code="worker_lost", cancel_requested=True))
    assert bench.next() == ["restore"]
    assert caplog.messages == []
    bench.answer(reply("applied" if ours else "fenced", cancel_requested=True))
    assert bench.buffer.cancel_requested
    assert bench.attempt.over is not ours
    (message,) = caplog.messages
    assert ("was declared lost" if ours else "was cancelled before this attempt began") in message


def test_any_other_end_is_final() -> None:
    """Somebody else has ended the task: stop."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    bench.next()
    bench.answer(reply("ended", state="succeeded"))
    assert bench.attempt.over
    assert not bench.buffer.go_on
    assert not bench.buffer.cancel_requested


def test_a_task_cancelled_before_it_began_gets_no_end() -> None:
    """`open` says so; what stood behind it in the pipeline means nothing."""
    bench = Bench()
    bench.buffer.add_text("x", "text")
    bench.next()
    bench.answer(
        reply("ended", state="cancelled", cancel_requested=True, attempt=0), reply("fenced", attempt=0)
    )
    assert bench.attempt.over
    assert bench.buffer.cancel_requested
    assert not bench.buffer.go_on


def test_an_end_whose_answer_got_lost_is_ours() -> None:
    """A repeated [open, close] finds the task ended with our batch number."""
    bench = Bench()
    bench.attempt.end(Ending("failed", {"code": "worker_lost", "message": "a name of the work's own"}))
    assert bench.next() == ["open", "close"]
    bench.answer(StoreUnavailable("away"), StoreUnavailable("away"))
    assert bench.next() == ["open", "close"]
    bench.answer(reply("ended", batch=1, state="failed", code="worker_lost"), reply("seen", batch=1))
    assert (bench.attempt.over, bench.attempt.confirmed) == (True, True)


def test_a_full_log_is_compacted() -> None:
    """A log that old progress has filled is written anew; the refused batch follows, and nothing is lost."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    bench.next()
    bench.answer(reply("applied", batch=1))
    for number in (2, 3, 4):  # as often as need be
        bench.now += module.REPAIR_PAUSE_SECONDS
        bench.buffer.add_progress(number / 10, None)
        bench.next()
        batch = bench.calls[-1]
        renewed = [reply("applied", batch=number - 1)] * (len(bench.calls) - 1)
        bench.answer(*renewed, reply("full", batch=number - 1))
        assert bench.next() == ["restore"]
        assert bench.arguments()[3:5] == ("compacted", number - 1)
        assert len(bench.arguments()[12:]) == (2 if number == 2 else 4)
        bench.answer(reply("applied", batch=number - 1))
        assert bench.next() == ["append"]
        assert bench.calls == [batch]
        bench.answer(reply("applied", batch=number))
    assert not bench.buffer.truncated


def test_a_log_that_is_full_of_what_counts_is_not_compacted() -> None:
    """Writing it anew would make too little room to be worth it, again and again."""
    bench = Bench(Settings(flush_milliseconds=0, max_task_bytes=1024)).opened()
    bench.buffer.add_text("\x00" * 1000, "text")  # six bytes each, in JSON
    bench.next()
    bench.answer(reply("applied", batch=1))
    bench.buffer.add_text("y", "text")
    bench.next()
    bench.answer(reply("full", batch=1))
    assert bench.next() == []
    assert bench.buffer.truncated


def test_a_full_log_gets_an_end_without_content() -> None:
    """Redis takes no more, also of a log written anew: the rest is left out, and the end says so."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    bench.next()
    bench.answer(reply("full"))
    assert bench.next() == ["restore"]
    bench.answer(reply("applied"))
    assert bench.next() == ["append"]
    bench.answer(reply("full"))
    bench.buffer.add_text("y", "text")
    assert bench.next() == []
    assert bench.buffer.go_on
    bench.attempt.end(Ending("succeeded"))
    assert bench.next() == ["close"]
    assert bench.arguments()[1] == 1
    end = json.loads(bench.arguments()[6])
    assert (end["truncated"], end["length"]) == (True, {})
    assert bench.arguments()[7:] == ()


def test_a_refusal_that_stays_is_tried_again_ever_slower() -> None:
    """A server that refuses a script for good costs a try now and then, not a loop."""
    bench = Bench()
    pauses = []
    for _ in range(10):
        assert bench.next() == ["open"]
        bench.answer(StoreError("WRONGTYPE"))
        pauses.append(bench.attempt.due(bench.now) - bench.now)
        bench.now += pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[0] > 0
    assert pauses[-1] <= SETTINGS.lease_seconds / 3


def test_repairs_do_not_flood() -> None:
    """A server that forgets at once what is written gets one repair per pause."""
    bench = Bench().opened()
    bench.now += SETTINGS.cancel_check_seconds
    bench.next()
    bench.answer(reply("lost"))
    assert bench.next() == ["restore"]
    bench.answer(reply("lost"))
    assert bench.next() == []
    assert bench.attempt.due(bench.now) == pytest.approx(bench.now + module.REPAIR_PAUSE_SECONDS)
    bench.now += module.REPAIR_PAUSE_SECONDS
    assert bench.next() == ["restore"]


def test_a_batch_is_bounded() -> None:
    """Much text goes in several batches, each acknowledged before the next, and the end comes last."""
    bench = Bench().opened()
    bench.buffer.add_text("x" * 2_500_000, "text")
    bench.buffer.add_data("big", encode(Data("big", "y" * 1_500_000)))
    bench.attempt.end(Ending("succeeded"))
    script, sizes, text = "", [], 0
    while not bench.attempt.over:
        (script,) = bench.next()
        first = 7 if script == "close" else 4
        data = bench.arguments()[first + 1 :: 2]
        sizes.append(sum(map(len, data)))
        text += sum(len(json.loads(each).get("text", "")) for each in data)
        bench.answer(reply("applied", batch=bench.arguments()[1]))
    assert text == 2_500_000
    assert max(sizes[:-1]) <= BATCH_BYTES
    assert 1_500_000 < sizes[-1] < 1_600_000  # a single event may be larger
    assert script == "close"


def test_the_end_waits_for_what_came_behind_a_large_batch() -> None:
    """What is reported while the rest of a batch waits isn't overtaken by the end."""
    bench = Bench().opened()
    bench.buffer.add_text("a" * (BATCH_BYTES * 2), "text")
    sent: list[Any] = []
    assert bench.next() == ["append"]
    bench.buffer.add_text("the end", "text")
    bench.buffer.close()
    bench.attempt.end(Ending("succeeded"))
    while not bench.attempt.over:
        sent += bench.arguments()[-1:]
        bench.answer(reply("applied", batch=bench.arguments()[1]))
        bench.next()
    assert b"the end" in sent[-1]


def test_a_silent_task_renews() -> None:
    """Who reports nothing asks for the cancel flag; who reports all the time still prolongs the lease."""
    bench = Bench().opened()
    assert bench.attempt.due(bench.now) == bench.now + SETTINGS.cancel_check_seconds
    renewals = 0
    for _ in range(100):
        bench.now += 0.5
        bench.buffer.add_text("x", "text")
        scripts = bench.next()
        assert scripts[-1] == "append"
        renewals += len(scripts) - 1
        bench.answer(*[reply("applied", batch=bench.arguments()[1])] * len(scripts))
    assert renewals == 5


def test_a_progress_goes_at_once_and_then_now_and_then() -> None:
    """A loop that reports all the time writes a few progresses a second, and the latest at the end."""
    bench = Bench(Settings()).opened()
    bench.now += 0.5
    started, sent = bench.now, []
    for step in range(100):
        bench.buffer.add_progress(step / 100, None)
        if "append" in bench.next():
            sent.append(bench.now - started)
            bench.answer(*[reply("applied", batch=bench.arguments()[1])] * len(bench.calls))
        bench.now += 0.01
    assert sent == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.04)
    bench.attempt.end(Ending("succeeded"))
    assert bench.next()[-1] == "close"
    assert json.loads(bench.arguments()[-1])["progress"] == 0.99


def test_text_does_not_wait_for_the_next_progress() -> None:
    """Text that joins a progress is due in its own time, and takes it along."""
    bench = Bench(Settings()).opened()
    bench.buffer.add_progress(0.1, None)
    bench.next()
    bench.answer(reply("applied", batch=1))
    bench.buffer.add_progress(0.2, None)
    assert bench.attempt.due(bench.now) == bench.now + PROGRESS_INTERVAL_SECONDS
    bench.buffer.add_text("x", "text")
    assert bench.attempt.due(bench.now) == pytest.approx(bench.now + 0.02)
    bench.now += 0.02
    assert bench.next() == ["append"]
    assert bench.arguments()[4::2] == ("progress", "chunk")


def test_a_cancel_comes_with_any_answer() -> None:
    """The flag reaches the hook with an answer to a batch as with one to a renewal."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    bench.next()
    bench.answer(reply("applied", batch=1, cancel_requested=True))
    assert bench.buffer.cancel_requested
    assert not bench.buffer.go_on
    assert not bench.attempt.over


def test_giving_up_does_not_stop_the_work() -> None:
    """What the bridge can't send is no reason for the work to stop."""
    bench = Bench().opened()
    bench.buffer.add_text("x", "text")
    bench.attempt.give_up("too many")
    assert bench.attempt.over
    assert bench.buffer.go_on
    assert bench.buffer.take() == []
