"""Commands that look at what an app keeps."""

from __future__ import annotations

import json

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options
from headrace.cli.output import one_line, print_json, print_table
from headrace.client.http import Client


@click.group("state", cls=CommandGroup)
def state_command() -> None:
    """Show the state of an app."""


@state_command.command("list")
@click.argument("app")
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that start with it.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@click.option("--after", metavar="KEY", help="Start after the last key of the previous page.")
@json_option
@node_options
def state_list(
    app: str, prefix: str, limit: int, after: str | None, as_json: bool, client: Client
) -> None:
    """List the keys of APP with their values."""
    found = client.get("state", app, prefix=prefix, limit=limit, after=after)
    if as_json:
        print_json(found["state"])
        return
    print_table(
        found["state"],
        {
            "key": "key",
            "value": lambda row: one_line(json.dumps(row["value"], ensure_ascii=False)),
            "bytes": "bytes",
            "expires": "expires",
        },
        empty=f"app `{app}` keeps nothing" + (f" under `{prefix}`" if prefix else ""),
    )
    if found["after"]:
        click.echo(f"there are more: --after '{found['after']}'", err=True)


@state_command.command("get")
@click.argument("app")
@click.argument("key")
@json_option
@node_options
def state_get(app: str, key: str, as_json: bool, client: Client) -> None:
    """Print the value of KEY in the state of APP."""
    found = client.get("state", app, key)
    print_json(found if as_json else found["value"])
