"""Commands about schedules: list them, fire one by hand."""

from __future__ import annotations

import click

from headrace.cli.connection import json_option, node_options
from headrace.cli.families import Family
from headrace.cli.output import print_json, print_table
from headrace.client.http import Client

COLUMNS = {
    "function": "function",
    "number": "number",
    "schedule": "schedule",
    "misfire": "misfire",
    "next": "next",
    "last fired for": "fired",
}


@click.group("schedule", cls=Family)
def schedule_command() -> None:
    """List schedules and fire one by hand."""


@schedule_command.command("list")
@click.argument("function", required=False)
@json_option
@node_options
def schedule_list(function: str | None, as_json: bool, client: Client) -> None:
    """List every schedule, or those of FUNCTION: when it fires next, and when it last did."""
    names = () if function is None else (function,)
    rows = client.get("schedules", *names)["schedules"]
    if as_json:
        print_json(rows)
        return
    print_table(rows, COLUMNS, empty="no function has a schedule")


@schedule_command.command("fire")
@click.argument("function")
@click.option(
    "--number", type=click.IntRange(min=0), default=0, show_default=True,
    help="Which of its schedules, as `list` numbers them.",
)  # fmt: skip
@node_options
def schedule_fire(function: str, number: int, client: Client) -> None:
    """Let the schedule of FUNCTION fire now, beside its timetable."""
    found = client.post("schedules", function, "fire", data={"number": number})
    click.echo(f"fired: `{found['event']}`")
