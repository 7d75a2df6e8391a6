"""The sink against a real homeserver: what another user's client sees, event by event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Thread

import pytest

from bridge.errors import GatewayUnavailable, LeaseLost, SinkRefused, TaskNotFound
from bridge.events import UNKNOWN_TASK_END, Chunk, End, Reset, State
from bridge.settings import Settings
from bridge.sinks.matrix import MatrixSink, Place, Style
from bridge.sinks.matrix.layout import Limits
from bridge.sinks.matrix.memory import from_json
from bridge.sinks.matrix.message import LIVE, TASK
from bridge.sinks.matrix.sink import note_name
from tests.proxy import Proxy
from tests.sinks.feed import Feed
from tests.sinks.matrix.synapse import Synapse, User, Watcher
from tests.waiting import eventually_async

pytestmark = pytest.mark.needs("synapse")

QUICK = Style(thinking_seconds=0.1)


@dataclass
class Room:
    """A room with a bot in it, and somebody who watches."""

    bot: User
    ann: User
    id: str
    watcher: Watcher
    settings: Settings

    def sink(self, style: Style = QUICK, **settings: object) -> MatrixSink:
        return MatrixSink(self.settings.with_(**settings), style=style)

    @asynccontextmanager
    async def shown(
        self, feed: Feed, place: Place | None = None, style: Style = QUICK, **settings: object
    ) -> AsyncIterator[asyncio.Task[bool]]:
        """A sink that shows the feed meanwhile; it must have ended well by the end of the block."""
        async with self.sink(style, **settings) as sink:
            place = place or Place(self.id)
            showing = asyncio.create_task(sink.show(feed.view.task_id, place, feed.views()))
            try:
                yield showing
                await asyncio.wait_for(showing, 60)
            finally:
                showing.cancel()
                await asyncio.wait((showing,))

    async def sees(self, *bodies: str, timeout: float = 60.0) -> None:
        """Wait until the messages say just this."""
        await asyncio.to_thread(self.watcher.wait_for, *bodies, timeout=timeout)

    async def until(self, true: Callable[[Watcher], object]) -> None:
        """Look until that is true of what was seen."""
        await asyncio.to_thread(self.watcher.until, true)

    async def look(self) -> None:
        await asyncio.to_thread(self.watcher.look)


@pytest.fixture(scope="module")
def people(synapse: Synapse) -> tuple[User, User]:
    """A bot, and somebody who watches."""
    return synapse.register("bot"), synapse.register("ann")


def room_of(homeserver: Synapse, redis_url: str, bot: User, ann: User) -> Room:
    """A new room with both in it."""
    room = ann.new_room(bot)
    settings = Settings(
        redis_url=redis_url, matrix_homeserver=homeserver.url, matrix_token=bot.token, lease_seconds=30.0
    )
    return Room(bot, ann, room, Watcher(ann, room), settings)


@pytest.fixture
def room(synapse: Synapse, redis_url: str, people: tuple[User, User]) -> Room:
    """A room of the test's own."""
    return room_of(synapse, redis_url, *people)


async def test_an_answer_grows_in_one_message(room: Room) -> None:
    """A message, edits that carry the whole text and aim at it, marked as live but the last; and the bot
    types from the beginning to the end.
    """
    feed = Feed()
    async with room.shown(feed):
        await room.until(lambda seen: seen.typing == [[room.bot.id]])
        feed.tell(Chunk("**Hel"))
        await room.sees("**Hel")
        feed.tell(Chunk("lo**"))
        await room.sees("**Hello**")
        feed.tell(Chunk(" you"), End("succeeded"))
    await room.sees("**Hello** you")
    first, *edits = room.watcher.messages
    assert first["content"]["body"] in ("Thinking…", "**Hel")
    assert LIVE in first["content"]
    assert first["content"][TASK] == {"id": "job-1", "part": 0}
    for event in edits:
        content = event["content"]
        assert content["m.relates_to"] == {"rel_type": "m.replace", "event_id": first["event_id"]}
        assert content["body"] == "* " + content["m.new_content"]["body"]
        assert (LIVE in content["m.new_content"]) == (event is not edits[-1])
    assert edits[-1]["content"]["m.new_content"]["formatted_body"] == "<p><strong>Hello</strong> you</p>"
    await room.until(lambda seen: seen.typing == [[room.bot.id], []])


async def test_thinking_becomes_the_answer(room: Room) -> None:
    """Who waits is told so, in the message that then holds the text."""
    feed = Feed()
    async with room.shown(feed):
        await room.sees("Thinking…")
        feed.tell(Chunk("42"), End("succeeded"))
    await room.sees("42")
    assert len(room.watcher.shown) == 1


async def test_a_task_that_did_not_stream_is_one_event(room: Room) -> None:
    """Complete from the beginning, with what it used."""
    feed = Feed()
    feed.tell(Chunk("All at once."), End("succeeded", usage={"output_tokens": 4}))
    async with room.shown(feed, style=Style(usage=True)):
        pass
    await room.sees("All at once.\n\n4 output tokens")
    (event,) = room.watcher.messages
    assert LIVE not in event["content"]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (
            End("failed", {"code": "no_model", "message": "The model is away."}),
            "⚠️ Failed: The model is away.",
        ),
        (End("cancelled"), "⏹️ Stopped."),
    ],
)
async def test_what_ends_early_keeps_its_text(room: Room, end: End, said: str) -> None:
    """And says how it ended."""
    feed = Feed()
    feed.tell(Chunk("Half an ans"))
    async with room.shown(feed):
        await room.sees("Half an ans")
        feed.tell(end)
    await room.sees(f"Half an ans\n\n{said}")


async def test_a_thread_and_a_mention(room: Room) -> None:
    """All messages of a long answer stand in the thread, in order, and whoever asked is notified once."""
    question = room.ann.say(room.id, "Tell me everything")
    feed = Feed()
    place = Place(room.id, thread=question, reply_to=question, mentions=(room.ann.id,))
    async with room.shown(feed, place):
        feed.tell(Chunk("a" * 15_000))
        await room.sees("a" * 15_000)
        feed.tell(Chunk("b" * 15_000))
        await room.until(lambda seen: len(seen.shown) == 2)
        feed.tell(Chunk("c"), End("succeeded"))
    await room.until(lambda seen: "".join(seen.bodies).endswith("c"))
    assert "".join(room.watcher.bodies) == "a" * 15_000 + "b" * 15_000 + "c"
    firsts = [one for one in room.watcher.messages if one["event_id"] in room.watcher.shown]
    assert [one["content"]["m.relates_to"]["event_id"] for one in firsts] == [question, question]
    replied = [one["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] for one in firsts]
    assert replied == [question, firsts[0]["event_id"]]
    assert not any(LIVE in content for content in room.watcher.shown.values())
    assert len(room.watcher.messages) > 3
    assert room.watcher.highlights == 1


async def test_a_task_that_begins_anew_says_so_in_its_messages(room: Room) -> None:
    """The first message gets the new text; the one that isn't needed any more is taken away."""
    feed = Feed()
    feed.tell(Chunk("a" * 20_000))
    async with room.shown(feed):
        await room.until(lambda seen: len(seen.shown) == 2)
        feed.tell(Reset("retry", 2), State("running", 2), Chunk("again"), End("succeeded"))
    await room.look()
    assert room.watcher.bodies[0] == "again"
    second = room.watcher.messages[-1]["content"]
    redactions = [one for one in room.watcher.events if one["type"] == "m.room.redaction"]
    assert [one["redacts"] for one in redactions] == [list(room.watcher.shown)[1]], second


async def test_a_homeserver_that_is_killed_and_comes_back(room: Room, synapse: Synapse) -> None:
    """The text goes on growing meanwhile; the room gets it afterwards, and nothing twice."""
    feed = Feed()
    feed.tell(Chunk("before, "))
    async with room.shown(feed):
        await room.sees("before, ")
        synapse.kill()
        feed.tell(Chunk("meanwhile, "))
        await asyncio.sleep(0)
        feed.tell(Chunk("after"), End("succeeded"))
        await asyncio.to_thread(synapse.start)
    await room.sees("before, meanwhile, after")
    assert len(room.watcher.shown) == 1


async def test_a_homeserver_that_is_frozen_for_a_while(room: Room, synapse: Synapse) -> None:
    """Its answers are waited for, and then comes the newest text."""
    feed = Feed()
    feed.tell(Chunk("a"))
    async with room.shown(feed):
        await room.sees("a")
        synapse.pause()
        for _ in range(50):
            feed.tell(Chunk("b"))
            await asyncio.sleep(0.01)  # as a model writes
        synapse.resume()
        feed.tell(End("succeeded"))
    await room.sees("a" + "b" * 50)
    assert len(room.watcher.messages) < 6


@pytest.mark.parametrize("pattern", [b"PUT ", b'"body":'])
async def test_an_answer_that_is_lost(room: Room, synapse: Synapse, pattern: bytes) -> None:
    """Where the homeserver did what it was asked and its answer got lost, nothing is there twice."""
    relay = Proxy(("127.0.0.1", synapse.port))
    try:
        trap = relay.trap(pattern, "cut_after", times=2)
        feed = Feed()
        feed.tell(Chunk("a"))
        async with room.shown(feed, matrix_homeserver=relay.http):
            await room.sees("a")
            await eventually_async(lambda: trap.left == 0, timeout=30)
            feed.tell(Chunk("b"), End("succeeded"))
        await room.sees("ab")
        assert trap.sprung == 2
    finally:
        relay.stop()


async def test_messages_that_are_too_large_for_the_server(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's 413 makes the messages smaller; nothing of the text is lost."""
    # As if events could be larger than they can.
    monkeypatch.setattr("bridge.sinks.matrix.message.CONTENT_BYTES", 300_000)
    monkeypatch.setattr("bridge.sinks.matrix.drafting.Limits", lambda: Limits(text_bytes=120_000))
    feed = Feed()
    text = "**word** " * 10_000
    feed.tell(Chunk(text), End("succeeded"))
    async with room.shown(feed):
        pass
    await room.until(lambda seen: "".join(seen.bodies) == text)
    assert len(room.watcher.shown) > 1


async def revoke(room: Room) -> None:
    """Make the bot's token worth nothing."""
    await asyncio.to_thread(room.bot.ask, "POST", "/logout")


async def leave(room: Room) -> None:
    """Take the bot out of the room."""
    await asyncio.to_thread(room.bot.ask, "POST", f"/rooms/{room.id}/leave")


@pytest.mark.parametrize(("do", "code"), [(revoke, "M_UNKNOWN_TOKEN"), (leave, "M_FORBIDDEN")])
async def test_a_homeserver_that_refuses(
    synapse: Synapse,
    redis_url: str,
    people: tuple[User, User],
    do: Callable[[Room], Awaitable[None]],
    code: str,
) -> None:
    """A token that is revoked, or a room that is left, mid-answer ends the showing with what to do."""
    room = room_of(synapse, redis_url, synapse.register("bot"), people[1])
    feed = Feed()
    feed.tell(Chunk("a"))
    async with room.sink() as sink:
        showing = asyncio.create_task(sink.show("job-1", Place(room.id), feed.views()))
        await room.sees("a")
        await do(room)
        feed.tell(Chunk("b"))
        with pytest.raises(SinkRefused) as caught:
            await asyncio.wait_for(showing, 20)
    assert caught.value.code == code
    assert room.bot.token not in str(caught.value)


async def test_an_encrypted_room_is_refused(room: Room) -> None:
    """Before anything is written, and with the reason."""
    room.ann.ask("PUT", f"/rooms/{room.id}/state/m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    async with room.sink() as sink:
        with pytest.raises(SinkRefused, match="is encrypted"):
            await sink.show("job-1", Place(room.id), Feed().views())
    await room.look()
    assert room.watcher.messages == []


async def test_a_room_that_the_user_is_not_in(room: Room) -> None:
    """It is refused, with what may be wrong; an alias is looked up."""
    other = room.ann.new_room(room_alias_name="somewhere-else")
    for name in (other, "#somewhere-else:test"):
        async with room.sink() as sink:
            with pytest.raises(SinkRefused, match="is it in the room"):
                await sink.show("job-1", Place(name), Feed().views())


async def broken_off(room: Room, text: str) -> None:
    """A sink that showed so much, and then lost the task's views."""
    feed = Feed()
    feed.tell(Chunk(text))
    async with room.sink() as sink:
        showing = asyncio.create_task(sink.show("job-1", Place(room.id), feed.views()))
        await room.sees(text)
        feed.fail(GatewayUnavailable("no more"))
        with pytest.raises(GatewayUnavailable, match="no more"):
            await asyncio.wait_for(showing, 20)


async def test_a_sink_that_goes_on_in_the_same_message(room: Room) -> None:
    """One that broke off is followed by another, which edits what is there; a third finds it complete."""
    await broken_off(room, "a")
    feed = Feed()
    feed.tell(Chunk("ab"))
    async with room.shown(feed):
        await room.sees("ab")
        feed.tell(Chunk("c"), End("succeeded"))
    await room.sees("abc")
    seen = len(room.watcher.events)
    async with room.shown(Feed()) as showing:
        assert await asyncio.wait_for(showing, 10)
    await room.look()
    assert len(room.watcher.events) == seen


async def test_what_was_sent_is_noted_at_once(room: Room) -> None:
    """A homeserver forgets transaction ids some day: whoever goes on knows the event itself."""
    await broken_off(room, "a")
    async with room.sink() as sink:
        note = await sink.notes.read(note_name("job-1", Place(room.id), room.bot.id))
    draft = from_json(note, 0, 0)
    assert draft.pending is None
    assert [one.event_id for one in draft.messages] == list(room.watcher.shown)


async def test_two_sinks_at_once(room: Room) -> None:
    """While one shows a task in a room, another is told that it is not needed."""
    feed = Feed()
    feed.tell(Chunk("a"))
    async with room.shown(feed), room.sink() as other:
        await room.sees("a")
        assert not await other.show("job-1", Place(room.id), Feed().views())
        feed.tell(End("succeeded"))
    await room.sees("a")


async def test_a_sink_that_was_frozen_while_another_took_over(room: Room) -> None:
    """What was due when it fell asleep isn't sent when it wakes: the other has completed the message."""
    feed = Feed()
    feed.tell(Chunk("a"))

    async def finish() -> None:
        complete = Feed()
        complete.tell(Chunk("abc"), End("succeeded"))
        async with room.sink() as other:
            await eventually_async(lambda: other.show("job-1", Place(room.id), complete.views()))

    async with room.sink(lease_seconds=0.5) as sink:
        showing = asyncio.create_task(sink.show("job-1", Place(room.id), feed.views()))
        await room.sees("a")
        feed.tell(Chunk("b"))
        await asyncio.sleep(0)  # it has read that, and waits for its time
        thread = Thread(target=asyncio.run, args=(finish(),))
        thread.start()
        thread.join()  # meanwhile nothing happens in this loop
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(showing, 20)
    await room.look()
    assert room.watcher.bodies == ["abc"]
    assert LIVE not in next(iter(room.watcher.shown.values()))


async def test_a_task_that_is_not_known_any_more(room: Room) -> None:
    """What its message shows stays there."""
    await broken_off(room, "all there was")
    gone = Feed()
    gone.view.apply(UNKNOWN_TASK_END, End("failed", {"code": "unknown_task", "message": "unknown"}))
    async with room.sink() as sink:
        with pytest.raises(TaskNotFound):
            await sink.show("job-1", Place(room.id), gone.views())
    await room.sees("all there was")


async def test_the_limits_that_servers_have_by_default(
    synapse: Synapse, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten quick edits, then one in five seconds: so Synapse wants it. It says "too many", is believed, and
    the answer is complete at its end.
    """
    caplog.set_level("INFO", "bridge.sinks.matrix")
    bot, ann = synapse.register("bot", limited=True), synapse.register("ann")
    room = room_of(synapse, redis_url, bot, ann)
    feed = Feed()
    said: list[str] = []

    def refused() -> int:
        return sum("too many requests" in one for one in caplog.messages)

    began = time.monotonic()
    async with room.shown(feed, style=Style(thinking="", interval_seconds=0.1)):
        # The slower the machine, the longer until there were too many.
        while len(said) < 40 or not refused():
            said.append(f"{len(said)} ")
            feed.tell(Chunk(said[-1]))
            await asyncio.sleep(0.1)  # as a model writes
        feed.tell(End("succeeded"))
    await room.sees("".join(said))
    assert 8 < len(room.watcher.messages) <= 11 + (time.monotonic() - began) / 5
    assert 1 <= refused() <= 2
