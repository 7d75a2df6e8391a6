"""The worker's connection to Redis: one, and never exchanged unnoticed.

A reconnect may lead to another server: a replica that was promoted without the last writes, or the same
one, restarted with old data or none. Its log can then hold other text under ids that were given before. So
each new connection reads `INFO replication` before anything else is sent on it. When the replication id
isn't the one before, nothing is sent: the call fails, and `generation` has grown. Who holds acknowledged
writes of an older generation has to repair first.

A replica is refused: until it is promoted it carries the replication id of its master, and a connection that
was opened before would not notice the promotion.

redis-py reconnects by itself inside a call; its hook for new connections is the seam where this stands.
A server that doesn't tell its replication id (fakeredis, or no permission) is taken for the same one.

A new connection also gets the scripts that the server doesn't have. `run_pipeline` would find that out, too,
but at the price of sending everything twice; and fakeredis closes a connection after every error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import redis
from redis.exceptions import RedisError, ResponseError
from redis.sentinel import SentinelConnectionPool

from bridge.errors import StoreError, StoreUnavailable
from bridge.settings import Settings
from bridge.store.connect import keys_for, sync_client
from bridge.store.scripts import SCRIPTS, Answer, Call, Calls, as_store_error, run_pipeline

REPLICA_MILLISECONDS: Final = 100
"""So long a finished task's end may wait for a replica."""
IMPATIENT_SECONDS: Final = 5.0
"""After a replica, or all Sentinels, didn't answer in time, none is waited for during so long."""


class Writer:
    """Runs scripts over one connection. For one thread."""

    def __init__(self, settings: Settings) -> None:
        """Doesn't connect yet. Raises `SettingsError` for a URL that can't be used."""
        self._client: Any = sync_client(settings, self._greet)  # redis-py's own types are too loose
        self.calls = Calls(keys_for(settings, self._client))
        self.generation = 0
        self._server = ""
        self._mute = False
        self._replicas = 0
        self._looked_at = 0.0
        self._look_seconds = settings.lease_seconds / 3
        self._impatient_until = 0.0
        self._unasked_until = 0.0

    def send(self, calls: Sequence[Call]) -> list[Answer | StoreError]:
        """Run scripts in one round trip (see `run_pipeline`).

        Raises `StoreUnavailable` when that fails. `generation` tells whether the reason was another server.
        """
        try:
            return run_pipeline(self._client, calls)
        except BaseException:
            # Nobody knows what is still in the socket.
            self.disconnect()
            raise

    def look(self) -> None:
        """Read the server's replication state anew, if that was long ago. Raises `StoreUnavailable`.

        A server can change its role, and gain or lose replicas, without closing a connection.
        """
        if self._mute or not self._looked_at or time.monotonic() - self._looked_at < self._look_seconds:
            return
        try:
            if self._replaced():
                return  # the next call opens another connection, and looks there
            info = self._client.info("replication")
            _refuse_replica(info)
            self._learn(info)
        except ResponseError:
            self._looked_at = time.monotonic()
        except (RedisError, OSError) as error:
            self.disconnect()
            raise as_store_error(error) from error

    def settle(self) -> None:
        """Make sure, as far as one can, that what was sent will stay: ask the Sentinels, where there are any,
        whether this is the master still, and wait briefly for a replica, where there are replicas.

        Raises `StoreUnavailable` when it isn't, or the connection fails: then it may have reached none.
        """
        if self._replaced():
            raise StoreUnavailable("the Sentinels name another master")
        if not self._replicas or time.monotonic() < self._impatient_until:
            return
        try:
            reached = self._client.execute_command("WAIT", 1, REPLICA_MILLISECONDS)
        except ResponseError:
            reached = 0
        except (RedisError, OSError) as error:
            self.disconnect()
            raise as_store_error(error) from error
        if not reached:
            self._impatient_until = time.monotonic() + IMPATIENT_SECONDS

    def _replaced(self) -> bool:
        """Whether the Sentinels name another master than that of this connection, which is closed then. The
        old one may not know it yet, and would take writes that nobody will ever see.
        """
        pool = self._client.connection_pool
        if not isinstance(pool, SentinelConnectionPool) or time.monotonic() < self._unasked_until:
            return False
        before, ask = pool.master_address, cast("Any", pool).get_master_address
        try:
            return bool(before and ask() != before)
        except (RedisError, OSError):
            self._unasked_until = time.monotonic() + IMPATIENT_SECONDS
            return False

    def disconnect(self) -> None:
        """Close the connection; the next call opens another."""
        try:
            self._client.connection_pool.disconnect()
        except (RedisError, OSError):
            pass  # it was broken anyway

    def _greet(self, connection: Any) -> None:
        """Called with each new connection, before what it was opened for is sent."""
        connection.on_connect()
        if not self._mute:
            try:
                connection.send_command("INFO", "replication")
                text = connection.read_response()
            except ResponseError as error:
                self._looked_at = time.monotonic()
                if "unknown command" in str(error):
                    # It will never say, and may have hung up because it was asked.
                    self._mute = True
                    connection.disconnect()
                    connection.connect()
                    return
            else:
                text = text.decode() if isinstance(text, bytes) else str(text)
                info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
                _refuse_replica(info)
                if self._learn(info):
                    raise redis.ConnectionError("this is not the server of the connection before")
        self._load_scripts(connection)

    def _load_scripts(self, connection: Any) -> None:
        scripts = list(SCRIPTS.values())
        try:
            connection.send_command("SCRIPT", "EXISTS", *(script.sha for script in scripts))
            known = connection.read_response()
            for script, there in zip(scripts, known, strict=True):
                if not there:
                    connection.send_command("SCRIPT", "LOAD", script.source)
                    connection.read_response()
        except ResponseError:
            pass  # running them will tell

    def _learn(self, info: Mapping[str, Any]) -> bool:
        """Take over what `INFO replication` says; whether it is another server than before."""
        self._looked_at = time.monotonic()
        self._replicas = int(info.get("connected_slaves", 0))
        server = str(info.get("master_replid", ""))
        changed = bool(server and self._server and server != self._server)
        self._server = server or self._server
        if changed:
            self.generation += 1
        return changed


def _refuse_replica(info: Mapping[str, Any]) -> None:
    """Raise a redis-py ConnectionError if a server that says this of itself is a replica."""
    if info.get("role") == "slave":
        raise redis.ConnectionError("this server is a replica")
