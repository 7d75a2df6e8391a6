"""`bridge matrix`: show a task in a Matrix room, or answer what is asked in rooms."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NoReturn

import click

from bridge.cli import errors, logs
from bridge.cli.answering import Answering, Maker, by_command, by_function
from bridge.cli.following import follow
from bridge.cli.options import MATRIX, WORKER, settings_options
from bridge.errors import LeaseLost
from bridge.events import check_task_id
from bridge.settings import Settings
from bridge.sinks.matrix import MatrixSink, Place, Style
from bridge.sinks.matrix.bot import MOST_ANSWERS, Bot

_DEFAULT: Final = Style()
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--room",
    "rooms",
    multiple=True,
    metavar="ROOM",
    help="A room's id or alias. With --listen any number; none means all where the user is.",
)
@click.option("--task", "task_id", metavar="ID", help="Show this task, to its end.")
@click.option("--thread", metavar="EVENT", default="", help="Show it in the thread that this event begins.")
@click.option("--reply-to", metavar="EVENT", default="", help="Show it as an answer to this event.")
@click.option("--mention", "mentions", multiple=True, metavar="USER", help="Notify this user, once.")
@click.option("--listen", is_flag=True, help="Answer messages with COMMAND, which reads them from its stdin.")
@click.option(
    "--source",
    metavar="MODULE:NAME",
    help="With --listen, instead of COMMAND: a Python function that takes a question and gives a source.",
)
@click.option("--mentions-only", is_flag=True, help="With --listen: only messages that mention the user.")
@click.option(
    "--answers",
    type=click.IntRange(1, 1000),
    default=MOST_ANSWERS,
    show_default=True,
    metavar="N",
    help="With --listen: so many answers may grow at once.",
)
@click.option(
    "--leave-seconds",
    type=click.FloatRange(0),
    default=20.0,
    show_default=True,
    metavar="NUMBER",
    help="With --listen, at SIGTERM: so long answers may still grow before they are stopped.",
)
@click.option(
    "--thinking",
    default=_DEFAULT.thinking,
    show_default=True,
    metavar="TEXT",
    help="What the message says while there is no text yet. Empty: nothing.",
)
@click.option(
    "--thinking-seconds",
    type=click.FloatRange(0),
    default=_DEFAULT.thinking_seconds,
    show_default=True,
    metavar="NUMBER",
    help="So long nothing is said.",
)
@click.option(
    "--interval-seconds",
    type=click.FloatRange(0.5),
    default=_DEFAULT.interval_seconds,
    show_default=True,
    metavar="NUMBER",
    help="The least time between two edits.",
)
@click.option("--plain", is_flag=True, help="Text only, no HTML made of its Markdown.")
@click.option("--notice", is_flag=True, help="Send notices, which notify nobody.")
@click.option("--usage", is_flag=True, help="At the end, say what was used (tokens, say).")
@click.option("--gateway", "gateway_url", metavar="URL", help="Where the gateway is. [BRIDGE_GATEWAY_URL]")
@settings_options(*MATRIX, *WORKER)
def matrix(
    command: Sequence[str],
    rooms: tuple[str, ...],
    task_id: str | None,
    thread: str,
    reply_to: str,
    mentions: tuple[str, ...],
    listen: bool,
    source: str | None,
    mentions_only: bool,
    answers: int,
    leave_seconds: float,
    thinking: str,
    thinking_seconds: float,
    interval_seconds: float,
    plain: bool,
    notice: bool,
    usage: bool,
    **flags: Any,
) -> None:
    """Show task ID in a Matrix room, as one message that grows:

    bridge matrix --room '!abc:example.org' --task job-42

    or answer messages with a command, each in a thread: bridge matrix --listen -- ./model

    The access token is BRIDGE_MATRIX_TOKEN, or in the file BRIDGE_MATRIX_TOKEN_FILE. It can be started any
    number of times: one shows, the others take over when it dies.

    Exit code: 0 the task is shown whole, however it ended; 1 the homeserver refuses, or is away; 2 wrong
    usage; 4 no gateway, or no such task; 128 + n after signal n (Ctrl-C is 130). A bot that is told to leave
    ends with 0.
    """
    style = Style(
        thinking=thinking,
        thinking_seconds=thinking_seconds,
        html=not plain,
        usage=usage,
        notice=notice,
        interval_seconds=interval_seconds,
    )
    if listen:
        if task_id or bool(command) == bool(source):
            raise click.UsageError("--listen takes a command or a --source, and no --task.")
        logs.for_operators("info")
        settings = Settings.from_env(**flags)
        maker = by_function(source) if source else by_command(command)
        _leave(asyncio.run(_listen(settings, style, maker, rooms, mentions_only, answers, leave_seconds)))
    if not task_id or len(rooms) != 1 or command or source:
        raise click.UsageError("Give --task and one --room, or --listen and a command.")
    logs.for_people()
    settings = Settings.from_env(**flags)
    place = Place(rooms[0], thread=thread, reply_to=reply_to, mentions=mentions)
    _leave(asyncio.run(_until_signal(_show(settings, style, check_task_id(task_id), place))))


async def _show(settings: Settings, style: Style, task_id: str, place: Place) -> None:
    async with MatrixSink(settings, style=style) as sink:
        while True:
            try:
                if await sink.show(task_id, place, follow(task_id, settings)):
                    return
            except LeaseLost:
                pass
            # Another process shows it. Should that one die, its lease runs out.
            await asyncio.sleep(settings.lease_seconds / 3)


async def _listen(
    settings: Settings,
    style: Style,
    maker: Maker,
    rooms: tuple[str, ...],
    mentions_only: bool,
    answers: int,
    leave_seconds: float,
) -> int:
    async with MatrixSink(settings, style=style) as sink, Answering(maker, settings) as works:
        bot = Bot(sink, works.views, rooms=rooms, mentions_only=mentions_only, most_answers=answers)
        leave = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal(number: int) -> None:
            if leave.is_set():
                works.stop()
            leave.set()

        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal, number)
        user = await sink.user()
        await bot.run(
            leave, works.stop, leave_seconds, ready=lambda: click.echo(f"bridge: listening as {user}")
        )
    return 0


async def _until_signal(work: Coroutine[Any, Any, None]) -> int:
    """Do it, and stop in order at a signal; 0, or the signal's number."""
    task = asyncio.ensure_future(work)
    came: list[int] = []

    def on_signal(number: int) -> None:
        came.append(number)
        task.cancel()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        await task
    except asyncio.CancelledError:
        if not came:
            raise
        return came[0]
    return 0


def _leave(number: int) -> NoReturn:
    """Exit as after signal `number`, or, with 0, without any."""
    raise click.exceptions.Exit(128 + number if number else errors.SUCCEEDED)
