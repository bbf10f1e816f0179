"""Commands about queues: what is in them, a look without taking, redriving, emptying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options
from headrace.cli.output import one_line, plural, print_json, print_table, short_time, value_text
from headrace.client.http import Client

Row = Mapping[str, Any]


@click.group("queue", cls=CommandGroup)
def queue_command() -> None:
    """List queues, inspect one, redrive or purge it."""


@queue_command.command("list")
@json_option
@node_options
def queue_list(as_json: bool, client: Client) -> None:
    """List queues: for each reader the messages waiting, in flight, delayed, dead or parked."""
    rows = client.get("queues")["queues"]
    if as_json:
        print_json(rows)
        return
    print_table(
        [row | {"reader": reader} for row in rows for reader in row["readers"] or [{}]],
        {
            "queue": "queue",
            "reader": lambda row: row["reader"].get("group", "nobody"),
            "waiting": lambda row: row["reader"].get("waiting"),
            "in flight": lambda row: row["reader"].get("in_flight"),
            "delayed": "delayed",
            "dead": lambda row: row["reader"].get("dead"),
            "parked": lambda row: row["reader"].get("parked"),
            "oldest s": lambda row: row["reader"].get("oldest_age"),
            "state": lambda row: row["reader"].get("state"),
        },
        empty='no queue is declared; `jobs = app.queue("jobs")` declares one',
    )


@queue_command.command("show")
@click.argument("queue")
@json_option
@node_options
def queue_show(queue: str, as_json: bool, client: Client) -> None:
    """Show the settings of QUEUE, and its messages by reader."""
    found = client.get("queues", queue)
    if as_json:
        print_json(found)
        return
    settings = found["settings"]
    facts = {
        "queue": found["queue"],
        "owner": found["owner"],
        "partitions": found["partitions"],
        "order": "per key" if settings["fifo"] else "none",
        "visibility": f"{settings['visibility']:g} s",
        "max receives": settings["max_receives"],
        "delay": f"{settings['delay']:g} s",
        "delayed": f"{found['delayed']:,}",
    }
    for name, value in facts.items():
        click.echo(f"{name:<12}  {value}")
    click.echo()
    print_table(
        found["readers"],
        {
            "reader": "group",
            "waiting": "waiting",
            "in flight": "in_flight",
            "dead": "dead",
            "parked": "parked",
            "oldest s": "oldest_age",
            "state": "state",
        },
        empty="nobody reads this queue",
    )


@queue_command.command("peek")
@click.argument("queue")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 1_000),
    default=10,
    show_default=True,
    help="Messages to show.",
)
@click.option("--group", metavar="NAME", help="The reader, if there are several.")
@json_option
@node_options
def queue_peek(queue: str, limit: int, group: str | None, as_json: bool, client: Client) -> None:
    """Show the first messages of QUEUE without taking them: unfinished ones, then delayed ones."""
    rows = client.get("queues", queue, "messages", limit=limit, group=group)["messages"]
    if as_json:
        print_json(rows)
        return
    print_table(
        rows,
        {
            # A delayed message has no position yet; `queue cancel` takes its id.
            "message": lambda row: row["position"] or row.get("id"),
            "state": "state",
            "receives": "receives",
            "until": lambda row: short_time(row["until"] or ""),
            "appended": lambda row: short_time(row["appended"] or ""),
            "key": "key",
            "value": lambda row: one_line(value_text(row), 60),
        },
        empty=f"`{queue}` is empty",
    )


@queue_command.command("redrive")
@click.argument("queue")
@node_options
def queue_redrive(queue: str, client: Client) -> None:
    """Deliver every dead message of QUEUE again."""
    count = client.post("queues", queue, "redrive")["redriven"]
    click.echo(f"{plural(count, 'dead message')} of `{queue}` given out again")


@queue_command.command("cancel")
@click.argument("queue")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
@node_options
def queue_cancel(queue: str, ids: tuple[str, ...], as_json: bool, client: Client) -> int:
    """Cancel delayed messages of QUEUE, by the ids they were published with."""
    found = client.post("queues", queue, "cancel", data={"ids": ids})
    if as_json:
        print_json(found)
    else:
        for each in found["cancelled"]:
            click.echo(f"`{each}` will not be delivered")
        for each in found["unknown"]:
            click.echo(
                f"`{each}` does not wait in `{queue}`: it was delivered, or never sent", err=True
            )
    return 1 if found["unknown"] else 0


@queue_command.command("purge")
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@node_options
def queue_purge(queue: str, yes: bool, as_json: bool, client: Client) -> None:
    """Mark every message in QUEUE as done, for all its readers; dead and parked messages stay."""
    if not yes:
        row = client.get("queues", queue)
        waiting = max((r["waiting"] + r["in_flight"] for r in row["readers"]), default=0)
        what = f"{plural(waiting, 'message')} and {row['delayed']:,} delayed"
        click.confirm(f"Purge `{queue}` of {what} for good?", abort=True, err=True)
    purged = client.post("queues", queue, "purge", data={"all": True})
    if as_json:
        print_json(purged)
        return
    for group, count in purged["readers"].items():
        click.echo(f"{plural(count, 'message')} for `{group}` purged from `{queue}`")
    if purged["delayed"] or not purged["readers"]:
        click.echo(f"{plural(purged['delayed'], 'delayed message')} purged from `{queue}`")
