"""`bridge ticket`: let somebody watch one task."""

from __future__ import annotations

import click

from bridge.settings import Settings
from bridge.tickets import ACTIONS
from bridge.tickets import ticket as make_ticket


@click.command()
@click.argument("task_id", metavar="ID")
@click.option(
    "--ttl", type=float, default=300.0, show_default=True, metavar="SECONDS", help="Valid for so long."
)
@click.option("--cancel", is_flag=True, help="Allow to cancel the task, too.")
@click.option("--owner", metavar="TEXT", help="Valid only as long as the task is this owner's.")
def ticket(task_id: str, ttl: float, cancel: bool, owner: str | None) -> None:
    """Print a ticket for one task, signed with the first key of BRIDGE_TICKET_KEYS.

    Whoever has it can watch that task: as ?ticket=... in the URL of a stream, or in the header
    Authorization: Bearer ...
    """
    actions = ACTIONS if cancel else ("read",)
    click.echo(make_ticket(task_id, ttl=ttl, actions=actions, owner=owner, settings=Settings.from_env()))
