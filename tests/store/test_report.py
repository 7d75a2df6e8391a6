"""The rules of the script `report`, one by one: workers over HTTP, and gateways that remember nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.events import Chunk, Data, End, Progress, Reset, State
from bridge.store.scripts import Answer
from tests.store.bench import Bench
from tests.store.test_moved import move

A, B, C = Chunk("a"), Chunk("b"), Chunk("c")
RUNNING = State("running", 1)


@pytest.fixture(params=["real", "fake"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A task on a real server, and on fakeredis behind a socket."""
    url = request.getfixturevalue("redis_url" if request.param == "real" else "fake_redis_url")
    with Bench(url) as bench:
        yield bench


@pytest.fixture
def real(redis_url: str) -> Iterator[Bench]:
    """A task on a real server: fakeredis doesn't tell its replication id."""
    with Bench(redis_url) as bench:
        yield bench


def said(answer: Answer) -> tuple[str, int, int]:
    """The verdict, the last number, and how far the request has come."""
    return answer.verdict, answer.batch, answer.part


# Attempts


def test_first_report_opens_the_task(bench: Bench) -> None:
    """A worker that names no attempt has the one that nobody named: its first report begins it."""
    assert said(bench.report("", A)) == ("applied", 0, -1)
    assert said(bench.report("", B)) == ("applied", 0, -1)
    assert bench.events() == [RUNNING, A, B]
    assert bench.hash()["token"].startswith("~")
    assert bench.hash()["length"] == '{"text":2}'


def test_nobody_reports_beside_a_worker_that_has_a_name(bench: Bench) -> None:
    """Who names no attempt is refused while another has the task."""
    bench.open("t1")
    assert bench.report("", A).verdict == "taken"
    assert bench.report("t1", A).verdict == "applied"
    assert bench.view().text == "a"


def test_another_token_begins_a_retry(bench: Bench) -> None:
    """As with `open` the newest attempt fences older ones; after an end it has an epoch of its own."""
    bench.report("t1", A, number=1)
    assert bench.report("t2", B, number=1).attempt == 2
    assert bench.report("t1", C, number=2).verdict == "fenced"
    assert bench.events() == [RUNNING, A, Reset("retry", 2), State("running", 2), B]
    epoch = bench.report("t2", end="failed", number=2).position.epoch
    answer = bench.report("t3", C, number=1)
    assert (answer.verdict, answer.attempt, answer.position.epoch > epoch) == ("applied", 3, True)
    assert bench.view().text == "c"


def test_queued_task_is_begun(bench: Bench) -> None:
    """An announced task keeps its owner, and is nobody's retry."""
    bench.create("c1", owner="ann")
    assert bench.report("", A).owner == "ann"
    assert bench.events() == [State("queued"), RUNNING, A]


def test_cancelled_task_is_not_begun(bench: Bench) -> None:
    """Who comes to a task that was cancelled while it waited is told so, whatever token he has."""
    bench.create("c1")
    bench.cancel()
    before = bench.log()
    for token, number in (("", 0), ("t1", 1), ("t1", 2)):
        answer = bench.report(token, A, number=number)
        assert (answer.verdict, answer.state, answer.cancel_requested) == ("ended", "cancelled", True)
    assert bench.log() == before


def test_cancel_is_told_with_every_answer(bench: Bench) -> None:
    """The flag reaches the worker, whose text is still taken."""
    bench.report("t1", A)
    bench.cancel()
    answer = bench.report("t1", B)
    assert (answer.verdict, answer.cancel_requested) == ("applied", True)
    assert bench.view().text == "ab"


def test_announced_again_the_task_is_begun_again(bench: Bench) -> None:
    """After an end who names no attempt is refused, until the task is announced once more."""
    bench.report("", A)
    bench.report("", end="succeeded")
    assert bench.report("", B).verdict == "ended"
    bench.tick()
    bench.create("c1")
    assert bench.report("", B).attempt == 2
    assert bench.view().text == "b"


# Exactly once


def test_number_that_was_seen_is_not_applied_again(bench: Bench) -> None:
    """A repetition gets the answer of success, also after the end."""
    assert said(bench.report("t1", A, number=1)) == ("applied", 1, -1)
    assert said(bench.report("t1", A, number=1)) == ("seen", 1, -1)
    bench.report("t1", end="succeeded", number=2)
    assert said(bench.report("t1", A, number=1)) == ("seen", 2, -1)
    assert said(bench.report("t1", end="succeeded", number=2)) == ("seen", 2, -1)
    assert bench.view().text == "a"


def test_number_that_skips_ahead_is_refused(bench: Bench) -> None:
    """The last number known is told."""
    bench.report("t1", A, number=1)
    assert said(bench.report("t1", C, number=3)) == ("gap", 1, 0)
    assert bench.view().text == "a"


def test_name_that_was_seen_is_not_applied_again(bench: Bench) -> None:
    """The last thirty-two names are remembered, those that come again as the newest."""
    for n in range(40):
        bench.report("", Chunk(f"{n},"), name=f"name{n}")
    for n in (39, 8):
        assert said(bench.report("", Chunk(f"{n},"), name=f"name{n}")) == ("seen", 0, -1)
    assert bench.view().text == "".join(f"{n}," for n in range(40))


def test_name_of_another_attempt_is_new(bench: Bench) -> None:
    """A retry calls its requests as the first run did."""
    bench.report("t1", A, name="first")
    assert bench.report("t2", B, name="first").verdict == "applied"
    assert bench.view().text == "b"


@pytest.mark.parametrize("request_name", [{"number": 1}, {"name": "n"}])
def test_request_goes_on_where_it_stopped(bench: Bench, request_name: dict[str, object]) -> None:
    """Of a body that comes in pieces each is applied once, in order, whoever sends it how often."""

    def piece(start: int, stop: int, text: str, whole: bool = False) -> tuple[str, int]:
        answer = bench.report("t1", Chunk(text), part=(start, stop), whole=whole, **request_name)  # type: ignore[arg-type]  # pytest's parameters have no types
        return answer.verdict, answer.part

    assert piece(0, 2, "ab") == ("applied", 2)
    assert piece(0, 2, "ab") == ("seen", 2)
    assert piece(0, 4, "abcd") == ("seen", 2)
    assert piece(4, 5, "e") == ("lost", 2)
    assert piece(2, 4, "cd") == ("applied", 4)
    assert piece(4, 5, "e", whole=True) == ("applied", -1)
    assert piece(0, 5, "abcde", whole=True) == ("seen", -1)
    assert bench.view().text == "abcde"
    assert bench.hash()["batch"] == ("1" if "number" in request_name else "0")


def test_requests_may_be_under_way_together(bench: Bench) -> None:
    """A request that is whole at once goes in between the pieces of another."""
    bench.report("t1", A, name="long", part=(0, 1), whole=False)
    bench.report("t1", B, name="short")
    assert said(bench.report("t1", C, name="long", part=(1, 2))) == ("applied", 0, -1)
    assert bench.view().text == "abc"


# The end


@pytest.mark.parametrize("token", ["", "t1"])
def test_end_carries_the_lengths(bench: Bench, token: str) -> None:
    """Lengths are added up in Redis, in bytes, for each field of this attempt."""
    bench.report(token, Chunk("é"), Chunk("hm", "reasoning"))
    bench.report(token, Chunk("😀"))
    answer = bench.report(token, end="succeeded")
    assert (answer.verdict, answer.state) == ("applied", "succeeded")
    end = bench.events()[-1]
    assert end == End("succeeded", length={"text": 6, "reasoning": 2})


def test_end_is_one_for_all_who_repeat_it(bench: Bench) -> None:
    """The first counts; the same attempt's second is no error, and text after it is."""
    bench.report("t1", A)
    bench.report("t1", end="failed")
    assert [bench.report("t1", end=end).state for end in ("succeeded", "failed")] == ["failed", "failed"]
    assert bench.report("t1", end="succeeded").verdict == "seen"
    assert bench.report("t1", B).verdict == "ended"


def test_end_alone_is_a_whole_attempt(bench: Bench) -> None:
    """A worker that can't even begin says so with its first word."""
    bench.create("c1")
    assert bench.report("", end="failed").verdict == "applied"
    assert bench.events()[1:] == [RUNNING, End("failed", length={})]


def test_end_of_somebody_else_is_no_success(bench: Bench) -> None:
    """A worker whose task was ended by a cancel didn't end it himself."""
    bench.report("t1", A)
    bench.cancel()
    bench.open("t2")
    assert bench.report("t1", end="succeeded").verdict == "ended"


# Leases


def test_lease_only_if_asked_for(bench: Bench) -> None:
    """Without one nobody declares the task lost; with one every report renews it, until it is given back."""
    bench.report("t1", A)
    assert bench.hash()["lease"] == "0"
    answer = bench.report("t1", lease_ms=5000)
    assert (answer.lease_ms, int(bench.hash()["lease"])) == (5000, answer.now + 5000)
    bench.tick()
    answer = bench.report("t1")
    assert (answer.lease_ms, int(bench.hash()["lease"])) == (5000, answer.now + 5000)
    assert bench.report("t1", lease_ms=0).lease_ms == 0
    assert bench.hash()["lease"] == "0"
    bench.report("t1", lease_ms=5000)
    bench.report("t1", end="succeeded")
    assert bench.hash()["lease"] == "0"


@pytest.mark.parametrize(("number", "verdict"), [(1, "seen"), (3, "gap")])
def test_worker_that_repeats_itself_lives(bench: Bench, number: int, verdict: str) -> None:
    """A request that adds nothing renews the lease all the same."""
    bench.report("t1", A, number=1, lease_ms=5000)
    bench.tick()
    answer = bench.report("t1", A, number=number)
    assert answer.verdict == verdict
    assert int(bench.hash()["lease"]) == answer.now + 5000


@pytest.mark.parametrize("token", ["", "t1"])
def test_lost_worker_comes_back(bench: Bench, token: str) -> None:
    """The one end that can be taken back is, with the next report: its text is there, in a new epoch."""
    epoch = bench.report(token, A, lease_ms=5000).position.epoch
    bench.let_lease_end()
    bench.expire()
    answer = bench.report(token, B)
    assert (answer.verdict, answer.state, answer.code) == ("applied", "running", "")
    assert answer.position.epoch > epoch
    assert bench.events() == [Reset("worker_returned", 1), RUNNING, A, B]
    assert int(bench.hash()["lease"]) == answer.now + 5000
    assert bench.report(token, end="succeeded").state == "succeeded"
    assert bench.events()[-1] == End("succeeded", length={"text": 2})


def test_lost_worker_that_was_replaced_stays_away(bench: Bench) -> None:
    """Once a newer attempt has begun, the older one is superseded, however it ended."""
    bench.report("t1", A, lease_ms=5000)
    bench.let_lease_end()
    bench.expire()
    bench.report("t2", B)
    assert bench.report("t1", C).verdict == "fenced"
    assert bench.view().text == "b"


# Room


def test_content_beyond_the_room_is_refused_with_what_is_left(bench: Bench) -> None:
    """The gateway cuts there and says so; then no more content comes, but progress and the end do."""
    bench.report("t1", Chunk("12345678"), most=10)
    answer = bench.report("t1", Chunk("9abc"), number=1, most=10)
    assert (answer.verdict, answer.room, answer.batch) == ("full", 2, 0)
    assert bench.report("t1", Chunk("9a"), number=1, most=10, truncated=True).truncated
    answer = bench.report("t1", B, most=10)
    assert (answer.verdict, answer.room) == ("full", 0)
    assert bench.report("t1", Progress(0.5), most=10).verdict == "applied"
    bench.report("t1", end="succeeded", most=10)
    assert bench.events()[-1] == End("succeeded", length={"text": 10}, truncated=True)
    assert bench.view().text == "123456789a"


def test_log_that_is_full_takes_nothing_but_the_end(bench: Bench) -> None:
    """There is room for nothing at all, and the end still comes."""
    bench.report("t1", A)
    answer = bench.report("t1", Progress(0.5), limit=10)
    assert (answer.verdict, answer.room) == ("full", -1)
    assert bench.report("t1", truncated=True, limit=10).verdict == "applied"
    assert bench.report("t1", end="succeeded", limit=10).truncated


def test_fields_have_a_limit(bench: Bench) -> None:
    """Of more than a hundred none is begun, and those that are there go on."""
    assert bench.report("t1", *[Chunk("x", f"f{n}") for n in range(100)]).verdict == "applied"
    assert bench.report("t1", Chunk("x", "one too many")).verdict == "crowded"
    assert bench.report("t1", Chunk("x", "f7")).verdict == "applied"


def test_names_of_fields_survive(bench: Bench) -> None:
    """Whatever a field is called, its length is told under that name."""
    names = ['a"b', "c\\d", "é/ü", "1", "e=f g"]
    bench.report("t1", *[Chunk("xy", name) for name in names])
    bench.report("t1", *[Chunk("z", name) for name in names])
    bench.report("t1", Data("n", 1), end="succeeded")
    assert bench.events()[-1] == End("succeeded", length=dict.fromkeys(names, 3))


# Losses


@pytest.mark.parametrize("names", [["log"], ["task"], ["task", "log"]])
def test_task_that_is_gone_is_lost(bench: Bench, names: list[str]) -> None:
    """Who goes on is told that nothing is there, and can begin again, with the same token."""
    bench.report("t1", A, number=1)
    bench.lose(*names)
    assert said(bench.report("t1", B, number=2)) == ("lost", 0, 0)
    assert said(bench.report("t1", B, name="n", part=(1, 2))) == ("lost", 0, 0)
    assert said(bench.report("t1", A, number=1)) == ("applied", 1, -1)
    assert said(bench.report("t1", B, number=2)) == ("applied", 2, -1)
    assert bench.view().text == "ab"


@pytest.mark.parametrize("announced", [False, True])
def test_what_was_reported_to_a_lost_log_is_forgotten(bench: Bench, announced: bool) -> None:
    """Also where somebody else begins the log anew: under the same token the same request counts again."""
    bench.report("t1", A, name="n")
    bench.lose("log")
    if announced:
        bench.create("again")
    bench.open("t1", lease_ms=0)
    assert said(bench.report("t1", A, name="n"))[0] == "applied"
    assert bench.view().text == "a"


def test_attempt_that_is_gone_is_lost(bench: Bench) -> None:
    """Redis may know the task, but not this attempt: it isn't begun in the middle."""
    bench.report("t1", A, number=1)
    assert said(bench.report("t2", B, number=5)) == ("lost", 0, 0)
    assert bench.view().text == "a"


def test_report_elsewhere_begins_a_new_epoch(real: Bench) -> None:
    """On another server ids may have been given before, so what is left stands in a new epoch."""
    epoch = real.report("t1", A, number=1).position.epoch
    move(real)
    assert real.report("t1", C, number=3).verdict == "gap"
    assert real.report("t1", B, number=2).verdict == "applied"
    assert real.log()[0].position.epoch > epoch
    assert real.events() == [Reset("log_lost", 1), RUNNING, A, B]
    epoch = real.report("t1").position.epoch
    assert real.report("t1", C, number=3).position.epoch == epoch


def test_retry_elsewhere_begins_one_new_epoch(real: Bench) -> None:
    """A new attempt on another server's task is published as one epoch, not two."""
    real.report("t1", A, number=1)
    move(real)
    assert real.report("t2", B, number=1).verdict == "applied"
    assert real.events() == [Reset("retry", 2), State("running", 2), B]


def test_sign_of_life_elsewhere_changes_nothing(real: Bench) -> None:
    """What appends nothing needs no new epoch."""
    epoch = real.report("t1", A).position.epoch
    move(real)
    assert real.report("t1").position.epoch == epoch
