from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import SettingsError
from bridge.settings import Settings, as_markdown, env_name

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
NUMBERS = [one.name for one in fields(Settings) if not isinstance(one.default, str | bool)]


def test_default_is_used_where_nothing_is_said() -> None:
    """An empty environment gives the defaults, and so does a variable that is set to nothing."""
    assert Settings.from_env({}) == Settings()
    assert (
        Settings.from_env({"BRIDGE_PORT": "", "REDIS_URL": "", "PORT": "1", "bridge_port": "1"}) == Settings()
    )


def test_environment_goes_before_the_default() -> None:
    """Each setting is read from BRIDGE_ and its name in capitals, as the default's type."""
    settings = Settings.from_env({"BRIDGE_PORT": "9000", "BRIDGE_LEASE_SECONDS": "5", "BRIDGE_PREFIX": "x:"})
    assert (settings.port, settings.lease_seconds, settings.prefix) == (9000, 5.0, "x:")
    assert isinstance(settings.lease_seconds, float)


def test_flag_goes_before_the_environment() -> None:
    """A flag that was given wins; one that wasn't (None) leaves the environment's value."""
    environ = {"BRIDGE_PORT": "9000", "BRIDGE_HOST": "0.0.0.0"}
    settings = Settings.from_env(environ, port=0, host=None)
    assert (settings.port, settings.host) == (0, "0.0.0.0")


def test_flag_hides_a_wrong_variable() -> None:
    """What a flag overrules isn't even read."""
    assert Settings.from_env({"BRIDGE_PORT": "many"}, port=1).port == 1


@pytest.mark.parametrize(
    ("environ", "flag", "wanted"),
    [
        ({}, None, "redis://127.0.0.1:6379/0"),
        ({"REDIS_URL": "redis://app/1"}, None, "redis://app/1"),
        ({"REDIS_URL": "redis://app/1", "BRIDGE_REDIS_URL": "redis://own/2"}, None, "redis://own/2"),
        ({"REDIS_URL": "redis://app/1", "BRIDGE_REDIS_URL": ""}, None, "redis://app/1"),
        ({"REDIS_URL": "redis://app/1", "BRIDGE_REDIS_URL": "redis://own/2"}, "unix:///s", "unix:///s"),
    ],
)
def test_which_redis(environ: dict[str, str], flag: str | None, wanted: str) -> None:
    """Flag, then BRIDGE_REDIS_URL, then REDIS_URL, then the one on this machine."""
    assert Settings.from_env(environ, redis_url=flag).redis_url == wanted


def test_os_environment_is_the_default_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the process's own environment is read."""
    monkeypatch.setenv("BRIDGE_PORT", "9001")
    assert Settings.from_env().port == 9001


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["many", "nan", "-inf", "inf", "-1e9", "1e400", "0x10", "1" + "0" * 5000])
def test_wrong_number_names_its_variable(name: str, text: str) -> None:
    """Text that is no number, or none that can be used, is an error that begins with the variable."""
    variable = "BRIDGE_" + name.upper()
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: text})
    assert str(caught.value).startswith(f"{variable} must be ")


@pytest.mark.parametrize("on", ["1", "true", "yes", "on", "On", "TRUE", " yes "])
@pytest.mark.parametrize("off", ["0", "false", "no", "off", "Off", "FALSE", " no "])
def test_a_switch_is_read_from_the_usual_words(on: str, off: str) -> None:
    """Whatever people write for on and off counts; a flag goes before it."""
    assert Settings.from_env({"BRIDGE_PAGE": on}).page is True
    assert Settings.from_env({"BRIDGE_PAGE": off}).page is False
    assert Settings.from_env({"BRIDGE_PAGE": on}, page=False).page is False
    assert Settings.from_env({"BRIDGE_PAGE": off}, page=True).page is True


@pytest.mark.parametrize("text", ["2", "y", "tru", "page", "nan", " "])
def test_a_switch_that_is_neither_names_its_variable(text: str) -> None:
    """What could mean either is refused, and the words that are understood are named."""
    with pytest.raises(SettingsError, match=r"^BRIDGE_PAGE must be 1/0, true/false, yes/no or on/off"):
        Settings.from_env({"BRIDGE_PAGE": text})


def test_a_switch_is_a_bool_in_python() -> None:
    """The text "no" would count as true."""
    with pytest.raises(SettingsError, match=r"^page must be True or False"):
        Settings(page="no")  # type: ignore[arg-type] # that is the mistake
    with pytest.raises(SettingsError, match=r"^--page must be True or False"):
        Settings.from_env({}, page=1)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://app.example", ("https://app.example",)),
        ("https://a.example, http://localhost:5173", ("https://a.example", "http://localhost:5173")),
        (" https://a.example\n\thttps://b.example,,", ("https://a.example", "https://b.example")),
        ("http://[::1]:3000 http://127.0.0.1:8080", ("http://[::1]:3000", "http://127.0.0.1:8080")),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("https://xn--bcher-kva.example:8443", ("https://xn--bcher-kva.example:8443",)),
    ],
)
def test_origins_are_separated_by_commas_or_spaces(text: str, origins: tuple[str, ...]) -> None:
    """A list as people write it in a file or a shell; `*` means all."""
    assert Settings(cors_origins=text).origins == origins
    assert Settings.from_env({"BRIDGE_CORS_ORIGINS": text}).origins == origins


@pytest.mark.parametrize(
    "text",
    ["app.example", "https://app.example/", "https://app.example/path", "https://App.example", "https://",
     "HTTPS://app.example", "https://me@app.example", "https://app.example:443", "http://app.example:80",
     "https://*.app.example", "https://app.example:port", "https://bücher.example", "//app.example",
     "https://app.example;https://b.example", "https://a.example?x", "https://a.example#x", "null",
     "https://a.example null", "* https://app.example", "https://a.example, *", "* *"],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused(text: str) -> None:
    """It would never match, or let in too many; the error names the variable, the flag or the setting."""
    with pytest.raises(SettingsError, match=r"^BRIDGE_CORS_ORIGINS must"):
        Settings.from_env({"BRIDGE_CORS_ORIGINS": text})
    with pytest.raises(SettingsError, match=r"^--cors-origins must"):
        Settings.from_env({}, cors_origins=text)
    with pytest.raises(SettingsError, match=r"^cors_origins must"):
        Settings(cors_origins=text)


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", -1), ("port", 65536), ("lease_seconds", 0.1), ("lease_seconds", float("nan")),
     ("live_ttl_seconds", float("inf")), ("base_path", "bridge"), ("prefix", "a{b"), ("prefix", "a b"),
     ("prefix", "a\n"), ("prefix", "a\0")],
)  # fmt: skip
def test_value_that_does_not_fit_names_its_source(name: str, value: Any) -> None:
    """The error names the variable, the flag, or, in Python, the setting."""
    with pytest.raises(SettingsError, match=f"^BRIDGE_{name.upper()} must"):
        Settings.from_env({f"BRIDGE_{name.upper()}": str(value)})
    with pytest.raises(SettingsError, match=f"^--{name.replace('_', '-')} must"):
        Settings.from_env({}, **{name: value})
    with pytest.raises(SettingsError, match=f"^{name} must"):
        Settings(**{name: value})
    with pytest.raises(SettingsError, match=f"^{name} must"):
        Settings().with_(**{name: value})


@pytest.mark.parametrize(
    ("given", "kept"),
    [("", ""), ("/", ""), ("/bridge", "/bridge"), ("/bridge/", "/bridge"), ("/a/b//", "/a/b")],
)
def test_base_path_ends_without_slash(given: str, kept: str) -> None:
    """Paths can be appended to it."""
    assert Settings(base_path=given).base_path == kept
    assert Settings.from_env({"BRIDGE_BASE_PATH": given}).base_path == kept


SECRETS = [one.name for one in fields(Settings) if one.metadata["secret"]]
LONG = "0123456789abcdef0123456789abcdef"


def test_a_file_can_hold_a_value(tmp_path: Path) -> None:
    """Any variable with _FILE behind it names one; line ends around the value are not part of it."""
    (tmp_path / "keys").write_text(f"{LONG}\n")
    (tmp_path / "url").write_text("redis://me:secret@here/3")
    environ = {
        "BRIDGE_TICKET_KEYS_FILE": str(tmp_path / "keys"),
        "BRIDGE_REDIS_URL_FILE": str(tmp_path / "url"),
        "REDIS_URL": "redis://app/1",
    }
    settings = Settings.from_env(environ)
    assert (settings.ticket_keys, settings.redis_url) == (LONG, "redis://me:secret@here/3")
    assert Settings.from_env(environ, redis_url="redis://flag/1").redis_url == "redis://flag/1"


def test_a_value_and_a_file_contradict_each_other(tmp_path: Path) -> None:
    """It wouldn't be clear which one was meant."""
    with pytest.raises(SettingsError, match="BRIDGE_PORT and BRIDGE_PORT_FILE are both set"):
        Settings.from_env({"BRIDGE_PORT": "1", "BRIDGE_PORT_FILE": str(tmp_path)})


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """With the variable, and without what is in it."""
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^BRIDGE_TICKET_KEYS_FILE names a file that can't be read"):
        Settings.from_env({"BRIDGE_TICKET_KEYS_FILE": str(path)})


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_not_printed(name: str) -> None:
    """Neither by `repr`, nor as a default, nor in an error; and the page marks it."""
    value = f"X-Key: {LONG}" if name.endswith("_headers") else LONG
    assert LONG not in repr(Settings().with_(**{name: value}))
    assert f"| `BRIDGE_{name.upper()}` | empty | **Secret.** " in as_markdown()
    with pytest.raises(SettingsError) as caught:
        Settings(ticket_keys="short-secret")
    assert "short-secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["redis_url", "forward_url", "jwt_jwks_url", "gateway_url"])
def test_a_password_in_a_url_is_not_printed(name: str) -> None:
    """Settings end up in tracebacks; where something is may be seen, how to get in not."""
    text = repr(Settings().with_(**{name: "https://me:s3cret@host.example/x?password=s3cret"}))
    assert f"{name}='https://***@host.example/x?***'" in text
    assert "s3cret" not in text
    assert repr(Settings()).startswith("Settings(redis_url='redis://127.0.0.1:6379/0', prefix='bridge:', ")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("auth", ["none", "jwt", "forward", "jwt forward", "forward,jwt"]),
        ("ticket_keys", ["", LONG, f"{LONG} {LONG[::-1]}", f"\n{LONG}\n"]),
        ("jwt_algorithms", ["HS256", "HS256 HS512", "RS256,ES256", "EdDSA", "PS384"]),
        ("jwt_cookie", ["", "session", "__Host-session"]),
        ("ticket", ["", "eyJhbGciOiJIUzI1NiJ9.eyJ9.c2ln-_0", "abc+/=="]),
        (
            "jwt_jwks_url",
            [
                "",
                "https://id.example/jwks.json",
                "http://127.0.0.1:8080/",
                "http://localhost/",
                "http://[::1]:1/",
            ],
        ),
        (
            "forward_url",
            ["", "http://app/may", "https://app.example/t/{task_id}?do={action}", "http://u:p@app:80/"],
        ),
    ],
)
def test_who_may_read_can_be_said_so(name: str, good: list[str]) -> None:
    """What people write."""
    for text in good:
        assert getattr(Settings().with_(**{name: text}), name) == text


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("auth", [" ", "JWT", "jwt jwt", "none jwt", "basic", "jwt none", "off"]),
        ("ticket_keys", ["short", LONG[:31], f"{LONG} short", f"{LONG} {LONG} {LONG}"]),
        ("jwt_algorithms", ["", "none", "HS256 RS256", "hs256", "RS256 none", "HS1", "ES256K"]),
        ("jwt_cookie", ["a b", "a=b", "a;b", "a\r\nb", "é"]),
        ("ticket", ["a b", "a\r\nb", "a\n", "é", "=", "a=b", "Bearer a", "a,b"]),
        (
            "jwt_jwks_url",
            ["id.example", "http://id.example/", "ftp://id.example/", "https://", "file:///etc/keys",
             "http://127.0.0.1.example.org/", "https://id.example:port/", "https://id.example/ x"],
        ),
        (
            "forward_url",
            ["app", "ftp://app/", "http://", "http://{task_id}/", "http://app:{action}/", "http://app/{id}",
             "http://app/{task_id", "http://{task_id}@app/", "http://app/\r\nX: 1"],
        ),
    ],
)  # fmt: skip
def test_who_may_read_can_not_be_said_so(name: str, bad: list[str]) -> None:
    """What would let in too many, or nobody, or can't be meant."""
    for text in bad:
        with pytest.raises(SettingsError, match=f"^{name} must "):
            Settings().with_(**{name: text})


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("upstream", ["", "http://app:5000", "https://app.example/v1/", "http://[::1]:80"]),
        ("upstream_headers", ["", "Authorization: Bearer x", "X-A: 1\nX-B:2\r\n\nCookie: a=b; c=d"]),
    ],
)
def test_an_app_can_be_named_so(name: str, good: list[str]) -> None:
    """Where it is, and what the poller shows to it."""
    for text in good:
        assert getattr(Settings().with_(**{name: text}), name) == text


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        (
            "upstream",
            ["app", "ftp://app", "http://", "http://u:p@app", "http://app?x", "http://app/{task_id}",
             "http://a b"],
        ),
        (
            "upstream_headers",
            ["Bearer s3cret", "X-A:", "X A: s3cret", "X-A: s3cret\x00", "X-A: s3crét", "Host: x",
             "content-length: 1", "X-A: s3cret\nno"],
        ),
    ],
)  # fmt: skip
def test_an_app_can_not_be_named_so(name: str, bad: list[str]) -> None:
    """Credentials have a place of their own and aren't repeated; some headers are the connection's."""
    for text in bad:
        with pytest.raises(SettingsError, match=f"^{name} must ") as caught:
            Settings().with_(**{name: text})
        assert "s3cr" not in str(caught.value)


def test_with_changes_only_what_is_named() -> None:
    """`with_` gives changed settings and leaves the old ones alone."""
    settings = Settings(port=1)
    assert settings.with_(host="h") == Settings(port=1, host="h")
    assert settings == Settings(port=1)


def test_every_setting_says_its_unit_and_its_meaning() -> None:
    """A number's unit stands in its name, and each help is one or more sentences."""
    for one in fields(Settings):
        assert one.metadata["help"].endswith("."), one.name
        assert "|" not in one.metadata["help"], one.name
        counts = one.name.startswith("max_")  # of what stands in the name
        if one.name in NUMBERS and one.name != "port" and not counts:
            units = ("_seconds", "_milliseconds", "_bytes", "_per_second")
            assert one.name.endswith(units), one.name


def test_page_is_made_from_the_settings() -> None:
    """`docs/settings.md` is what `make docs` writes now, and names every variable."""
    page = PAGE.read_text()
    assert page == as_markdown(), "run: make docs"
    for one in fields(Settings):
        assert f"`{env_name(one)}`" in page
