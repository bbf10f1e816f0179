"""Commands about windows: close what is open."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options
from headrace.cli.output import Cell, print_json, print_table
from headrace.client.http import Client
from headrace.model.errors import Unavailable

COLUMNS: dict[str, Cell] = {
    "key": lambda row: "-" if row["key"] is None else row["key"],
    "start": "start",
    "end": "end",
}


@click.group("window", cls=CommandGroup)
def window_command() -> None:
    """Close open windows."""


@window_command.command("flush")
@click.argument("function")
@click.option(
    "--partition",
    type=click.IntRange(min=0),
    help="Only this partition of the stream that it reads.",
)
@click.option("--key", metavar="TEXT", help="Only the windows of this key.")
@json_option
@node_options
def window_flush(
    function: str, partition: int | None, key: str | None, as_json: bool, client: Client
) -> None:
    """Close the open windows of FUNCTION now, and print them.

    Events that come for these windows later are late.
    """
    wish: dict[str, Any] = {}
    if partition is not None:
        wish["partition"] = partition
    if key is not None:
        wish["key"] = key
    found = client.post("functions", function, "flush", data=wish)
    if as_json:
        print_json(found)
    else:
        print_table(found["windows"], COLUMNS, empty="no window was open")
        if (left := found["closed"] - len(found["windows"])) > 0:
            click.echo(f"and {left:,} more")
    if found["waiting"]:
        places = ", ".join(map(str, found["waiting"]))
        raise Unavailable(
            f"`{function}` has not closed its windows in partition {places} yet "
            f"({found['state']}); it does as soon as it can, and nothing need be asked again"
        )
