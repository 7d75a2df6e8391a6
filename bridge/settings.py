"""Every setting, once: its default, its unit (in the name or the help) and what it is for.

The command line's options, `docs/settings.md` and the environment variables are made from this table.
A setting `heartbeat_seconds` is read from `BRIDGE_HEARTBEAT_SECONDS`; flags go before the environment,
the environment before the default. `redis_url` also looks at `REDIS_URL`, after `BRIDGE_REDIS_URL`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, Final, Self

from bridge.errors import SettingsError

_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True,
                 "0": False, "false": False, "no": False, "off": False}  # fmt: skip
_SWITCHES: Final = {True: "on", False: "off"}

# https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin; other schemes than
# http are those of apps: capacitor://localhost, chrome-extension://…
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_USUAL_PORT: Final = re.compile(r"^http:.*:80$|^https:.*:443$")


def _setting(
    default: Any,
    text: str,
    *,
    least: float = -math.inf,
    most: float | None = None,
    also: tuple[str, ...] = (),
) -> Any:
    if most is None:
        # Times end where Redis and the timers of the system still know them: at 30 years.
        most = 1e9 if isinstance(default, float) else 2**53
    return field(default=default, metadata={"help": text, "least": least, "most": most, "also": also})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of workers and gateways. Seconds may be fractions; bytes are bytes."""

    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "The Redis or Valkey (7.0 or newer) that workers and gateways share: redis://, rediss:// or unix://,"
        " or redis+sentinel://host:26379,host:26379/mymaster/0 (see operations.md).",
        also=("REDIS_URL",),
    )
    prefix: str = _setting(
        "bridge:", "What every key and channel name in Redis begins with. The same for workers and gateways."
    )
    gateway_url: str = _setting(
        "http://127.0.0.1:8620", "Where `bridge tail`, `status` and `cancel` find the gateway."
    )

    lease_seconds: float = _setting(
        30.0, "A worker that gives no sign for so long is lost, and its task ends as failed.", least=0.5
    )
    ended_ttl_seconds: float = _setting(3600.0, "How long a task is kept in Redis after its end.", least=1)
    live_ttl_seconds: float = _setting(
        86400.0, "How long a queued or running task is kept in Redis without any sign.", least=1
    )
    max_task_bytes: int = _setting(
        16 * 1024 * 1024,
        "The most that one attempt may write, in bytes of event data. Beyond, the answer is cut and marked"
        " `truncated`; the work goes on.",
        least=1024,
    )

    flush_milliseconds: float = _setting(
        20.0,
        "Text is merged for so long before it is sent. The first text of a task goes out at once.",
        least=0,
    )
    flush_bytes: int = _setting(4096, "So much waiting text is sent early.", least=1)
    close_timeout_seconds: float = _setting(
        10.0, "Leaving a task block waits at most so long for Redis to confirm the end.", least=0
    )
    cancel_check_seconds: float = _setting(
        1.0, "How often a worker that reports nothing asks whether its task was cancelled.", least=0.05
    )
    create_timeout_seconds: float = _setting(
        2.0, "`create_task` waits at most so long; after that it goes on trying in the background.", least=0
    )

    host: str = _setting("127.0.0.1", "The address that the gateway listens on.")
    port: int = _setting(8620, "The port that the gateway listens on. 0: any free one.", least=0, most=65535)
    base_path: str = _setting("", "A path that stands before every path of the gateway, such as `/bridge`.")
    page: bool = _setting(
        False,
        "Serve the page at `/`, which shows a task as it grows. It shows any task to whoever knows its id.",
    )
    cors_origins: str = _setting(
        "",
        "The web pages of other origins that may read the gateway's answers: `https://app.example` and the"
        " like, with commas or spaces between them, or `*` for all, which then can't send credentials.",
    )
    heartbeat_seconds: float = _setting(
        15.0, "A stream on which nothing was sent for so long gets a comment line.", least=0.05
    )
    linger_seconds: float = _setting(
        30.0, "A task nobody reads any more stays in the gateway's memory for so long.", least=0
    )
    stall_timeout_seconds: float = _setting(
        60.0, "A client that takes nothing for so long is disconnected. It can resume.", least=0.05
    )
    unknown_task_wait_seconds: float = _setting(
        600.0, "A stream of a task that doesn't exist yet waits so long for it.", least=0
    )
    outage_wait_seconds: float = _setting(
        15.0,
        "A new stream waits so long for an absent Redis before it is sent away to come back later.",
        least=0,
    )
    longest_wait_seconds: float = _setting(
        60.0, "The longest long poll; a longer `wait` means this.", least=0
    )
    poll_interval_seconds: float = _setting(
        2.0, "What `Retry-After` tells the pollers of a running task, rounded up to whole seconds.", least=0.1
    )
    drain_seconds: float = _setting(
        20.0,
        "At SIGTERM, streams are closed spread over so long, so that clients don't all come back at once.",
        least=0,
    )
    probe_seconds: float = _setting(
        5.0,
        "A message that the gateway sends itself over Redis must be back within so long, else the link is"
        " replaced. It is sent with every audit, and at least this often.",
        least=0.05,
    )
    audit_seconds: float = _setting(
        5.0,
        "How often all live tasks are compared with the log, to find a lost last message. More often when"
        " probe_seconds or a third of lease_seconds is shorter.",
        least=0.05,
    )
    channels_bytes: int = _setting(
        256 * 1024 * 1024, "What all tasks together may take of the gateway's memory.", least=0
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **flags: Any) -> Self:
        """Read the environment, then let `flags` (those that are not None) win.

        Raises `SettingsError` that names the variable or flag.
        """
        environ = os.environ if environ is None else environ
        values = {name: value for name, value in flags.items() if value is not None}
        for one in fields(cls):
            if one.name in values:
                _check(one, values[one.name], "--" + one.name.replace("_", "-"))
                continue
            for name in (env_name(one), *one.metadata["also"]):
                if environ.get(name):
                    values[one.name] = _convert(one, environ[name], name)
                    _check(one, values[one.name], name)
                    break
        return cls(**values)

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one, getattr(self, one.name), one.name)
        if self.base_path.endswith("/"):
            object.__setattr__(self, "base_path", self.base_path.rstrip("/"))

    @property
    def origins(self) -> tuple[str, ...]:
        """`cors_origins` one by one; `("*",)` means all, and nothing means none but the gateway's own."""
        return _origins(self.cors_origins)

    def with_(self, **changes: Any) -> Self:
        """The same settings with some changed."""
        return replace(self, **changes)


def env_name(one: Field[Any]) -> str:
    """The environment variable of a setting."""
    return "BRIDGE_" + one.name.upper()


def default_text(one: Field[Any]) -> str:
    """The default as a variable would say it; empty for an empty one."""
    return _SWITCHES[one.default] if isinstance(one.default, bool) else str(one.default)


def as_markdown() -> str:
    """The settings as a page of documentation, `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Made from `bridge/settings.py` by `make docs`; change it there.",
        "",
        "A flag of a command goes before the environment, the environment before the default.",
        "An empty variable counts as not set.",
        "",
        "| environment variable | default | meaning |",
        "|---|---|---|",
    ]
    for one in fields(Settings):
        names = " or ".join(f"`{name}`" for name in (env_name(one), *one.metadata["also"]))
        default = f"`{default_text(one)}`" if one.default != "" else "empty"
        lines.append(f"| {names} | {default} | {one.metadata['help']} |")
    return "\n".join(lines) + "\n"


def _convert(one: Field[Any], text: str, source: str) -> Any:
    assert one.default is not MISSING
    kind = type(one.default)
    try:
        return _WORDS[text.strip().lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        wanted = {bool: "1/0, true/false, yes/no or on/off", int: "a whole number", float: "a number"}[kind]
        raise SettingsError(f"{source} must be {wanted} (got {text[:60]!r})") from None


def _check(one: Field[Any], value: Any, source: str) -> None:
    """Raise a `SettingsError` that names the source if the setting can't have this value."""
    least, most = one.metadata["least"], one.metadata["most"]
    wrong = ""
    if isinstance(one.default, bool):
        if not isinstance(value, bool):  # any text but the empty one would count as true
            wrong = f"be True or False (got {value!r})"
    elif not isinstance(value, str):
        if not value >= least:  # so written, it refuses NaN too
            wrong = f"be at least {least:g} (got {value})"
        elif value > most:
            wrong = f"be at most {most:.0f} (got {value})"
    elif one.name == "base_path" and value and not value.startswith("/"):
        wrong = f"begin with / (got {value!r})"
    elif one.name == "prefix" and any(c in value for c in "{}\r\n\0 "):
        wrong = f"hold no braces, spaces or line ends: they would break key names (got {value!r})"
    elif one.name == "cors_origins":
        wrong = _wrong_origins(_origins(value))
    if wrong:
        raise SettingsError(f"{source} must {wrong}")


def _origins(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _wrong_origins(origins: tuple[str, ...]) -> str:
    """What is wrong with a list of origins. They are compared with what browsers send, letter by letter, so
    one that no browser ever sends would be a setting without an effect.
    """
    if "*" in origins and len(origins) > 1:
        return "be either * or a list of origins, not both"
    for origin in origins:
        if origin == "null":
            # Sandboxed frames of any site, and files, have this origin: it would let in everybody.
            return "not hold null, which pages of any site can be; name origins, or * for all"
        if origin != "*" and not (_ORIGIN.fullmatch(origin) and not _USUAL_PORT.search(origin)):
            return (
                "hold origins as browsers send them, scheme://host or scheme://host:port: in lower case,"
                f" without a path, the scheme's usual port or a closing slash (got {origin[:60]!r})"
            )
    return ""
