"""A real homeserver for tests: Synapse, in an environment of its own, with SQLite, on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.processes import environ
from tests.servers import free_port
from tests.tools import require_tool
from tests.waiting import eventually

SERVER_NAME = "test"
_SHARED_SECRET = "only for tests"
_MANY = {"per_second": 1e6, "burst_count": 1_000_000}
_LIMITS: Mapping[str, Any] = {
    "rc_room_creation": _MANY,
    "rc_joins": {"local": _MANY},
    "rc_invites": {"per_room": _MANY, "per_user": _MANY, "per_issuer": _MANY},
}
"""Rooms may be made at will. What may be sent is as Synapse has it, but for users who are exempt."""
_START_SECONDS = 90.0
"""It takes some 4 s of a core, which on a busy machine are far apart."""


class Synapse:
    """A homeserver on a port that it keeps through all restarts, with its data. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._users: list[User] = []
        self._admin: User | None = None
        (folder / "signing.key").write_text(f"ed25519 a_test {_unpadded(secrets.token_bytes(32))}\n")
        (folder / "log.yaml").write_text(json.dumps(_LOGGING))
        (folder / "homeserver.yaml").write_text(json.dumps({**self._config(), **_LIMITS}))

    def _config(self) -> dict[str, Any]:
        # JSON is YAML.
        return {
            "server_name": SERVER_NAME,
            "pid_file": str(self._folder / "pid"),
            "listeners": [
                {
                    "port": self.port,
                    "bind_addresses": ["127.0.0.1"],
                    "type": "http",
                    "resources": [{"names": ["client"], "compress": False}],
                }
            ],
            "database": {"name": "sqlite3", "args": {"database": str(self._folder / "homeserver.db")}},
            "log_config": str(self._folder / "log.yaml"),
            "media_store_path": str(self._folder / "media"),
            "signing_key_path": str(self._folder / "signing.key"),
            "registration_shared_secret": _SHARED_SECRET,
            "macaroon_secret_key": secrets.token_hex(16),
            "form_secret": secrets.token_hex(16),
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "report_stats": False,
            "bcrypt_rounds": 4,
            "presence": {"enabled": False},
            # Else who asks the same again, because nothing has come, gets the same again for two minutes.
            "caches": {"sync_response_cache_duration": "0s"},
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self._process is None, "the homeserver is running already"
        python = require_tool("synapse").parent / "bin" / "python"
        arguments = ["-m", "synapse.app.homeserver", "--config-path", str(self._folder / "homeserver.yaml")]
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [python, *arguments], stdout=output, stderr=output, cwd=self._folder, env=environ()
            )
        eventually(self._answers, timeout=_START_SECONDS)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self._folder / "output").read_text()[-3000:])
        try:
            return httpx.get(self.url + "/_matrix/client/versions", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def register(self, name: str, *, limited: bool = False) -> User:
        """A new user of that name, with a number behind it, logged in; limited: by what Synapse allows."""
        user = self._new_user(name)
        if not limited:
            self._admin = self._admin or self._new_user("admin", admin=True)
            self._admin.exempt(user)
        return user

    def _new_user(self, name: str, *, admin: bool = False) -> User:
        path = self.url + "/_synapse/admin/v1/register"
        name = f"{name}-{secrets.token_hex(4)}"
        nonce = httpx.get(path, timeout=10).json()["nonce"]
        kind = "admin" if admin else "notadmin"
        mac = hmac.new(
            _SHARED_SECRET.encode(), f"{nonce}\0{name}\0secret\0{kind}".encode(), hashlib.sha1
        ).hexdigest()
        said = {"nonce": nonce, "username": name, "password": "secret", "admin": admin, "mac": mac}
        answer = httpx.post(path, json=said, timeout=10).raise_for_status().json()
        user = User(self.url, answer["user_id"], answer["access_token"])
        self._users.append(user)
        return user

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for user in self._users:
            user.close()
        self.kill()


class User:
    """A user, as a plain client: what isn't under test goes through here."""

    def __init__(self, url: str, user_id: str, token: str) -> None:
        self.id = user_id
        self.token = token
        self._http = httpx.Client(
            base_url=url + "/_matrix/client/v3", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )

    def ask(self, method: str, path: str, content: Any = None, **query: Any) -> Any:
        """One request, which must go well. A room's id and the like are put into the path as they are."""
        body = None if method == "GET" else json.dumps(content or {})
        answer = self._http.request(method, path, content=body, params=query)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()

    def exempt(self, user: User) -> None:
        """As an administrator, let a user send as much as they like."""
        path = f"/_synapse/admin/v1/users/{user.id}/override_ratelimit"
        said = {"messages_per_second": 0, "burst_count": 0}
        self._http.post(self._http.base_url.copy_with(path=path), json=said).raise_for_status()

    def new_room(self, *others: User, **options: Any) -> str:
        """A room with these users in it."""
        room: str = self.ask("POST", "/createRoom", {"invite": [one.id for one in others], **options})[
            "room_id"
        ]
        for one in others:
            one.ask("POST", f"/join/{room}")
        return room

    def say(self, room: str, text: str, **content: Any) -> str:
        """Write a message; its event."""
        path = f"/rooms/{room}/send/m.room.message/{secrets.token_hex(8)}"
        said = {"msgtype": "m.text", "body": text, **content}
        event_id: str = self.ask("PUT", path, said)["event_id"]
        return event_id

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


class Watcher:
    """What a user's client sees of a room through `/sync`, event by event, from now on."""

    def __init__(self, user: User, room: str) -> None:
        self.user, self.room = user, room
        self.events: list[dict[str, Any]] = []
        """All events of the room, in the order in which they came."""
        self.typing: list[list[str]] = []
        """Who was typing, at each change."""
        self.highlights = 0
        self._since: str = user.ask("GET", "/sync", timeout=0)["next_batch"]

    def look(self, wait_seconds: float = 0.0) -> list[dict[str, Any]]:
        """Take in what is new, waiting for it at most so long; the messages that others wrote."""
        wait = int(wait_seconds * 1000)
        answer = self.user.ask("GET", "/sync", timeout=wait, since=self._since, filter=_FILTER)
        self._since = answer["next_batch"]
        room = answer.get("rooms", {}).get("join", {}).get(self.room)
        if room is not None:
            assert not room["timeline"]["limited"], "events were left out"
            self.events += room["timeline"]["events"]
            self.highlights = room.get("unread_notifications", {}).get("highlight_count", self.highlights)
            self.typing += [
                one["content"]["user_ids"] for one in room["ephemeral"]["events"] if one["type"] == "m.typing"
            ]
        return self.messages

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The events that others wrote as messages, edits too."""
        return [
            one
            for one in self.events
            if one["type"] == "m.room.message" and one["sender"] != self.user.id and one["content"]
        ]

    @property
    def shown(self) -> dict[str, dict[str, Any]]:
        """What a client shows: each message by its first event, with the content of its newest edit."""
        found: dict[str, dict[str, Any]] = {}
        for one in self.messages:
            relation = one["content"].get("m.relates_to", {})
            if relation.get("rel_type") == "m.replace":
                assert relation["event_id"] in found, "an edit of what isn't there"
                found[relation["event_id"]] = one["content"]["m.new_content"]
            else:
                found[one["event_id"]] = one["content"]
        return found

    @property
    def bodies(self) -> list[str]:
        """What the messages say now."""
        return [content["body"] for content in self.shown.values()]

    def wait_for(self, *bodies: str, timeout: float = 60.0) -> None:
        """Look until the messages say just this."""

        def there(_: Watcher) -> bool:
            assert self.bodies == list(bodies), self.bodies
            return True

        self.until(there, timeout=timeout)

    def until(self, true: Callable[[Watcher], object], timeout: float = 60.0) -> None:
        """Look until that is true of what was seen."""
        looks = itertools.count()

        def there() -> object:
            # The server says when there is something: asking it without end would take the machine's time.
            self.look(_LOOK_SECONDS if next(looks) else 0.0)
            return true(self)

        eventually(there, timeout=timeout)


_LOOK_SECONDS = 0.5
_FILTER = json.dumps({"room": {"timeline": {"limit": 1000}}})
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
