"""The rules of the scripts, one by one. What must hold after every call is checked by `Bench.run`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis

from bridge.codec import encode
from bridge.errors import StoreError, StoreUnavailable
from bridge.events import Chunk, Data, End, Event, Progress, Reset, State
from bridge.settings import Settings
from bridge.store.connect import keys_for, sync_client
from bridge.store.scripts import NAMES, SCRIPTS, Answer, Call, Calls, as_store_error, run_pipeline, wire
from tests.servers import RedisProcess
from tests.store.bench import LEASE_MS, PUBLISH_LIMIT, Bench
from tests.waiting import eventually

QUEUED = State("queued")
RUNNING = State("running", 1)
HI = Chunk("hi")
THE_WAY_MS = 60_000
"""More than a call is under way here: its age is taken when it is sent."""
WORKER_LOST = {"code": "worker_lost", "message": "The worker stopped without finishing this task."}


@pytest.fixture(params=["real", "fake"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A task on a real server, and on fakeredis behind a socket."""
    url = request.getfixturevalue("redis_url" if request.param == "real" else "fake_redis_url")
    with Bench(url) as bench:
        yield bench


def verdicts(*answers: Answer) -> list[str]:
    """What the scripts said."""
    return [answer.verdict for answer in answers]


def finish(bench: Bench, token: str = "t1") -> None:
    """A whole run that succeeded; afterwards the clock has moved on."""
    assert bench.open(token).verdict == "applied"
    assert bench.close(token, 1, HI).verdict == "applied"
    bench.tick()


# create


def test_create_announces_a_queued_task(bench: Bench) -> None:
    """A new task is queued, belongs to its owner, and its log begins with that state."""
    answer = bench.create("c1", owner="ann")
    assert answer.verdict == "applied"
    assert (answer.state, answer.attempt, answer.batch, answer.cancel_requested) == ("queued", 0, 0, False)
    assert answer.position.seq == 1
    assert bench.hash()["owner"] == "ann"
    (entry,) = bench.log()
    assert entry.event == State("queued", 0, False, answer.now, None, answer.now)
    assert answer.position.epoch == answer.now


def test_create_is_idempotent_by_name(bench: Bench) -> None:
    """The same call again, in whatever state the task is by then, changes nothing."""
    bench.create("c1")
    assert bench.create("c1").verdict == "seen"
    finish(bench)
    before = bench.hash()
    assert bench.create("c1").verdict == "seen"
    assert bench.hash() == before


def test_create_on_a_queued_task_changes_nothing(bench: Bench) -> None:
    """Another announcement of a task that waits doesn't take it from its owner."""
    bench.create("c1", owner="ann")
    assert bench.create("c2", owner="bob").verdict == "seen"
    assert bench.hash()["owner"] == "ann"
    assert bench.events() == [QUEUED]


def test_create_after_open_only_sets_an_unset_owner(bench: Bench) -> None:
    """A worker may be faster than the app: the announcement adds the owner to the running task, once."""
    bench.open("t1")
    assert bench.create("c1", owner="ann").verdict == "seen"
    assert bench.create("c2", owner="bob").verdict == "seen"
    assert bench.hash()["owner"] == "ann"
    assert bench.events() == [RUNNING]


def test_create_after_open_is_remembered_by_name(bench: Bench) -> None:
    """An announcement that came while the task ran doesn't start it anew when repeated after the end."""
    bench.open("t1")
    bench.create("c1")
    bench.close("t1", 1)
    bench.tick()
    assert bench.create("c1").verdict == "seen"
    assert bench.hash()["state"] == "succeeded"


def test_create_on_an_ended_task_starts_a_new_epoch(bench: Bench) -> None:
    """The task is queued again in a new life of its log; its attempts go on being counted."""
    bench.create("c1", owner="ann")
    finish(bench)
    answer = bench.create("c2")
    assert (answer.verdict, answer.state, answer.attempt) == ("applied", "queued", 1)
    assert bench.events() == [Reset("retry", 1), State("queued", 1)]
    assert bench.hash()["owner"] == "ann"
    assert bench.open("t2").attempt == 2


def test_create_on_an_ended_task_can_change_its_owner(bench: Bench) -> None:
    """Who starts it anew with a name owns it."""
    bench.create("c1", owner="ann")
    finish(bench)
    bench.create("c2", owner="bob")
    assert bench.hash()["owner"] == "bob"


def test_create_on_an_ended_task_clears_the_cancel_flag(bench: Bench) -> None:
    """A cancelled task that is announced anew can run."""
    bench.create("c1")
    bench.cancel()
    bench.tick()
    answer = bench.create("c2")
    assert (answer.verdict, answer.cancel_requested) == ("applied", False)
    assert bench.open("t1").verdict == "applied"


def test_create_made_while_the_task_ran_does_not_wipe_that_run(bench: Bench) -> None:
    """Found running, and repeated after the end because the answer got lost: each means the run there was."""
    bench.create("c1")
    bench.open("t1")
    for name in ("c2", "c3"):
        assert bench.create(name).verdict == "seen"
    made = bench.now()
    bench.tick()
    bench.close("t1", 1)
    bench.tick()
    for name in ("c1", "c2", "c3", "held up until now"):
        assert bench.create(name, age_ms=bench.now() - made + THE_WAY_MS).verdict == "seen"
    assert bench.create("c3").verdict == "seen"
    assert bench.hash()["state"] == "succeeded"
    assert bench.create("made after the end").verdict == "applied"


@pytest.mark.parametrize("ended_by", ["cancel", "expire"])
def test_create_made_before_an_end_that_no_worker_wrote(bench: Bench, ended_by: str) -> None:
    """What was said of an end holds whoever ended the task."""
    bench.create("c1")
    made = bench.now()
    bench.tick()
    if ended_by == "cancel":
        bench.cancel()
    else:
        bench.open("t1")
        bench.let_lease_end()
        bench.expire()
    bench.tick()
    assert bench.create("c2", age_ms=bench.now() - made + THE_WAY_MS).verdict == "seen"
    assert bench.create("c3").verdict == "applied"


def test_late_create_does_not_wipe_a_finished_run(bench: Bench) -> None:
    """An announcement that lay about since before the run began isn't taken for a new one."""
    finish(bench)
    before = bench.events()
    assert bench.create("c1", owner="ann", age_ms=60_000).verdict == "seen"
    assert bench.events() == before
    assert bench.hash()["owner"] == "ann"


@pytest.mark.parametrize("ended_by", ["itself", "expire"])
def test_create_on_an_ended_task_supersedes_its_worker(bench: Bench, ended_by: str) -> None:
    """A worker that comes back after the task was announced anew is refused by every script."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    if ended_by == "itself":
        bench.close("t1", 2)
    else:
        bench.let_lease_end()
        bench.expire()
    bench.tick()
    bench.create("c2")
    before = bench.events()
    assert (
        verdicts(
            bench.append("t1", 2, HI),
            bench.append("t1", 3, HI),
            bench.renew("t1"),
            bench.close("t1", 2),
            bench.close("t1", 3),
            bench.restore("t1", 1, HI, reason="worker_returned"),
            bench.open("t1"),
        )
        == ["fenced"] * 7
    )
    assert bench.events() == before


def test_a_queued_task_has_no_worker(bench: Bench) -> None:
    """Not even the empty token can write to a task that nobody opened."""
    bench.create("c1")
    assert (
        verdicts(bench.append("", 1, HI), bench.renew(""), bench.close("", 1), bench.restore("", 0, HI))
        == ["fenced"] * 4
    )
    assert bench.events() == [QUEUED]


# open


def test_open_of_an_unknown_task(bench: Bench) -> None:
    """A worker needs no announcement: the task is running, as attempt 1."""
    answer = bench.open("t1", 5000)
    assert (answer.verdict, answer.state, answer.attempt, answer.batch) == ("applied", "running", 1, 0)
    assert bench.hash()["lease"] == str(answer.now + 5000)
    (entry,) = bench.log()
    assert entry.event == State("running", 1, False, answer.now, answer.now, answer.now)


def test_open_of_a_queued_task(bench: Bench) -> None:
    """The first attempt needs no reset, and the time of the announcement is kept."""
    created = bench.create("c1", owner="ann").now
    started = bench.open("t1").now
    assert bench.events() == [QUEUED, RUNNING]
    assert bench.log()[-1].event == State("running", 1, False, created, started, started)
    assert bench.hash()["owner"] == "ann"


def test_open_of_a_running_task_resets_in_the_same_epoch(bench: Bench) -> None:
    """A retry of a run without an end follows it in the same log, after a reset."""
    first = bench.open("t1")
    bench.append("t1", 1, HI)
    second = bench.open("t2")
    assert (second.verdict, second.attempt, second.batch) == ("applied", 2, 0)
    assert second.position.epoch == first.position.epoch
    assert bench.events() == [RUNNING, HI, Reset("retry", 2), State("running", 2)]


def test_open_of_a_running_task_with_a_large_log_starts_a_new_epoch(bench: Bench) -> None:
    """Void text of earlier attempts goes when it is more than one attempt may write, and not before."""
    bench.open("t1")
    bench.append("t1", 1, Chunk("x" * 500))
    bench.open("t2", room=int(bench.hash()["bytes"]))
    assert bench.lives == 1
    answer = bench.open("t3", room=int(bench.hash()["bytes"]) - 1)
    assert (answer.verdict, answer.attempt, bench.lives) == ("applied", 3, 2)
    assert bench.events() == [Reset("retry", 3), State("running", 3)]
    assert bench.open("t3", room=0).verdict == "seen"


def test_open_fences_older_attempts(bench: Bench) -> None:
    """A superseded worker is refused by every script, whatever its number says."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    bench.open("t2")
    before = bench.hash()
    assert (
        verdicts(
            bench.append("t1", 1, HI),
            bench.append("t1", 2, HI),
            bench.renew("t1"),
            bench.close("t1", 2),
            bench.restore("t1", 1, HI),
        )
        == ["fenced"] * 5
    )
    assert bench.hash() == before
    assert bench.append("t2", 1, HI).verdict == "applied"


def test_open_repeated_gets_the_first_answer_again(bench: Bench) -> None:
    """The same token is the same attempt: nothing changes, and its batches go on."""
    first = bench.open("t1")
    bench.append("t1", 1, HI)
    again = bench.open("t1")
    assert (again.verdict, again.attempt, again.batch) == ("seen", first.attempt, 1)
    assert bench.events() == [RUNNING, HI]


def test_open_repeated_after_its_end_says_so(bench: Bench) -> None:
    """A worker that asks again after its attempt ended doesn't run it again."""
    finish(bench)
    answer = bench.open("t1")
    assert (answer.verdict, answer.state, answer.attempt) == ("ended", "succeeded", 1)


def test_open_repeated_after_being_superseded_is_fenced(bench: Bench) -> None:
    """A repeated call of an older attempt isn't taken for a new attempt, not even fifteen attempts later."""
    bench.open("t0")
    for n in range(1, 16):
        bench.open(f"t{n}")
        assert bench.open("t0").verdict == "fenced"
    assert bench.open("t15").verdict == "seen"
    assert bench.hash()["attempt"] == "16"
    assert len(bench.hash()["tokens"].split()) == 16


def test_polite_open_takes_over_from_nobody(bench: Bench) -> None:
    """It begins what nobody has begun, and goes on with its own; whoever has, or had, the task keeps it."""
    polite = bench.calls.open(bench.task_id, token="p", lease_ms=0, polite=True)
    assert verdicts(bench.run(polite), bench.run(polite)) == ["applied", "seen"]
    bench.open("t1")
    assert bench.run(polite).verdict == "fenced"
    other = bench.calls.open(bench.task_id, token="q", lease_ms=0, polite=True)
    assert bench.run(other).verdict == "fenced"
    bench.close("t1", 1)
    assert verdicts(bench.run(polite), bench.run(other)) == ["fenced", "fenced"]


def test_open_of_an_ended_task_starts_a_new_epoch(bench: Bench) -> None:
    """A retry after an end begins a new life of the log with a reset; the end before it is gone."""
    bench.create("c1", owner="ann")
    finish(bench)
    epoch = bench.epoch
    answer = bench.open("t2")
    assert (answer.verdict, answer.state, answer.attempt) == ("applied", "running", 2)
    assert answer.position.epoch > epoch
    assert bench.events() == [Reset("retry", 2), State("running", 2)]
    assert bench.hash()["owner"] == "ann"
    assert bench.append("t1", 2, HI).verdict == "fenced"


def test_open_of_a_cancelled_running_task_ends_it(bench: Bench) -> None:
    """With the cancel flag set a retry finds the task ended as cancelled, and so does the first worker."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    bench.cancel()
    answer = bench.open("t2")
    assert (answer.verdict, answer.state, answer.cancel_requested) == ("ended", "cancelled", True)
    assert bench.events()[-1] == End("cancelled", length={})
    assert verdicts(bench.open("t2"), bench.append("t1", 2, HI)) == ["ended", "ended"]
    assert bench.hash()["attempt"] == "1"


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_open_of_a_cancelled_ended_task_leaves_it(bench: Bench, state: str) -> None:
    """With the cancel flag set there is no new attempt after an end, however the task ended."""
    bench.open("t1")
    bench.cancel()
    bench.close("t1", 1, end=End(state, length={}))
    answer = bench.open("t2")
    assert (answer.verdict, answer.state, answer.cancel_requested) == ("ended", state, True)


# append


def test_append_applies_the_next_batch(bench: Bench) -> None:
    """The events of a batch stand in the log in their order, and the answer counts it."""
    bench.open("t1")
    events: list[Event] = [HI, Chunk("…\n\0😀", "reasoning"), Progress(0.5, "m"), Data("n", {"a": [None]})]
    answer = bench.append("t1", 1, *events, length=b'{"text":2}')
    assert (answer.verdict, answer.batch, answer.position.seq) == ("applied", 1, 5)
    assert bench.append("t1", 2, HI).batch == 2
    assert bench.events() == [RUNNING, *events, HI]


def test_append_recognises_what_it_has_seen(bench: Bench) -> None:
    """A batch that comes again, however late, isn't applied twice."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    bench.append("t1", 2, HI)
    before = bench.hash()
    for batch in (1, 2, 0):
        answer = bench.append("t1", batch, Chunk("again"))
        assert (answer.verdict, answer.batch) == ("seen", 2)
    assert bench.hash() == before


def test_append_refuses_to_skip(bench: Bench) -> None:
    """A number that isn't the next is refused, with the last one known."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    answer = bench.append("t1", 3, HI)
    assert (answer.verdict, answer.batch) == ("gap", 1)
    assert bench.events() == [RUNNING, HI]


@pytest.mark.parametrize("lost", [["log"], ["task"], ["log", "task"]])
def test_append_finds_a_lost_task(bench: Bench, lost: list[str]) -> None:
    """When either key is gone the worker hears that the task is lost, and no new log begins."""
    bench.open("t1")
    bench.lose(*lost)
    assert verdicts(bench.append("t1", 1, HI), bench.renew("t1"), bench.close("t1", 1)) == ["lost"] * 3
    assert bool(bench.log()) == ("log" not in lost)


def test_append_after_the_end(bench: Bench) -> None:
    """An ended task takes no more text; the answer says how it ended."""
    bench.open("t1")
    bench.let_lease_end()
    bench.expire()
    answer = bench.append("t1", 1, HI)
    assert (answer.verdict, answer.state, answer.code) == ("ended", "failed", "worker_lost")


def test_append_over_the_limit_is_refused_whole(bench: Bench) -> None:
    """A batch that would make the log too large leaves nothing; a smaller one under its number goes."""
    bench.open("t1")
    limit = int(bench.hash()["bytes"]) + len(encode(HI)) * 3
    answer = bench.append("t1", 1, HI, HI, HI, HI, limit=limit)
    assert (answer.verdict, answer.batch) == ("full", 0)
    assert bench.events() == [RUNNING]
    assert bench.append("t1", 1, HI, HI, HI, limit=limit).verdict == "applied"


def test_append_too_large_to_publish_is_announced(bench: Bench) -> None:
    """Over 1 MiB only the position is published; the text is in the log."""
    bench.open("t1")
    piece = Chunk("x" * 60_000)
    bench.append("t1", 1, *[piece] * 18)
    assert sum(len(entry.data) for entry in bench.log()) > PUBLISH_LIMIT
    bench.append("t1", 2, HI)
    assert bench.view().text == "x" * 60_000 * 18 + "hi"


def test_one_chunk_a_second_carries_the_time(bench: Bench) -> None:
    """The first chunk of an epoch tells when it came, then one a second does; other events always do."""
    bench.open("t1")
    first = bench.append("t1", 1, HI, HI, Progress(0.1), HI, Progress(0.2)).now
    assert [entry.event.at for entry in bench.log()][1:] == [first, None, first, None, first]
    bench.set_field("chunk_at", first - 5000)
    later = bench.append("t1", 2, HI, HI).now
    assert [entry.event.at for entry in bench.log()][6:] == [later, None]
    bench.restore("t1", 1, HI, HI)
    assert [entry.event.at is None for entry in bench.log()] == [False, False, False, True]


# renew


def test_renew_prolongs_the_lease_and_nothing_else(bench: Bench) -> None:
    """The lease counts from now; the log and the followers don't notice."""
    bench.open("t1", 1000)
    bench.append("t1", 1, HI)
    bench.cancel()
    before = bench.hash()
    answer = bench.renew("t1", 7000)
    assert (answer.verdict, answer.batch, answer.cancel_requested) == ("applied", 1, True)
    assert bench.hash() == {**before, "lease": str(answer.now + 7000)}


def test_answers_say_how_many_watch(bench: Bench) -> None:
    """A script that publishes learns it by that, `renew` asks for it, and the others don't know."""
    assert bench.open("t1").watchers == 1  # the bench itself
    assert bench.append("t1", 1, HI).watchers == 1
    assert bench.append("t1", 1, HI).watchers == -1
    with bench.client.pubsub() as second:
        second.subscribe(bench.keys.channel(bench.task_id))
        eventually(lambda: second.get_message(timeout=1.0))
        assert bench.renew("t1").watchers == 2


def test_who_may_not_ask_who_watches_still_renews(redis_url: str, redis_client: redis.Redis) -> None:
    """A Redis user without that one right loses nothing else by it."""
    redis_client.acl_setuser(
        "narrow", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-pubsub"]
    )
    client = sync_client(Settings(redis_url=redis_url.replace("://", "://narrow:x@")))
    calls = Calls(keys_for(Settings(), client))
    opened, renewed = run_pipeline(
        client, [calls.open("t", token="t1", lease_ms=LEASE_MS), calls.renew("t", token="t1", lease_ms=9000)]
    )
    assert isinstance(opened, Answer)
    assert isinstance(renewed, Answer)
    assert (opened.watchers, renewed.verdict, renewed.watchers) == (0, "applied", -1)
    client.close()
    redis_client.acl_deluser("narrow")


def test_renew_is_a_sign_of_life(bench: Bench) -> None:
    """A worker that says nothing for long keeps its task in Redis by renewing."""
    bench.open("t1")
    bench.client.pexpire(bench.keys.task("job-1"), 60_000)
    bench.client.pexpire(bench.keys.log("job-1"), 60_000)
    bench.renew("t1")
    assert bench.ttl_ms() > 60_000


def test_renew_after_the_end(bench: Bench) -> None:
    """The worker hears that its task is over."""
    finish(bench)
    assert bench.renew("t1").verdict == "ended"
    assert bench.hash()["lease"] == "0"


# close


def test_close_carries_the_last_events(bench: Bench) -> None:
    """Text and end arrive in one step, the end last; the task is kept for its time after the end."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    end = End("failed", {"code": "c", "message": "m"}, {"r": [1]}, {"tokens": 3}, {"text": 3}, True)
    answer = bench.close("t1", 2, Chunk("!"), Progress(1.0), end=end, code="c")
    assert (answer.verdict, answer.batch, answer.state, answer.code) == ("applied", 2, "failed", "c")
    assert bench.events() == [RUNNING, HI, Chunk("!"), Progress(1.0), end]
    assert bench.view().ended_at == answer.now
    assert 3_500_000 < bench.ttl_ms() <= 3_600_000
    assert len({entry.position.seq for entry in bench.log()}) == 5


def test_close_repeated_gets_the_same_answer(bench: Bench) -> None:
    """The same worker, asking again, hears that it was done."""
    bench.open("t1")
    first = bench.close("t1", 1)
    again = bench.close("t1", 1, end=End("failed", length={}))
    assert (again.verdict, again.state, again.position) == ("seen", "succeeded", first.position)


def test_first_end_wins(bench: Bench) -> None:
    """A close after another end is told of that end."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    bench.let_lease_end()
    bench.expire()
    for batch in (2, 3):
        answer = bench.close("t1", batch)
        assert (answer.verdict, answer.state, answer.code) == ("ended", "failed", "worker_lost")


def test_close_by_a_superseded_worker_is_refused(bench: Bench) -> None:
    """Neither a running nor an ended task takes the end of an older attempt."""
    bench.open("t1")
    bench.open("t2")
    assert bench.close("t1", 1).verdict == "fenced"
    bench.close("t2", 1)
    assert bench.close("t1", 1).verdict == "fenced"


def test_close_keeps_to_the_batch_numbers(bench: Bench) -> None:
    """The end can't overtake text that isn't there yet, nor come under the number of other text."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    assert verdicts(bench.close("t1", 3), bench.close("t1", 1)) == ["gap", "seen"]
    assert bench.hash()["state"] == "running"


def test_close_with_too_much_text_is_refused_but_an_end_alone_never_is(bench: Bench) -> None:
    """A log that is full to the brim, also by a cancel request, can still be ended."""
    bench.open("t1")
    limit = int(bench.hash()["bytes"]) + 100
    bench.append("t1", 1, HI, limit=limit)
    bench.cancel()
    assert int(bench.hash()["bytes"]) > limit
    assert bench.close("t1", 2, HI, limit=limit).verdict == "full"
    assert bench.close("t1", 2, limit=limit).verdict == "applied"


# giving a task back


def test_close_as_queued_gives_the_task_back(bench: Bench) -> None:
    """The attempt ends with its last events, the task waits without a lease, and keeps its text."""
    bench.open("t1")
    answer = bench.requeue("t1", 1, HI)
    assert (answer.verdict, answer.state, answer.attempt) == ("applied", "queued", 1)
    assert bench.events() == [RUNNING, HI, State("queued", 1)]
    assert bench.view().started_at is None
    assert bench.ttl_ms() > bench.settings.ended_ttl_seconds * 1000
    assert verdicts(bench.requeue("t1", 1, HI), bench.expire()) == ["seen", "alive"]


def test_who_gave_it_back_has_no_more_say(bench: Bench) -> None:
    """Neither text nor lease nor another end comes from that attempt any more, nor does it begin again."""
    bench.open("t1")
    bench.requeue("t1", 1)
    answers = [bench.append("t1", 2, HI), bench.renew("t1"), bench.close("t1", 2), bench.open("t1")]
    assert verdicts(*answers, bench.restore("t1", 1, HI)) == ["fenced"] * 5
    assert bench.open("t10").verdict == "applied"


def test_the_next_attempt_resets_what_was_given_back(bench: Bench) -> None:
    """It goes on in the same epoch, and begins with `reset`."""
    bench.open("t1")
    bench.requeue("t1", 1, HI)
    assert bench.open("t2").attempt == 2
    assert bench.events()[-2:] == [Reset("retry", 2), State("running", 2)]
    assert bench.view().text == ""


def test_a_cancelled_task_is_not_given_back(bench: Bench) -> None:
    """It ends, as one does that is cancelled while it waits."""
    bench.open("t1")
    bench.cancel()
    assert bench.requeue("t1", 1, HI).state == "cancelled"
    assert bench.requeue("t1", 1, HI).verdict == "seen"
    assert bench.open("t2").verdict == "ended"


# conclude


def test_conclude_ends_the_attempt_whose_token_begins_so(bench: Bench) -> None:
    """Whoever looks after the worker says how it ended; what it wrote stays."""
    bench.open("host7-t1")
    bench.append("host7-t1", 1, HI)
    answer = bench.conclude("host7-", code="worker_lost", message='killed by "9"\n\u00e9')
    assert (answer.verdict, answer.state, answer.code) == ("applied", "failed", "worker_lost")
    end = bench.log()[-1].event
    assert isinstance(end, End)
    assert end.error == {"code": "worker_lost", "message": 'killed by "9"\n\u00e9'}
    assert bench.conclude("host7-").verdict == "ended"
    assert bench.append("host7-t1", 2, HI).verdict == "ended"


def test_conclude_spares_a_newer_attempt(bench: Bench) -> None:
    """However late it comes, it means the one attempt."""
    bench.open("host7-t1")
    bench.open("host8-t2")
    assert bench.conclude("host7-").verdict == "fenced"
    assert bench.hash()["state"] == "running"


def test_conclude_can_give_the_task_back(bench: Bench) -> None:
    """The queue will have it done again: then that is no end."""
    bench.open("host7-t1")
    assert bench.conclude("host7-", "queued").state == "queued"
    assert bench.conclude("host7-", "queued").verdict == "seen"
    assert bench.open("host8-t2").attempt == 2


def test_conclude_ends_a_task_before_it_was_begun(bench: Bench) -> None:
    """A worker may be killed before its `open` has arrived; that comes too late then."""
    bench.create("c1")
    assert bench.conclude("host7-", code="worker_lost").state == "failed"
    assert bench.open("host7-t1").verdict == "fenced"
    assert bench.open("host8-t2").verdict == "applied"
    assert bench.open("host7-t1").verdict == "fenced"


def test_conclude_ends_a_later_attempt_before_it_was_begun(bench: Bench) -> None:
    """Also where an earlier attempt had given the task back: nobody else would ever end it. What is told
    late of that earlier one ends nothing.
    """
    bench.open("host7-t1")
    bench.requeue("host7-t1", 1)
    bench.open("host8-t2")
    bench.requeue("host8-t2", 1)
    assert bench.conclude("host7-", code="worker_lost").verdict == "fenced"
    assert bench.conclude("host9-", code="worker_lost", age_ms=60_000).verdict == "fenced"
    assert bench.conclude("host9-", code="worker_lost").state == "failed"
    assert bench.open("host9-t3").verdict == "fenced"
    assert bench.open("host6-t4").verdict == "applied"


def test_conclude_without_a_place_is_about_a_task_that_waits(bench: Bench) -> None:
    """Nobody has it, so nobody's token tells; and it doesn't mean one that has begun to wait since."""
    bench.create("c1")
    assert bench.conclude("", "cancelled", age_ms=60_000).verdict == "fenced"
    assert bench.conclude("", "cancelled").state == "cancelled"
    bench.tick()
    bench.open("t1")
    assert bench.conclude("", "cancelled").verdict == "fenced"
    bench.requeue("t1", 1)
    assert bench.conclude("", "cancelled").state == "cancelled"


def test_conclude_may_come_before_the_announcement(bench: Bench) -> None:
    """The task is known and ended from then on; the announcement only adds its owner."""
    assert bench.conclude("", "queued").verdict == "unknown"
    assert bench.conclude("", "cancelled").state == "cancelled"
    assert bench.create("c1", owner="ann", age_ms=60_000).verdict == "seen"
    assert bench.hash()["owner"] == "ann"
    assert bench.events()[0] == QUEUED


# cancel


def test_cancel_of_a_running_task_sets_the_flag(bench: Bench) -> None:
    """The request is an event, so that every client sees it, and the worker hears of it in an answer."""
    bench.open("t1")
    assert bench.cancel().verdict == "applied"
    assert bench.events() == [RUNNING, State("running", 1, True)]
    assert bench.append("t1", 1, HI).cancel_requested
    assert bench.renew("t1").cancel_requested


def test_cancel_of_a_queued_task_ends_it(bench: Bench) -> None:
    """Nobody works on it, so it is over at once."""
    bench.create("c1")
    answer = bench.cancel()
    assert (answer.verdict, answer.state, answer.code) == ("applied", "cancelled", "")
    assert bench.events() == [QUEUED, State("queued", 0, True), End("cancelled", length={})]
    assert bench.open("t1").verdict == "ended"


def test_cancel_repeated_is_harmless(bench: Bench) -> None:
    """The second request adds nothing."""
    bench.open("t1")
    bench.cancel()
    before = bench.events()
    assert bench.cancel().verdict == "seen"
    assert bench.events() == before


def test_cancel_of_an_ended_or_unknown_task(bench: Bench) -> None:
    """There is nothing to stop, and nothing is left behind."""
    assert bench.cancel().verdict == "unknown"
    assert bench.hash() == {}
    finish(bench)
    answer = bench.cancel()
    assert (answer.verdict, answer.state, answer.cancel_requested) == ("ended", "succeeded", False)


@pytest.mark.parametrize("lost", ["log", "task"])
def test_half_a_task_is_unknown(bench: Bench, lost: str) -> None:
    """With one key left nobody can cancel or expire the task, and an opening begins it as new."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    bench.lose(lost)
    assert verdicts(bench.cancel(), bench.expire()) == ["unknown", "unknown"]
    assert bench.open("t2").attempt == 1
    assert bench.events() == [RUNNING]


@pytest.mark.parametrize("lost", ["log", "task"])
def test_create_of_half_a_task_begins_it_as_new(bench: Bench, lost: str) -> None:
    """With only one key left an announcement counts as the first."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    bench.cancel()
    bench.lose(lost)
    answer = bench.create("c1", owner="ann")
    assert (answer.verdict, answer.attempt, answer.batch, answer.cancel_requested) == ("applied", 0, 0, False)
    assert bench.events() == [QUEUED]
    assert bench.append("t1", 2, HI).verdict == "fenced"


@pytest.mark.parametrize("lost", ["log", "task"])
def test_a_new_epoch_is_greater_than_the_old_even_by_a_wrong_clock(bench: Bench, lost: str) -> None:
    """A server whose clock is behind that of its predecessor doesn't give an epoch's name again."""
    future = bench.now() + 86_400_000
    bench.open("t1")
    bench.restore("t1", 1, HI, known_epoch=future)
    assert bench.epoch == future + 1
    bench.client.delete(bench.keys.log("job-1") if lost == "log" else bench.keys.task("job-1"))
    assert bench.open("t2").position.epoch == future + 2


# expire


def test_expire_ends_a_task_whose_lease_is_over(bench: Bench) -> None:
    """The worker is lost: the task has failed, with its text and the lengths of its fields."""
    bench.open("t1")
    bench.append("t1", 1, HI, length=b'{"text":2}')
    bench.let_lease_end()
    answer = bench.expire()
    assert (answer.verdict, answer.state, answer.code) == ("applied", "failed", "worker_lost")
    assert bench.events() == [RUNNING, HI, End("failed", WORKER_LOST, length={"text": 2})]
    assert bench.ttl_ms() <= 3_600_000
    assert bench.expire().verdict == "alive"


def test_expire_spares_the_living(bench: Bench) -> None:
    """A lease that runs, none at all, and a queued task are left alone."""
    assert bench.expire().verdict == "unknown"
    bench.create("c1")
    assert bench.expire().verdict == "alive"
    bench.open("t1")
    assert bench.expire().verdict == "alive"
    bench.open("t2", lease_ms=0)
    assert bench.hash()["lease"] == "0"
    assert bench.expire().verdict == "alive"
    bench.renew("t2", 1000)
    bench.let_lease_end()
    bench.renew("t2")
    assert bench.expire().verdict == "alive"


def test_expire_that_lay_about_is_not_believed(bench: Bench) -> None:
    """After a pause of Redis the call may stand before the renewals: over two seconds old it does nothing."""
    bench.open("t1")
    bench.let_lease_end()
    assert bench.expire(age_ms=2500).verdict == "late"
    assert bench.events() == [RUNNING]
    # On a machine that is too slow for this it was late; that changes nothing.
    eventually(lambda: bench.expire(age_ms=1000).verdict == "applied")


# restore


@pytest.mark.parametrize("lost", [[], ["log"], ["task"], ["log", "task"]])
def test_restore_writes_the_whole_anew(bench: Bench, lost: list[str]) -> None:
    """Whatever was lost, a new epoch holds a reset, the state and the attempt's content; batches go on."""
    created = bench.create("c1").now
    opened = bench.open("t1")
    bench.append("t1", 1, HI)
    if lost:
        bench.lose(*lost)
    content: list[Event] = [Chunk("hi there"), Chunk("hm", "reasoning"), Progress(0.5)]
    answer = bench.restore(
        "t1", 1, *content, batch=7, length=b'{"text":8}', created_at=created, started_at=opened.now,
        known_epoch=opened.position.epoch, lease_ms=4000,
    )  # fmt: skip
    assert (answer.verdict, answer.state, answer.attempt, answer.batch) == ("applied", "running", 1, 7)
    assert answer.position.epoch > opened.position.epoch
    assert bench.events() == [Reset("log_lost", 1), RUNNING, *content]
    view = bench.view()
    assert view.as_dict()["created_at"] is not None
    assert (view.created_at, view.started_at) == (created, opened.now)
    assert bench.hash()["lease"] == str(answer.now + 4000)
    assert bench.hash()["length"] == '{"text":8}'
    assert bench.append("t1", 8, HI).verdict == "applied"


def test_restore_repeated_by_name_is_harmless(bench: Bench) -> None:
    """The same call again, also after more text, changes nothing; another name is another repair."""
    bench.open("t1")
    bench.restore("t1", 1, HI, name="r1", batch=3)
    bench.append("t1", 4, HI)
    answer = bench.restore("t1", 1, HI, name="r1", batch=3)
    assert (answer.verdict, answer.batch) == ("seen", 4)
    assert bench.restore("t1", 1, HI, name="r2", batch=4).verdict == "applied"
    assert bench.view().text == "hi"


def test_restore_only_by_the_latest_attempt(bench: Bench) -> None:
    """A superseded worker can't bring its text back, even if it tells a later start."""
    bench.open("t1")
    bench.open("t2")
    assert bench.restore("t1", 1, HI).verdict == "fenced"
    assert bench.restore("t1", 2, HI).verdict == "fenced"
    bench.lose("log")
    assert bench.restore("t1", 1, HI).verdict == "fenced"
    assert bench.restore("t2", 2, HI).verdict == "applied"


def test_restore_by_an_attempt_that_redis_forgot(bench: Bench) -> None:
    """After a failover to old data the worker of a later attempt takes it back and fences the older."""
    bench.create("c1")
    bench.open("t1")
    bench.tick()
    answer = bench.restore("t2", 2, HI, batch=1)
    assert (answer.verdict, answer.attempt) == ("applied", 2)
    assert verdicts(bench.append("t1", 1, HI), bench.open("t1"), bench.open("t2")) == [
        "fenced",
        "fenced",
        "seen",
    ]
    assert bench.append("t2", 2, HI).verdict == "applied"


def test_restore_after_everything_was_lost_and_someone_else_began(bench: Bench) -> None:
    """A worker that started before the one Redis knows is superseded, although its number is higher."""
    started = bench.now()
    bench.tick()
    bench.open("t9")
    assert bench.restore("t3", 3, HI, started_at=started).verdict == "fenced"


def test_restore_of_a_task_announced_again_after_a_loss(bench: Bench) -> None:
    """The worker that has the task takes it back from the queue."""
    bench.create("c2", owner="ann")
    answer = bench.restore("t1", 1, HI)
    assert (answer.verdict, answer.state) == ("applied", "running")
    assert bench.hash()["owner"] == "ann"


def test_lost_worker_can_return(bench: Bench) -> None:
    """The end as worker_lost is taken back by that very worker: a new epoch, running again."""
    bench.open("t1")
    bench.append("t1", 1, HI)
    bench.let_lease_end()
    bench.expire()
    answer = bench.restore("t1", 1, HI, reason="worker_returned", batch=1)
    assert (answer.verdict, answer.state, answer.code) == ("applied", "running", "")
    assert bench.events() == [Reset("worker_returned", 1), RUNNING, HI]
    assert bench.ttl_ms() > 3_600_000
    assert bench.close("t1", 2).verdict == "applied"


def test_lost_worker_cannot_return_after_a_newer_attempt(bench: Bench) -> None:
    """Once another worker has the task the lost one is superseded."""
    bench.open("t1")
    bench.let_lease_end()
    bench.expire()
    bench.open("t2")
    assert bench.restore("t1", 1, HI, reason="worker_returned").verdict == "fenced"


@pytest.mark.parametrize("ended_by", ["close", "cancel"])
def test_no_other_end_can_be_taken_back(bench: Bench, ended_by: str) -> None:
    """An end by the worker itself, or by a cancel request, stays."""
    bench.open("t1")
    if ended_by == "close":
        bench.close("t1", 1)
    else:
        bench.cancel()
        bench.open("t2")
    before = bench.events()
    assert bench.restore("t1", 1, HI, reason="worker_returned").verdict == "ended"
    assert bench.events() == before


def test_restore_keeps_and_brings_the_cancel_flag(bench: Bench) -> None:
    """A request that either Redis or the worker knows of is known afterwards."""
    bench.open("t1")
    bench.cancel()
    assert bench.restore("t1", 1, name="r1").cancel_requested
    bench.lose("log", "task")
    assert bench.restore("t1", 1, name="r2", cancel_requested=True).cancel_requested
    bench.lose("log", "task")
    assert not bench.restore("t1", 1, name="r3").cancel_requested


def test_restore_of_much_text_is_announced(bench: Bench) -> None:
    """A fold over 1 MiB is written in one step, and published as its position."""
    bench.open("t1")
    pieces = [Chunk("x" * 65_000)] * 20
    bench.restore("t1", 1, *pieces, batch=1)
    assert bench.view().text == "x" * 65_000 * 20


# All of them


def every_call(calls: Calls, now: int) -> list[Call]:
    """One call of each script, in an order in which all of them write."""
    end = End("succeeded", length={})
    write: dict[str, Any] = {"length": b"{}", "limit": 10**6}
    return [
        calls.create("job-1", owner="ann", creation="c1"),
        calls.open("job-1", token="t1", lease_ms=LEASE_MS),
        calls.append("job-1", token="t1", batch=1, events=wire([HI]), **write),
        calls.renew("job-1", token="t1", lease_ms=LEASE_MS),
        calls.cancel("job-1"),
        calls.restore(
            "job-1", token="t1", attempt=1, name="r1", reason="log_lost", batch=1, known_epoch=0, lease_ms=1,
            length=b"{}", cancel_requested=False, created_at=0, started_at=now, events=wire([HI]),
        ),
        calls.close("job-1", token="t1", batch=2, state="succeeded", code="", end=encode(end), **write),
    ]  # fmt: skip


def test_every_script_is_named_and_says_its_rule() -> None:
    """Each script's source opens with its name and what its arguments mean."""
    assert sorted(SCRIPTS) == sorted(NAMES)
    for name, script in SCRIPTS.items():
        assert f"\n-- {name}: " in script.source
        assert len(script.sha) == 40


def test_pipeline_runs_in_order_on_a_server_that_knows_no_script(redis_url: str) -> None:
    """A restarted server is taught the scripts, and every call is applied in its place."""
    client = sync_client(Settings(redis_url=redis_url))
    calls = every_call(Calls(keys_for(Settings(), client)), 1)
    answers = run_pipeline(client, calls)
    assert [isinstance(answer, Answer) and answer.verdict for answer in answers] == ["applied"] * 7
    client.close()


def test_pipeline_repeats_what_a_half_taught_server_refused(redis_url: str) -> None:
    """Where some scripts were known, those calls ran twice, which is harmless."""
    client = sync_client(Settings(redis_url=redis_url))
    calls = every_call(Calls(keys_for(Settings(), client)), 1)[1:3]
    client.script_load(SCRIPTS["open"].source)
    answers = run_pipeline(client, calls)
    assert [isinstance(answer, Answer) and answer.verdict for answer in answers] == ["seen", "applied"]
    assert run_pipeline(client, []) == []
    client.close()


def test_pipeline_answers_a_refusal_in_its_place(redis_url: str, redis_client: redis.Redis) -> None:
    """A call that Redis can't run doesn't hide the answers of the others, and isn't temporary."""
    client = sync_client(Settings(redis_url=redis_url))
    calls = Calls(keys_for(Settings(), client))
    redis_client.set(calls.keys.task("bad"), "a string", ex=60)
    answers = run_pipeline(client, [calls.cancel("bad"), calls.cancel("good")])
    assert isinstance(answers[0], StoreError)
    assert not isinstance(answers[0], StoreUnavailable)
    assert isinstance(answers[1], Answer)
    client.close()


def test_pipeline_answers_a_damaged_task_in_its_place(redis_url: str, redis_client: redis.Redis) -> None:
    """A hash that holds nonsense is that task's error, and for good; the others get their answers."""
    client = sync_client(Settings(redis_url=redis_url))
    calls = Calls(keys_for(Settings(), client))
    run_pipeline(client, [calls.open("bad", token="t1", lease_ms=LEASE_MS)])
    redis_client.hset(calls.keys.task("bad"), "attempt", "nan")
    answers = run_pipeline(client, [calls.cancel("bad"), calls.create("good", owner="", creation="c")])
    assert isinstance(answers[0], StoreError)
    assert not isinstance(answers[0], StoreUnavailable)
    assert isinstance(answers[1], Answer)
    client.close()


@pytest.mark.parametrize("raw", [None, [], [b"applied"], 3, [b"\xff"] * 12, ["nan"] * 12])
def test_an_answer_that_can_not_be_read_is_an_error_of_the_store(raw: Any) -> None:
    """Whatever a script seems to have answered, nothing but our own errors comes out."""
    with pytest.raises(StoreError):
        Answer.parse(raw)


def test_pipeline_without_a_server_is_unavailable(redis_url: str) -> None:
    """When nobody answers the same calls may be tried later."""
    with RedisProcess() as server:
        client = sync_client(Settings(redis_url=server.url))
        calls = Calls(keys_for(Settings(), client))
        assert len(run_pipeline(client, [calls.cancel("a")])) == 1
    with pytest.raises(StoreUnavailable):
        run_pipeline(client, [calls.cancel("a")])
    client.close()


def test_refusals_that_pass_are_temporary_and_leave_nothing() -> None:
    """Out of memory, and read-only, no script leaves half a step; the same calls work when it is over."""
    with RedisProcess(options=["--maxmemory-policy", "noeviction"]) as server, Bench(server.url) as bench:
        server_itself: Any = bench.client  # redis-py leaves execute_command untyped
        for call in every_call(bench.calls, bench.now()):
            before = bench.hash(), bench.log()
            for stop, go in [
                (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
                (("REPLICAOF", "127.0.0.1", str(server.port)), ("REPLICAOF", "NO", "ONE")),
            ]:
                # What begins a new epoch frees the old one first, and is let through.
                if "maxmemory" in stop and call.script.name in ("create", "restore"):
                    continue
                server_itself.execute_command(*stop)
                (answer,) = run_pipeline(bench.client, [call])
                server_itself.execute_command(*go)
                assert isinstance(answer, StoreUnavailable), (call.script.name, stop, answer)
                assert (bench.hash(), bench.log()) == before
            if before[0]:
                # A server that was a replica has another id; that it moved is not what this is about.
                bench.client.hset(
                    bench.keys.task("job-1"), "server", bench.client.info("replication")["master_replid"]
                )
            assert bench.run(call).verdict == "applied"


@pytest.mark.parametrize("code", ["BUSY", "MISCONF", "NOREPLICAS"])
@pytest.mark.parametrize("where", ["", "Command # 1 (TIME) of pipeline caused error: "])
def test_refusals_without_a_class_of_their_own_are_temporary(code: str, where: str) -> None:
    """What redis-py only tells by its text is recognised, alone and in a pipeline."""
    error = redis.ResponseError(f"{where}{code} Redis can't do that now.")
    assert isinstance(as_store_error(error), StoreUnavailable)
    assert not isinstance(as_store_error(redis.ResponseError(f"ERR {code.lower()}")), StoreUnavailable)


def test_times_in_the_log_never_go_back(bench: Bench) -> None:
    """Within an epoch the times are those of Redis, in the order of the log."""
    bench.create("c1")
    bench.open("t1")
    for batch in range(1, 6):
        bench.append("t1", batch, HI, Progress(batch / 10))
    times = [entry.event.at for entry in bench.log() if entry.event.at is not None]
    assert all(one <= two for one, two in pairwise(times))
    assert times[-1] <= bench.now()
