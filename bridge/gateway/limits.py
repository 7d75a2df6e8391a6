"""The gate: never too many. How much one may ask for, and how much all together.

Rules
-----
1. Two kinds of limits. Rates: new streams, polls (cancels count as such) and reports, per address and
   second. Places: streams that are open at the same moment, in all, per address and per principal. 0
   switches a limit off.
2. Rates come before the door, so that guessing credentials, or making the gateway ask the app about them,
   has a limit too; places come after it, because only the door knows the principal.
3. A stream gives its places back exactly once, on every way out: it holds them for the length of a `with`
   block. Nothing is awaited between looking and taking, so two can't take one place.
4. A rate may be used up in bursts: what is allowed in `WINDOW_SECONDS` may come at once. A page that is
   opened again, with all its tasks, is no attack.
5. Who is refused costs nothing that lasts. All that is kept is bounded: a count for each stream that is open
   anyway, and the windows of so many addresses. Beyond them the oldest is forgotten, and begins anew: against
   that many addresses at once rates protect nobody, but places and connections do.
6. Nobody is punished for having been refused: when the window is over, one begins anew.
7. An address is what `addresses.py` says it is. Those in `unlimited_addresses` have no limits of their own:
   who comes from this machine is a proxy nobody told us of, or somebody who measures. A limit there would let
   one visitor lock out all others. `anonymous` is not one principal, but everybody.

All of it lives in this process's memory: behind several gateways each allows so much. Everything runs on the
event loop; no locks, no threads (the library's own storage in memory starts a thread to tidy up).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from time import monotonic
from typing import Final, Literal

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from bridge.errors import TooMany
from bridge.gateway.addresses import Networks, machine, parse_address
from bridge.gateway.auth.visitor import ANYBODY, Visitor
from bridge.settings import Settings

Place = tuple[str, str]
"""A limit's setting, and whose: an address, a principal, or "" for all."""

Kind = Literal["stream", "poll", "report"]

LIMITS: Final = (
    "max_streams",
    "max_streams_per_address",
    "max_streams_per_principal",
    "new_streams_per_second",
    "polls_per_second",
    "reports_per_second",
    "max_connections",
    "max_connections_per_address",
)
"""The settings that are limits, as `refused` names them."""

WINDOW_SECONDS: Final = 4
FULL_SECONDS: Final = 5
"""Who finds no place comes back after at least so long; nobody knows when one will be free."""
_FULL: Final = {
    "max_streams": "too many streams are open",
    "max_streams_per_address": "too many streams are open from your address",
    "max_streams_per_principal": "too many streams of yours are open",
}
_MAX_WINDOWS: Final = 100_000
"""Some 30 MB."""
_ADDRESSES: Final = 4096
"""So many of the latest addresses are known without reading them: that takes longer than all the rest."""


class Windows(Storage):
    """The library's fixed windows, in a dict. All are of one length, so they end in the order they began in:
    those that are over stand in front.
    """

    def __init__(self, *, most: int = _MAX_WINDOWS, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._windows: dict[str, tuple[float, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def base_exceptions(self) -> type[Exception]:
        """Of a server that keeps the windows; there is none."""
        return OSError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count in the key's window, which begins now if there is none."""
        self._forget()
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= self._most:
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = self._clock() + expiry, [0]
        window[1][0] += amount
        return window[1][0]

    def get(self, key: str) -> int:
        """How many were counted."""
        self._forget()
        return self._windows[key][1][0] if key in self._windows else 0

    def get_expiry(self, key: str) -> float:
        """When the window is over, by this storage's clock."""
        return self._windows[key][0] if key in self._windows else self._clock()

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget all windows."""
        number = len(self._windows)
        self._windows.clear()
        return number

    def clear(self, key: str) -> None:
        """Forget one window."""
        self._windows.pop(key, None)

    def _forget(self) -> None:
        now = self._clock()
        while self._windows:
            key = next(iter(self._windows))
            if self._windows[key][0] > now:
                break
            del self._windows[key]


class Connections:
    """Counts one server's connections. Those of trusted proxies count in all only: they carry everybody's.

    `refused` counts what was refused, by the limit's setting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limited = _limits_of(f"{settings.unlimited_addresses} {settings.trusted_proxies}")
        self._open: Counter[str] = Counter()
        self.all = 0
        self.refused: Counter[str] = Counter()

    def enter(self, address: str) -> str | None:
        """Take a place for a connection from there: what to give to `leave`. None: there is none."""
        settings = self._settings
        whose = self._limited(address)
        if _full(self.all, settings.max_connections):
            self.refused["max_connections"] += 1
            return None
        if whose and _full(self._open[whose], settings.max_connections_per_address):
            self.refused["max_connections_per_address"] += 1
            return None
        self.all += 1
        self._open[whose] += 1
        return whose

    def leave(self, place: str) -> None:
        """Give a place back."""
        self.all -= 1
        self._open[place] -= 1
        if not self._open[place]:
            del self._open[place]


class Gate:
    """Counts for one gateway. `refused` counts what was refused, by the limit's setting."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._limited = _limits_of(settings.unlimited_addresses)
        self._limiter = FixedWindowRateLimiter(Windows(clock=clock))
        self._rates: dict[Kind, tuple[str, RateLimitItem | None]] = {
            "stream": ("new_streams_per_second", _item("stream", settings.new_streams_per_second)),
            "poll": ("polls_per_second", _item("poll", settings.polls_per_second)),
            "report": ("reports_per_second", _item("report", settings.reports_per_second)),
        }
        self._taken: Counter[Place] = Counter()
        self.refused: Counter[str] = Counter()

    @property
    def streams(self) -> int:
        """How many streams are inside."""
        return self._taken["max_streams", ""]

    def pace(self, address: str, kind: Kind) -> None:
        """Count one request. Raises `TooMany` when there were too many from there."""
        limit, item = self._rates[kind]
        if item is None:
            return
        who = self._limited(address)
        if not who or self._limiter.hit(item, who):
            return
        self.refused[limit] += 1
        left = self._limiter.get_window_stats(item, who).reset_time - self._clock()
        raise TooMany("too many requests from your address", limit, max(1, math.ceil(left)))

    def place(self, address: str, visitor: Visitor) -> Places:
        """A stream's places, to be held for the length of a `with` block, which raises `TooMany` when one of
        them is not free.
        """
        settings = self._settings
        places = {("max_streams", ""): settings.max_streams}
        if who := self._limited(address):
            places["max_streams_per_address", who] = settings.max_streams_per_address
        if visitor.principal != ANYBODY.principal:
            places["max_streams_per_principal", visitor.principal] = settings.max_streams_per_principal
        return Places(self, places)

    def take(self, places: Mapping[Place, int]) -> tuple[Place, ...]:
        """Take all of these, each of so many, or none. Raises `TooMany` when one is not free."""
        for (limit, whose), most in places.items():
            if _full(self._taken[limit, whose], most):
                self.refused[limit] += 1
                raise TooMany(_FULL[limit], limit, FULL_SECONDS)
        self._taken.update(places.keys())
        return tuple(places)

    def give_back(self, places: Iterable[Place]) -> None:
        """What was taken is free again."""
        for place in places:
            self._taken[place] -= 1
            if not self._taken[place]:
                del self._taken[place]


class Places:
    """What `Gate.place` gives."""

    __slots__ = ("_gate", "_places", "_wanted")

    def __init__(self, gate: Gate, wanted: Mapping[Place, int]) -> None:
        self._gate = gate
        self._wanted = wanted
        self._places: tuple[Place, ...] = ()

    def __enter__(self) -> None:
        """Take them."""
        self._places = self._gate.take(self._wanted)
        self._wanted = {}

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        self._gate.give_back(self._places)


def _limits_of(unlimited: str) -> Callable[[str], str]:
    """`_limited`, which remembers the addresses that come again and again."""
    return lru_cache(_ADDRESSES)(partial(_limited, Networks(unlimited)))


def _limited(unlimited: Networks, address: str) -> str:
    """Whom limits per address count; empty for nobody. A server that isn't ours may know no addresses."""
    parsed = parse_address(address)
    return "" if parsed is None or unlimited.holds(parsed) else machine(parsed)


def _full(taken: int, most: int) -> bool:
    return 0 < most <= taken


def _item(namespace: str, per_second: int) -> RateLimitItem | None:
    if not per_second:
        return None
    return RateLimitItemPerSecond(per_second * WINDOW_SECONDS, WINDOW_SECONDS, namespace)
