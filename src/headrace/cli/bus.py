"""Commands about event buses: replay past events, list replays, cancel one."""

from __future__ import annotations

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options
from headrace.cli.output import print_json, print_table
from headrace.client.http import Client

COLUMNS = {
    "name": "name",
    "stream": "stream",
    "from": "from",
    "to": "to",
    "state": "state",
    "left": "left",
    "read": "read",
    "sent": "sent",
}


@click.group("bus", cls=CommandGroup)
def bus_command() -> None:
    """Replay past events of a bus to its rules."""


@bus_command.command("replay")
@click.argument("stream")
@click.option(
    "--name", required=True, help="The name of the replay; its events carry it as a header."
)
@click.option(
    "--from", "begin", required=True, help="Replay events appended from this time on (RFC 3339)."
)
@click.option(
    "--to", "end", help="Replay events appended before this time (RFC 3339); without it, until now."
)
@click.option("--rule", "rules", multiple=True, help="Only this rule; may be repeated.")
@node_options
def bus_replay(
    stream: str, name: str, begin: str, end: str | None, rules: tuple[str, ...], client: Client
) -> None:
    """Match the events of STREAM between two times against its rules again."""
    body = {"name": name, "stream": stream, "from": begin, "to": end, "rules": list(rules)}
    found = client.post("bus", "replays", data=body)
    click.echo(f"replay `{found['name']}` is running: {found['left']} events to read")


@bus_command.command("replays")
@json_option
@node_options
def bus_replays(as_json: bool, client: Client) -> None:
    """List every replay with its progress."""
    rows = client.get("bus", "replays")["replays"]
    if as_json:
        print_json(rows)
        return
    print_table(rows, COLUMNS, empty="there is no replay")


@bus_command.command("cancel")
@click.argument("name")
@node_options
def bus_cancel(name: str, client: Client) -> None:
    """Stop replay NAME; the events it has appended stay."""
    found = client.post("bus", "replays", name, "cancel", data={})
    click.echo(f"replay `{name}` is {found['state']}; {found['sent']} events were sent")
