"""Commands about schedules: list them, fire one by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options
from headrace.cli.output import Cell, print_json, print_table
from headrace.client.http import Client


def _in_zone(row: Mapping[str, Any], name: str) -> str:
    """A time as the schedule's own zone has it, with its distance from UTC."""
    return str(row.get(f"{name}_local") or "")


COLUMNS: dict[str, Cell] = {
    "function": "function",
    "number": "number",
    "schedule": "schedule",
    "misfire": "misfire",
    "next": lambda row: _in_zone(row, "next"),
    "last fired for": lambda row: _in_zone(row, "fired"),
}


@click.group("schedule", cls=CommandGroup)
def schedule_command() -> None:
    """List schedules and fire one now."""


@schedule_command.command("list")
@click.argument("function", required=False)
@json_option
@node_options
def schedule_list(function: str | None, as_json: bool, client: Client) -> None:
    """List every schedule, or those of FUNCTION: when it fires next, and when it last did, in its own zone."""
    names = () if function is None else (function,)
    rows = client.get("schedules", *names)["schedules"]
    if as_json:
        print_json(rows)
        return
    print_table(rows, COLUMNS, empty="no function has a schedule")


@schedule_command.command("fire")
@click.argument("function")
@click.option(
    "--number",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The number of the schedule in `schedule list`.",
)
@node_options
def schedule_fire(function: str, number: int, client: Client) -> None:
    """Fire the schedule of FUNCTION now, in addition to its timetable."""
    found = client.post("schedules", function, "fire", data={"number": number})
    click.echo(f"fired: `{found['event']}`")
