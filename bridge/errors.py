"""Every error of the bridge, one tree.

    BridgeError
    ├── InvalidInput (ValueError)     the caller passed something that can never work
    │   ├── InvalidTaskId
    │   ├── InvalidPosition
    │   ├── InvalidEvent
    │   ├── TooLarge                  a request's body, or a line of it, is larger than accepted
    │   └── UnsupportedBody           a request's body is of a type that isn't read here
    ├── SettingsError                 a setting, flag or environment variable is wrong
    ├── StoreError                    Redis
    │   ├── StoreUnavailable          it can't be reached now; the same call may work later
    │   ├── LeaseLost                 somebody else does by now what this process had taken on
    │   └── CorruptLog                a log or a message holds what no writer of ours writes
    ├── AccessError                   whether a request may see a task
    │   ├── Unauthenticated           its credentials are missing, or not valid, or not any more
    │   └── AuthUnavailable           who knows about them can't be asked now; the same request may work later
    ├── UpstreamError                 the app behind the gateway gave no answer that can be handed on
    │   ├── UpstreamTooSlow           not in time
    │   └── UpstreamBusy              too many requests are under way to it already
    ├── TooMany                       a request is over a limit; the same request may work later
    ├── EmbeddedServerError           the embedded server could not be started
    ├── LinkDown                      the gateway's pub/sub link dropped while it was needed
    ├── CommandError                  `bridge run` could not start its command
    ├── SinkError                     showing a task somewhere else
    │   ├── SinkUnavailable           the target can't be reached, or has too much to do: it may work later
    │   └── SinkRefused               the target refuses, and would refuse again
    ├── StreamTooLarge                a line or an event of an event stream is over the reader's limit
    └── ClientError                   talking to a gateway
        ├── GatewayUnavailable        not reachable, or it answered 5xx/429: try again later
        ├── TaskNotFound              it doesn't know the task, or it isn't yours
        └── RequestRefused            it says that the request is wrong

The type says whose fault it was, the message says what to do next. Nothing here is ever raised
out of `report_progress` for a reason that lies in Redis or the gateway.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of all errors that the bridge raises on purpose."""


class InvalidInput(BridgeError, ValueError):
    """The caller passed a value that can never be accepted."""


class InvalidTaskId(InvalidInput):
    """A task id is not 1-200 characters of ``A-Z a-z 0-9 . _ : ~ -``."""


class InvalidPosition(InvalidInput):
    """A position is not of the form ``<epoch>-<seq>``."""


class InvalidEvent(InvalidInput):
    """An event's kind or data is not one of the vocabulary."""


class TooLarge(InvalidInput):
    """A request's body, or a line of it, is larger than what is accepted."""


class UnsupportedBody(InvalidInput):
    """A request's body is of a type that nobody here reads."""


class SettingsError(BridgeError):
    """A setting has a value that doesn't fit; the message names it and its source."""


class StoreError(BridgeError):
    """Something is wrong with Redis or with what is kept there."""


class StoreUnavailable(StoreError):
    """Redis can't be reached at this moment; the same call may work later."""


class LeaseLost(StoreError):
    """What this process did, another has taken over; nothing more may come from here."""


class CorruptLog(StoreError):
    """A log entry or a published message is not what any of our writers writes."""


class AccessError(BridgeError):
    """A request was not let in. That somebody may not see a task is none: to them it doesn't exist."""


class Unauthenticated(AccessError):
    """The request has no credentials, or none that are valid now."""


class AuthUnavailable(AccessError):
    """Whoever knows about the request's credentials can't be asked at this moment."""


class UpstreamError(BridgeError):
    """The app behind the gateway can't be reached, or broke off, or said what is no HTTP."""


class UpstreamTooSlow(UpstreamError):
    """The app behind the gateway said nothing in time."""


class UpstreamBusy(UpstreamError):
    """So many requests to the app are under way that this one had to wait too long for its turn."""


class TooMany(BridgeError):
    """A request is over a limit. limit: the setting. retry_seconds: when another try makes sense."""

    def __init__(self, message: str, limit: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_seconds = retry_seconds


class EmbeddedServerError(BridgeError):
    """The embedded Valkey or Redis server could not be started."""


class LinkDown(BridgeError):
    """The pub/sub link dropped while an answer of it was awaited."""


class CommandError(BridgeError):
    """A command that was to be run could not be started."""


class SinkError(BridgeError):
    """A task can't be shown where it should be."""


class SinkUnavailable(SinkError):
    """The target can't take it at this moment. retry_seconds: what it asks for, 0 for nothing. limited: it
    says that it has not done what it was asked to, because there was too much of it.
    """

    def __init__(self, message: str, retry_seconds: float = 0.0, *, limited: bool = False) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds
        self.limited = limited


class SinkRefused(SinkError):
    """The target refuses; repeating it is useless. code: the target's own word for why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class StreamTooLarge(BridgeError):
    """A line or an event of an event stream is larger than its reader accepts."""


class ClientError(BridgeError):
    """A request to a gateway failed."""


class GatewayUnavailable(ClientError):
    """The gateway can't be reached or can't serve now; a later try may succeed."""


class TaskNotFound(ClientError):
    """The gateway doesn't know the task (or won't say that it does)."""


class RequestRefused(ClientError):
    """The gateway refused the request as wrong; repeating it is useless."""
