"""The script `report` in any order with the others, against a model of its rules.

Workers over HTTP, with and without a name, send their requests whole, in pieces, twice, too early and too
late, while one that speaks to Redis itself opens attempts, somebody announces and cancels, a gateway expires,
and Redis forgets. `Bench.run` checks after every call what must always hold of a log; the model below adds
what each attempt's text is: the beginnings of its requests' bodies, each byte once and in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from bridge.events import Chunk
from bridge.store.scripts import Answer
from tests.store.bench import Bench

LIVE = ("queued", "running")
WHOLE = 4
"""The length of every request's body."""


def body(token: str, request: str) -> str:
    """What an attempt says with that request: no two say the same."""
    return f"{crc32(f'{token} {request}'.encode()):08x}"[:WHOLE]


@dataclass
class Model:
    """The task as the rules have it."""

    known: bool = False
    hash: bool = False
    state: str = ""
    token: str = ""
    superseded: set[str] = field(default_factory=set)
    batch: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    """How far each request of this attempt has come; -1: to its end."""
    closed: bool = False
    cancel: bool = False
    leased: bool = False
    code: str = ""
    text: str = ""
    lives: int = 0

    def _take_over(self, token: str) -> None:
        if self.known:
            self.lives += self.state not in LIVE
            self.superseded.add(self.token)
        else:
            self.lives += 1
            self.superseded, self.cancel = set(), False
        self.known = self.hash = True
        self.state, self.token, self.batch, self.parts = "running", token, 0, {}
        self.closed, self.leased, self.code, self.text = False, False, "", ""

    def open(self, token: str) -> str:
        if self.known and token == self.token:
            return "seen" if self.state in LIVE else "ended"
        if self.known and token in self.superseded - {""}:
            return "fenced"
        if self.known and self.cancel:
            if self.state in LIVE:
                self.end("cancelled")
            return "ended"
        self._take_over(token)
        return "applied"

    def create(self) -> str:
        if self.known and self.state in LIVE:
            return "seen"
        self.lives += 1
        if self.known:
            self.superseded.add(self.token)
        else:
            self.superseded = set()
        self.known = self.hash = True
        self.state, self.token, self.cancel, self.text = "queued", "", False, ""
        self.batch, self.code, self.leased = (self.batch if self.known else 0), "", False
        return "applied"

    def end(self, state: str, code: str = "") -> None:
        self.state, self.code, self.leased = state, code, False

    def report(self, token: str, own: str, number: int, name: str, start: int, stop: int, end: str) -> str:
        has_it = self.token.startswith("~") if not token else token == self.token
        if not (self.known and has_it):
            if self.known and not token and self.state != "queued":
                return "taken" if self.state in LIVE else "ended"
            if self.known and token in self.superseded - {""}:
                return "fenced"
            if self.known and self.cancel and self.state not in LIVE:
                return "ended"
            if number > 1 or start > 0:
                return "lost"
            verdict = self.open(token or own)
            if verdict != "applied":
                return verdict
        key = f"#{number}" if number else name
        part = -1 if 0 < number <= self.batch else self.parts.get(key, 0)
        if number > self.batch + 1:
            return "gap"
        if part == -1 or start < part:
            return "seen"
        if start > part:
            return "lost"
        if self.state not in LIVE and self.code != "worker_lost":
            return "seen" if end and self.closed else "ended"
        if self.code == "worker_lost":
            self.lives += 1
            self.state, self.code = "running", ""
        self.text += body(self.token, key)[start:stop]
        self.parts[key] = -1 if stop == WHOLE else stop
        if stop == WHOLE and number:
            self.batch = number
        if end:
            self.end(end)
            self.closed = True
        return "applied"


tokens = st.sampled_from(["", "", "now", "now", "now", "before", "new"])
pieces = st.sampled_from([(0, 4), (0, 4), (0, 1), (0, 2), (1, 2), (1, 4), (2, 4), (0, 0), (2, 2)])


class Machine(RuleBasedStateMachine):
    """Drives one task; each example has a task of its own on one server."""

    url = ""
    examples = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.bench = Bench(self.url, f"job-{self.examples}")
        self.model = Model()
        self.tokens: list[str] = []
        self.names = 0

    def teardown(self) -> None:
        self.bench.__exit__()

    def token(self, which: str) -> str:
        if not which:
            return ""
        if which == "new" or not self.tokens:
            self.names += 1
            self.tokens.append(f"t{self.names}")
        return self.tokens[len(self.tokens) // 2] if which == "before" else self.tokens[-1]

    def agree(self, answer: Answer, verdict: str) -> None:
        model = self.model
        assert (answer.verdict, self.bench.lives) == (verdict, model.lives)
        if model.known:
            assert (answer.state, answer.code) == (model.state, model.code)
            assert answer.cancel_requested == model.cancel
            assert self.bench.folded.text == model.text

    @rule(which=tokens, step=st.sampled_from([1, 1, 1, 0, -1, 2]), piece=pieces, lease=st.booleans())
    def report_number(self, which: str, step: int, piece: tuple[int, int], lease: bool) -> None:
        token = self.token(which) or self.token("now")
        base = self.model.batch if token == self.model.token else 0
        self._report(token, max(base + step, 1), "", piece, "", lease)

    @rule(which=tokens, name=st.sampled_from("abc"), piece=pieces, lease=st.booleans())
    def report_name(self, which: str, name: str, piece: tuple[int, int], lease: bool) -> None:
        self._report(self.token(which), 0, name, piece, "", lease)

    @rule(which=tokens, numbered=st.booleans(), name=st.sampled_from("xyz"))
    def end(self, which: str, numbered: bool, name: str) -> None:
        token = self.token(which)
        number = self.model.batch + 1 if numbered and token and token == self.model.token else 0
        self._report(token, number, "" if number else name, (0, 4), "succeeded", False)

    def _report(
        self, token: str, number: int, name: str, piece: tuple[int, int], end: str, lease: bool
    ) -> None:
        model, own = self.model, f"~{self.bench._reports + 1}"
        has_it = self.model.known and not token and self.model.token.startswith("~")
        text = body(token or (model.token if has_it else own), f"#{number}" if number else name)
        before = model.leased
        answer = self.bench.report(
            token,
            *([Chunk(text[slice(*piece)])] if piece[0] < piece[1] else []),
            number=number,
            name=name,
            part=piece,
            whole=piece[1] == WHOLE,
            lease_ms=5000 if lease else None,
            end=end,
        )
        verdict = model.report(token, own, number, name, *piece, end)
        model.leased = model.state == "running" and (before or lease or answer.lease_ms > 0)
        self.agree(answer, verdict)
        if verdict == "seen":
            assert answer.part == -1 or answer.part > piece[0]
        if token and answer.verdict == "applied":
            self.tokens.append(token)

    @rule(which=tokens)
    def open(self, which: str) -> None:
        token = self.token(which) or self.token("new")
        self.agree(self.bench.open(token, lease_ms=0), self.model.open(token))

    @rule()
    def create(self) -> None:
        self.names += 1
        self.bench.tick()
        self.agree(self.bench.create(f"c{self.names}"), self.model.create())

    @rule()
    def cancel(self) -> None:
        model = self.model
        verdict = "unknown"
        if model.known:
            verdict = "ended" if model.state not in LIVE else "seen" if model.cancel else "applied"
        if verdict == "applied":
            model.cancel = True
            if model.state == "queued":
                model.end("cancelled")
        self.agree(self.bench.cancel(), verdict)

    @precondition(lambda self: self.model.known and self.model.state == "running" and self.model.leased)
    @rule()
    def expire(self) -> None:
        self.bench.let_lease_end()
        self.model.end("failed", "worker_lost")
        self.agree(self.bench.expire(), "applied")

    @precondition(lambda self: self.model.known)
    @rule(names=st.sampled_from([["log"], ["task"], ["task", "log"]]))
    def lose(self, names: list[str]) -> None:
        self.bench.lose(*names)
        self.model.known = False
        if "task" in names:
            self.model.hash = False


def test_reports_obey_their_rules(redis_url: str) -> None:
    """Whatever is called in whatever order, each attempt's text is its requests' bodies, each once."""

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
