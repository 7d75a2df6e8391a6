"""Every setting, once: its default, its unit (in the name or the help) and what it is for.

The command line's options, `docs/settings.md` and the environment variables are made from this table.
A setting `heartbeat_seconds` is read from `BRIDGE_HEARTBEAT_SECONDS`; flags go before the environment,
the environment before the default. `redis_url` also looks at `REDIS_URL`, after `BRIDGE_REDIS_URL`.
`BRIDGE_…_FILE` names a file that holds the value. Secrets have no flags, which everybody on the machine can
see, and are never printed: not by `repr`, nor in an error. Of a URL `repr` leaves out what may be a secret.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Self

from bridge import checks
from bridge.errors import SettingsError
from bridge.urls import shown

_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True,
                 "0": False, "false": False, "no": False, "off": False}  # fmt: skip
_SWITCHES: Final = {True: "on", False: "off"}


def _setting(
    default: Any,
    text: str,
    *,
    least: float = -math.inf,
    most: float | None = None,
    also: tuple[str, ...] = (),
    wrong: Callable[[str], str] = lambda _: "",
    secret: bool = False,
) -> Any:
    """`wrong` says of a text what it must be instead, or nothing."""
    if most is None:
        # Times end where Redis and the timers of the system still know them: at 30 years.
        most = 1e9 if isinstance(default, float) else 2**53
    metadata = {"help": text, "least": least, "most": most, "also": also, "wrong": wrong, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


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
        "bridge:",
        "What every key and channel name in Redis begins with. The same for workers and gateways.",
        wrong=checks.wrong_prefix,
    )
    gateway_url: str = _setting(
        "http://127.0.0.1:8620", "Where `bridge tail`, `status`, `cancel` and `matrix` find the gateway."
    )
    matrix_homeserver: str = _setting(
        "", "Where `bridge matrix` finds the homeserver, such as `https://matrix.example.org`."
    )
    matrix_token: str = _setting(
        "", "The access token of the user as whom `bridge matrix` writes.", secret=True
    )

    ticket: str = _setting(
        "",
        "What lets `bridge tail`, `status` and `cancel` in, where the gateway asks for it: what"
        " `bridge ticket` prints, or another token that it knows.",
        wrong=checks.wrong_ticket,
        secret=True,
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
    base_path: str = _setting(
        "",
        "A path that stands before every path of the gateway, such as `/bridge`.",
        wrong=checks.wrong_base_path,
    )
    page: bool = _setting(
        False,
        "Serve the page at `/`, which shows a task as it grows, to whoever may see that task.",
    )
    cors_origins: str = _setting(
        "",
        "The web pages of other origins that may read the gateway's answers: `https://app.example` and the"
        " like, with commas or spaces between them, or `*` for all, which then can't send credentials.",
        wrong=checks.wrong_origins,
    )

    auth: str = _setting(
        "none",
        "Who decides which tasks a request may see: `jwt` (tickets and tokens), `forward` (your app is"
        " asked), or both: the first that knows the credentials decides. `none`: everybody sees all.",
        wrong=checks.wrong_auth,
    )
    insecure: bool = _setting(
        False, "Allow auth `none` on an address that others can reach. They then see and cancel every task."
    )
    ticket_keys: str = _setting(
        "",
        "The key that tickets are signed with, at least 32 bytes without spaces; the same for gateways and"
        " for who issues tickets. With two, the first signs and both are valid: so they can be exchanged.",
        wrong=checks.wrong_keys,
        secret=True,
    )
    jwt_keys: str = _setting(
        "",
        "The keys of your own tokens, with spaces between them: secrets for HS algorithms, else public keys"
        " as PEM. `file:/path` stands for what is in that file.",
        secret=True,
    )
    jwt_algorithms: str = _setting(
        "HS256",
        "The algorithms that your own tokens may be signed with: HS256 and the like, or RS256, ES256, EdDSA"
        " and the like.",
        wrong=checks.wrong_algorithms,
    )
    jwt_jwks_url: str = _setting(
        "",
        "Where the public keys of your own tokens are published as a JSON Web Key Set: https://, or http://"
        " on this machine.",
        wrong=checks.wrong_jwks_url,
    )
    jwt_issuer: str = _setting("", "Who must have issued your own tokens: the claim `iss`. Empty: anybody.")
    jwt_audience: str = _setting(
        "", "Whom your own tokens must be for: the claim `aud`. Empty: tokens with that claim are refused."
    )
    jwt_cookie: str = _setting(
        "", "The cookie that a token may also come in. Empty: none.", wrong=checks.wrong_cookie
    )
    forward_url: str = _setting(
        "",
        "What `forward` asks whether a request may see a task: with its cookies and its Authorization. May"
        " hold `{task_id}` and `{action}`. 2xx is yes, 401 asks to log in, 403 and 404 are no.",
        wrong=checks.wrong_forward_url,
    )
    forward_timeout_seconds: float = _setting(
        3.0, "An answer of `forward_url` may take so long; then the request is refused with 503.", least=0.05
    )
    forward_cache_seconds: float = _setting(
        5.0, "An answer of `forward_url` counts for so long, for the same credentials and task.", least=0
    )
    report_keys: str = _setting(
        "",
        "The key with which workers report over HTTP (`Authorization: Bearer …`), at least 32 bytes without"
        " spaces. Two, while they are exchanged, are both valid. Empty: nobody reports over HTTP.",
        wrong=checks.wrong_keys,
        secret=True,
    )
    report_idle_seconds: float = _setting(
        300.0,
        "The body of a report may be silent for so long, and otherwise take as long as it likes.",
        least=0.05,
    )
    upstream: str = _setting(
        "",
        "An app whose workers report nothing: the gateway asks it about tasks, streams what it says, and"
        " hands it the requests of its old clients. Its address, such as `http://app:5000` (see legacy.md).",
        wrong=checks.wrong_upstream,
    )
    upstream_status: str = _setting(
        "",
        "The path of the app's status endpoint, such as `/api/jobs/{task_id}`. Empty: the mapping names it.",
    )
    upstream_mapping: str = _setting(
        "plain",
        "How the app's answers are read: a file (TOML or JSON), or `plain`, `celery`, `nextcloud`,"
        " `replicate`.",
    )
    upstream_headers: str = _setting(
        "",
        "The headers that the poller shows to the app, one a line: `Authorization: Bearer …`. No client's are"
        " ever used.",
        wrong=checks.wrong_headers,
        secret=True,
    )
    upstream_shortest_seconds: float = _setting(
        0.3, "While a task changes, the app is asked again after so long.", least=0.05
    )
    upstream_longest_seconds: float = _setting(
        5.0, "While it doesn't, after ever longer, up to this. `Retry-After` may make it longer.", least=0.05
    )
    upstream_answer_seconds: float = _setting(
        10.0, "So long the app may take for a whole answer to the poller.", least=0.05
    )
    upstream_answer_bytes: int = _setting(
        4 * 1024 * 1024, "The largest answer that the poller reads; at most max_task_bytes.", least=1024
    )
    max_upstream_questions: int = _setting(
        20, "So many questions of one gateway's poller are under way at once; the others wait.", least=1
    )
    max_upstream_connections: int = _setting(
        100, "So many requests that are passed through are under way at once; one more is 503.", least=1
    )
    upstream_pass_seconds: float = _setting(
        60.0,
        "An app that says nothing for so long, before or within an answer that is passed through, is given"
        " up.",
        least=0.05,
    )
    max_streams: int = _setting(
        20_000, "So many streams may be open at once. 0: any number, as with the limits that follow.", least=0
    )
    max_streams_per_principal: int = _setting(
        100, "So many of one user, or on one ticket; with auth `none` nobody is told from another.", least=0
    )
    max_streams_per_address: int = _setting(
        1000, "So many from one address, which may be that of a whole company.", least=0
    )
    new_streams_per_second: int = _setting(
        50, "So many streams may begin per second from one address; four seconds' worth at once.", least=0
    )
    polls_per_second: int = _setting(
        50, "So many polls and cancels per second from one address; four seconds' worth at once.", least=0
    )
    reports_per_second: int = _setting(
        500, "So many reports may begin per second from one address; four seconds' worth at once.", least=0
    )
    max_connections: int = _setting(
        30_000, "So many connections may be open at once, with or without a stream.", least=0
    )
    max_connections_per_address: int = _setting(
        2000, "So many from one address. Trusted proxies may have any number.", least=0
    )
    max_head_bytes: int = _setting(
        65_536, "A request's line, with its URL, and its headers together.", least=1024, most=2**24
    )
    max_body_bytes: int = _setting(1024 * 1024, "A request's body.", least=0)
    request_seconds: float = _setting(
        10.0,
        "A request's head must be there so long after its first byte, and as long after that its body.",
        least=0.05,
    )
    trusted_proxies: str = _setting(
        "",
        "The proxies in front whose `X-Forwarded-For` says where a request comes from: addresses and networks"
        " such as `10.0.0.0/8`, or `private` for all that the internet doesn't reach. Without it, all who"
        " come through a proxy share the limits of its address.",
        wrong=checks.wrong_networks,
    )
    unlimited_addresses: str = _setting(
        "127.0.0.0/8 ::1",
        "Addresses and networks that have no limits of their own, but count in all. By itself this machine:"
        " who comes from there is a proxy that carries everybody, or measures.",
        wrong=checks.wrong_networks,
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
    log_format: str = _setting(
        "console",
        "How `bridge serve` logs, on stderr: `console`, for people, or `json`, one object a line.",
        wrong=checks.wrong_log_format,
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
            name, text = source_of(one, environ)
            if name:
                values[one.name] = _convert(one, text, name)
                _check(one, values[one.name], name)
        return cls(**values)

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one, getattr(self, one.name), one.name)
        if self.base_path.endswith("/"):
            object.__setattr__(self, "base_path", self.base_path.rstrip("/"))

    def __repr__(self) -> str:
        """What may be seen of it: settings end up in tracebacks and logs."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.repr}
        said = [f"{name}={(shown(one) if isinstance(one, str) else one)!r}" for name, one in values.items()]
        return f"Settings({', '.join(said)})"

    @property
    def origins(self) -> tuple[str, ...]:
        """`cors_origins` one by one; `("*",)` means all, and nothing means none but the gateway's own."""
        return checks.words(self.cors_origins)

    def with_(self, **changes: Any) -> Self:
        """The same settings with some changed."""
        return replace(self, **changes)


def env_name(one: Field[Any]) -> str:
    """The environment variable of a setting."""
    return "BRIDGE_" + one.name.upper()


def file_name(one: Field[Any]) -> str:
    """The environment variable that names a file with the setting's value."""
    return env_name(one) + "_FILE"


def source_of(one: Field[Any], environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that a setting is read from, and its text; two empty ones where the default counts.

    Raises `SettingsError` for a file that can't be read, and when it isn't clear which is meant.
    """
    name, file = env_name(one), file_name(one)
    if environ.get(name) and environ.get(file):
        raise SettingsError(f"{name} and {file} are both set: set only one of them")
    if environ.get(file):
        return file, _read(file, environ[file])
    return next(
        ((each, environ[each]) for each in (name, *one.metadata["also"]) if environ.get(each)), ("", "")
    )


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are no setting's, but nearly: with the name that was probably meant.

    Others that begin with `BRIDGE_` may be anybody's: Kubernetes makes some for each service.
    """
    names = [name for one in fields(Settings) for name in (env_name(one), file_name(one))]
    unknown = [name for name in environ if name.startswith("BRIDGE_") and name not in names]
    near = {name: get_close_matches(name, names, n=1, cutoff=0.85) for name in unknown}
    return {name: meant[0] for name, meant in near.items() if meant}


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
        "An empty variable counts as not set. `BRIDGE_…_FILE`, instead of any `BRIDGE_…`, names a file with",
        "the value. Secrets are marked: they have no flags, and are never printed.",
        "",
        "| environment variable | default | meaning |",
        "|---|---|---|",
    ]
    for one in fields(Settings):
        names = " or ".join(f"`{name}`" for name in (env_name(one), *one.metadata["also"]))
        default = f"`{default_text(one)}`" if one.default != "" else "empty"
        mark = "**Secret.** " if one.metadata["secret"] else ""
        lines.append(f"| {names} | {default} | {mark}{one.metadata['help']} |")
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
    else:
        wrong = one.metadata["wrong"](value)
    if wrong:
        raise SettingsError(f"{source} must {wrong}")


def _read(source: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"{source} names a file that can't be read: {reason} ({path[:200]!r})") from None
