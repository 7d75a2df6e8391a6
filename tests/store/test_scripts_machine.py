"""All scripts at once, in any order, against a model of the table of their rules.

Two workers with fresh and with old tokens, an app that announces, somebody who cancels, somebody who speaks
for killed workers, a gateway that expires, and a Redis that forgets. The model below is the table in Python;
`Bench.run` checks after every call what must always hold: the log is 1..n with at most one end, which is
last; epochs only grow; hash and log agree; both keys end together; what is published is what was appended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from bridge.events import Chunk, End
from bridge.store.scripts import Answer
from tests.store.bench import FRESH_MS, Bench

LIVE = ("queued", "running")
OLD_MS = 10**13
"""Older than anything here, in ms."""


@dataclass
class Model:
    """The task as the table of the scripts has it. Each method says the verdict and does what it says."""

    known: bool = False
    """Both keys are there."""
    hash: bool = False
    """The hash is there: what it says still counts for a repair and for the owner."""
    state: str = ""
    attempt: int = 0
    started: int = 0
    token: str = ""
    superseded: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    """How the tokens of those begin that were killed before they began."""
    batch: int = 0
    cancel: bool = False
    lease_over: bool = False
    code: str = ""
    creation: str = ""
    repair: str = ""
    owner: str = ""
    text: str = ""
    lives: int = 0
    """How many epochs there have been."""

    def _begin(self, state: str, **more: Any) -> None:
        """As if nothing had been before."""
        vars(self).update(vars(Model(True, True, state, lives=self.lives + 1, **more)))

    def _has(self, token: str) -> bool:
        return bool(token) and token == self.token and self.state != "queued"

    def _refused(self, token: str, batch: int) -> str:
        if not self.known:
            return "lost"
        if not self._has(token):
            return "fenced"
        if self.state not in LIVE:
            return "ended"
        if batch <= self.batch:
            return "seen"
        return "gap" if batch > self.batch + 1 else ""

    def _take_over(self, token: str, attempt: int) -> None:
        self.superseded.append(self.token)
        self.token, self.attempt, self.batch, self.text = token, attempt, 0, ""
        self.state, self.code, self.repair, self.lease_over = "running", "", "", False

    def _end(self, state: str, code: str = "") -> None:
        self.state, self.code, self.lease_over = state, code, False

    def _requeue(self) -> None:
        if self.cancel:
            self._end("cancelled")
        else:
            self.state, self.started, self.lease_over = "queued", 0, False

    def create(self, creation: str, owner: str, late: bool) -> str:
        if not self.known:
            self._begin("queued", creation=creation, owner=owner)
            return "applied"
        again = self.state not in LIVE and creation != self.creation and not late
        if again:
            self.lives += 1
            self.superseded.append(self.token)
            self.state, self.started, self.token, self.text = "queued", 0, "", ""
            self.cancel, self.creation, self.code = False, creation, ""
            self.owner = owner or self.owner
            return "applied"
        self.owner = self.owner or owner
        if self.state in LIVE:
            self.creation = creation
        return "seen"

    def open(self, token: str) -> str:
        if self.known:
            if self._has(token):
                return "seen" if self.state in LIVE else "ended"
            known = token == self.token or token in self.superseded
            if known or any(token.startswith(place) for place in self.dead):
                return "fenced"
            if self.cancel:
                if self.state in LIVE:
                    self._end("cancelled")
                return "ended"
            self.lives += self.state not in LIVE
            self._take_over(token, self.attempt + 1)
            return "applied"
        creation, owner = (self.creation, self.owner) if self.hash else ("", "")
        self._begin("running", attempt=1, token=token, creation=creation, owner=owner)
        return "applied"

    def append(self, token: str, batch: int, text: str) -> str:
        if refused := self._refused(token, batch):
            return refused
        self.batch, self.text = batch, self.text + text
        return "applied"

    def close(self, token: str, batch: int, text: str, state: str) -> str:
        refused = self._refused(token, batch)
        given_back = self.known and self.state == "queued" and token == self.token
        if (refused == "ended" or given_back) and batch == self.batch:
            return "seen"
        if not refused:
            self.batch, self.text = batch, self.text + text
            if state == "queued":
                self._requeue()
            else:
                self._end(state)
        return refused or "applied"

    def _was_had(self, place: str) -> bool:
        """Whether an attempt there is older than, or is, the one that has the task or gave it back."""
        known = [self.token, *self.superseded, *self.dead]
        return bool(self.token) and any(token.startswith(place) for token in known)

    def conclude(self, place: str, state: str, late: bool) -> str:
        if self.known and self.state not in LIVE:
            return "ended"
        if not self.known:
            if state == "queued":
                return "unknown"
            self._begin("queued")
        else:
            meant = bool(place) and self.token.startswith(place)
            if self.state == "queued" and not (place and self._was_had(place)):
                meant = not late
            if not meant:
                return "fenced"
            if self.state == state:
                return "seen"
        if place and not self._was_had(place):
            self.dead.append(place)
        if state == "queued":
            self._requeue()
        else:
            self._end(state, "killed")
        return "applied"

    def renew(self, token: str) -> str:
        refused = self._refused(token, self.batch + 1)
        if not refused:
            self.lease_over = False
        return refused or "applied"

    def request_cancel(self) -> str:
        if not self.known:
            return "unknown"
        if self.state not in LIVE:
            return "ended"
        if self.cancel:
            return "seen"
        self.cancel = True
        if self.state == "queued":
            self._end("cancelled")
        return "applied"

    def expire(self, late: bool) -> str:
        if not self.known:
            return "unknown"
        if self.state != "running" or not self.lease_over:
            return "alive"
        if late:
            return "late"
        self._end("failed", "worker_lost")
        return "applied"

    def restore(self, token: str, attempt: int, started: int, name: str, batch: int, text: str) -> str:
        same = self._has(token)
        if self.hash and not same and (attempt <= self.attempt or started < self.started):
            return "fenced"
        if self.known and same and name == self.repair:
            return "seen" if self.state in LIVE else "ended"
        if self.known and same and self.state not in LIVE and self.code != "worker_lost":
            return "ended"
        if self.hash:
            self.lives += 1
        else:
            self._begin("running")
        self._take_over(token, attempt)
        self.known, self.batch, self.text, self.repair, self.started = True, batch, text, name, started
        return "applied"

    def lose(self, names: list[str]) -> None:
        self.known = False
        if "task" in names:
            self.hash = False


tokens = st.sampled_from(["now", "now", "now", "before", "other"])
texts = st.sampled_from(["a", "é", "😀 "])
steps = st.sampled_from([1, 1, 1, 0, -1, 2])


class Machine(RuleBasedStateMachine):
    """Drives the scripts of one task; each example has a task of its own on one server."""

    url = ""
    examples = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.bench = Bench(self.url, f"job-{self.examples}")
        self.model = Model()
        self.attempts: dict[str, tuple[int, int]] = {}
        """What each token's worker knows of itself: its attempt, and when that started."""
        self.names = 0

    def teardown(self) -> None:
        self.bench.__exit__()

    def token(self, which: str) -> str:
        """The latest worker's, one of an older one's, or one that never came through."""
        known = list(self.attempts)
        if which == "other" or not known:
            return f"none{len(known):04}"
        return known[-1] if which == "now" else known[len(known) // 2]

    def fresh(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names:04}"

    def agree(self, answer: Answer, verdict: str) -> None:
        """The script said what the table says, and left what it says."""
        model, fields = self.model, self.bench.hash()
        assert (answer.verdict, self.bench.lives) == (verdict, model.lives)
        assert fields.get("owner", "") == (model.owner if model.hash else "")
        if model.known:
            assert (answer.state, answer.attempt, answer.code) == (model.state, model.attempt, model.code)
            assert (answer.cancel_requested, fields["token"]) == (model.cancel, model.token)
            assert self.bench.folded.text == model.text
            if model.state == "running":
                assert answer.batch == model.batch

    @rule(again=st.booleans(), owner=st.sampled_from(["", "ann", "bob"]), late=st.booleans())
    def create(self, again: bool, owner: str, late: bool) -> None:
        creation = self.model.creation if again and self.model.creation else self.fresh("c")
        self.bench.tick()
        answer = self.bench.create(creation, owner, OLD_MS if late else 0)
        self.agree(answer, self.model.create(creation, owner, late))

    @rule()
    def open(self) -> None:
        self._open(self.fresh("t"))

    @rule(which=tokens)
    def open_again(self, which: str) -> None:
        self._open(self.token(which))

    def _open(self, token: str) -> None:
        answer = self.bench.open(token)
        verdict = self.model.open(token)
        if verdict == "applied":
            self.model.started = answer.now
            self.attempts.pop(token, None)
            self.attempts[token] = (answer.attempt, answer.now)
        self.agree(answer, verdict)

    @rule(which=tokens, step=steps, text=texts)
    def append(self, which: str, step: int, text: str) -> None:
        token, batch = self.token(which), self.model.batch + step
        self.agree(self.bench.append(token, batch, Chunk(text)), self.model.append(token, batch, text))

    @rule(which=tokens, step=steps, text=texts, state=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def close(self, which: str, step: int, text: str, state: str) -> None:
        token, batch = self.token(which), self.model.batch + step
        answer = self.bench.close(token, batch, Chunk(text), end=End(state, length={}))
        self.agree(answer, self.model.close(token, batch, text, state))

    @rule(which=tokens, step=steps, text=texts)
    def give_back(self, which: str, step: int, text: str) -> None:
        token, batch = self.token(which), self.model.batch + step
        answer = self.bench.requeue(token, batch, Chunk(text))
        self.agree(answer, self.model.close(token, batch, text, "queued"))

    @rule(which=tokens, begun=st.booleans(), state=st.sampled_from(["failed", "queued"]), late=st.booleans())
    def conclude(self, which: str, begun: bool, state: str, late: bool) -> None:
        place = self.token(which) if begun else ""
        code = {"code": "killed"} if state == "failed" else {}
        answer = self.bench.conclude(place, state, age_ms=OLD_MS if late else 0, **code)
        self.agree(answer, self.model.conclude(place, state, late))

    @rule(which=tokens)
    def renew(self, which: str) -> None:
        token = self.token(which)
        self.agree(self.bench.renew(token), self.model.renew(token))

    @rule()
    def cancel(self) -> None:
        self.agree(self.bench.cancel(), self.model.request_cancel())

    @rule(late=st.booleans())
    def expire(self, late: bool) -> None:
        self.agree(self.bench.expire(2500 if late else FRESH_MS), self.model.expire(late))

    @precondition(lambda self: self.model.known and self.model.state == "running")
    @rule()
    def lease_ends(self) -> None:
        self.bench.let_lease_end()
        self.model.lease_over = True

    @precondition(lambda self: self.attempts)
    @rule(which=tokens, again=st.booleans(), batch=st.integers(0, 3), text=texts, more=st.booleans())
    def restore(self, which: str, again: bool, batch: int, text: str, more: bool) -> None:
        token = self.token(which)
        attempt, started = self.attempts.get(token, (self.model.attempt + more, self.bench.now()))
        name = self.model.repair if again and self.model.repair else self.fresh("r")
        answer = self.bench.restore(
            token, attempt, Chunk(text), name=name, batch=batch, started_at=started, created_at=1
        )
        verdict = self.model.restore(token, attempt, started, name, batch, text)
        if verdict == "applied":
            self.attempts.pop(token, None)
            self.attempts[token] = (attempt, started)
        self.agree(answer, verdict)

    @precondition(lambda self: self.model.known)
    @rule(names=st.sampled_from([["log"], ["task"], ["task", "log"]]))
    def lose(self, names: list[str]) -> None:
        self.bench.lose(*names)
        self.model.lose(names)


def test_scripts_obey_their_table(redis_url: str) -> None:
    """Whatever is called in whatever order, each script does what the table of the rules says."""

    class Bound(Machine):
        url = redis_url

    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
