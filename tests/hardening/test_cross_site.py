"""Pages of other sites that make a browser cancel somebody's task."""

from __future__ import annotations

from typing import Any

import pytest

from tests.credentials import SECRET, token
from tests.gateway.running import Running, running
from tests.gateway.writer import Writer

CANCEL = "/tasks/job-1/cancel"
APP = "https://app.example"
EVIL = "https://evil.example"
COOKIE = {"Cookie": f"s={token(sub='ann')}"}


@pytest.fixture(autouse=True)
def _anns_task(writer: Writer) -> None:
    """A task to cancel."""
    writer.create("ann")
    writer.open()


def cancelled(gateway: Running, headers: dict[str, str]) -> bool:
    """Whether it may. A refusal is a 403 that says why, and changes nothing."""
    answer = gateway.post(CANCEL, headers=headers)
    if answer.status_code == 200:
        return True
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")
    return False


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
        {"Origin": EVIL},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"{APP}.evil.example"},
        {"Origin": "https://evil-app.example"},
        {"Origin": "http://app.example"},
        {"Origin": f"{APP}:8443"},
        {"Origin": f"{APP}/"},
        {"Origin": "HTTPS://APP.EXAMPLE"},
        {"Origin": f"{EVIL}, {APP}"},
        {"Origin": "https://other.app.example", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://HOST"},
    ],
)
def test_cross_site_cancel(redis_url: str, writer: Writer, headers: dict[str, str]) -> None:
    """A form, an image or a fetch without CORS on any other site, with the cookies of who looks at it."""
    settings: dict[str, Any] = {"cors_origins": APP, "jwt_keys": SECRET, "jwt_cookie": "s"}
    for auth in ("none", "jwt"):
        with running(redis_url, auth=auth, **settings) as gateway:
            host = "{}:{}".format(*gateway.address)
            filled = {name: value.replace("HOST", host) for name, value in headers.items()}
            assert not cancelled(gateway, {**COOKIE, **filled})
    assert writer.renew().cancel_requested is False


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://HOST"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://HOST"},
        {"Origin": "https://HOST"},
        {"Origin": APP},
        {"Origin": APP, "Sec-Fetch-Site": "cross-site"},
        {"Origin": APP, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_those_who_mean_it_can_cancel(redis_url: str, headers: dict[str, str]) -> None:
    """Pages of the gateway's own origin, also behind a proxy that changes its name; those that are listed;
    and what is no browser.
    """
    settings: dict[str, Any] = {"cors_origins": APP, "jwt_keys": SECRET, "jwt_cookie": "s"}
    with running(redis_url, auth="jwt", **settings) as gateway:
        host = "{}:{}".format(*gateway.address)
        filled = {name: value.replace("HOST", host) for name, value in headers.items()}
        assert cancelled(gateway, {**COOKIE, **filled})


def test_cross_site_cancel_where_all_pages_may_read(redis_url: str) -> None:
    """`*` never comes with cookies, so who sends one is refused, and who sends none has nothing to abuse."""
    with running(redis_url, cors_origins="*") as gateway:
        page = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
        assert not cancelled(gateway, {**page, "Cookie": "session=1"})
        assert cancelled(gateway, page)


def test_cancel_by_a_link(gateway: Running, writer: Writer) -> None:
    """A GET cancels nothing, nor does a HEAD: what is followed or fetched ahead is harmless."""
    for method in ("GET", "HEAD"):
        assert gateway.ask(method, CANCEL).status_code == 405
    assert writer.renew().cancel_requested is False
