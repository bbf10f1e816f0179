"""Commands about what happened: log lines of functions and their latest runs."""

from __future__ import annotations

import click

from headrace.cli.connection import json_option, node_options
from headrace.cli.output import print_json, print_json_line, print_table, short_time
from headrace.client.http import Client
from headrace.environment.clock import SystemClock

_POLL_S = 0.5


@click.command("logs")
@click.argument("function", required=False)
@click.option("-n", "--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Keep printing lines as functions write them.")
@json_option
@node_options
def logs_command(
    function: str | None, limit: int, follow: bool, as_json: bool, client: Client
) -> None:
    """Show what functions (or FUNCTION) wrote, oldest first."""
    clock = SystemClock()
    after = 0
    while True:
        found = client.get("logs", function=function, limit=limit, after=after)
        after = found["after"]
        for line in found["logs"]:
            if as_json:
                print_json_line(line)
            else:
                click.echo(
                    f"{short_time(line['time'])}  {line['level'].upper():7}  "
                    f"{line['function'] or '-'}  {line['text']}"
                )
        if not follow:
            return
        if not found["logs"]:
            clock.pause(_POLL_S)


@click.command("invocations")
@click.argument("function", required=False)
@click.option("-n", "--limit", type=click.IntRange(1, 1_000), default=20, show_default=True)
@json_option
@node_options
def invocations_command(function: str | None, limit: int, as_json: bool, client: Client) -> None:
    """Show the latest invocations (of FUNCTION), newest first."""
    rows = client.get("invocations", function=function, limit=limit)["invocations"]
    if as_json:
        print_json(rows)
        return
    print_table(
        rows,
        {
            "started": lambda row: short_time(row["started"]),
            "function": "function",
            "outcome": "outcome",
            "events": "events",
            "first": lambda row: row["first"] or "call",
            "attempt": "attempt",
            "ms": lambda row: round(row["wall"] * 1_000, 2),
            "cold": "cold",
            "cause": "cause",
        },
        empty="nothing has run yet",
    )
