"""Commands about functions: invoke, list, lag, reset, pause, resume."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from headrace.cli.connection import json_option, node_options
from headrace.cli.duration_type import DurationType
from headrace.cli.output import print_json, print_table
from headrace.cli.source_status import print_failing, print_slots, slot_warning_option
from headrace.client.http import Client

NOTHING = "no function is deployed; start one with `headrace dev app.py`"
LAG_COLUMNS = {
    "function": "function",
    "stream": "stream",
    "partition": "partition",
    "position": "position",
    "end": "high",
    "lag": "lag",
    "in flight": "in_flight",
    "oldest s": "oldest_age",
    "state": "state",
}


@click.command("invoke")
@click.argument("function")
@click.argument("payload", required=False)
@click.option(
    "--timeout",
    type=DurationType(0.001, 86_400),
    metavar="SPAN",
    help="Give up after this long, such as `30` or `5m`.",
)
@click.option(
    "--idempotency-key", metavar="TEXT", help="A repeated call with it gets the first answer."
)
@node_options
def invoke_command(
    function: str,
    payload: str | None,
    timeout: float | None,
    idempotency_key: str | None,
    client: Client,
) -> None:
    """Call FUNCTION (`app.function`) with a JSON PAYLOAD (`-` reads it from stdin)."""
    body = sys.stdin.buffer.read() if payload == "-" else (payload or "null").encode()
    print_json(
        client.call(function, body, timeout=timeout, idempotency_key=idempotency_key or None)
    )


@click.command("list")
@json_option
@node_options
def list_command(as_json: bool, client: Client) -> None:
    """List functions and streams."""
    functions = client.get("functions")["functions"]
    streams = client.get("streams")["streams"]
    if as_json:
        print_json({"functions": functions, "streams": streams})
        return
    print_table(
        functions,
        {
            "function": "name",
            "reads": lambda row: [
                stream for trigger in row["triggers"] for stream in trigger.get("streams", ())
            ],
            "output": "output",
            "batch": "batch_size",
            "order": "order",
            "version": lambda row: row["version"][:12],
            "what it does": "summary",
        },
        empty=NOTHING,
    )
    click.echo()
    print_table(
        streams,
        {
            "stream": "name",
            "owner": "owner",
            "partitions": "partitions",
            "records": "records",
            "bytes": "bytes",
            "private": "private",
            "keeps": _keeps,
            "read by": "readers",
        },
        empty="no stream is declared",
    )


def _keeps(row: Mapping[str, Any]) -> str:
    if row["cleanup"] == "compact":
        return "last of each key"
    kept = [
        *([f"{row['retention_age']:g} s"] if row["retention_age"] else []),
        *([f"{row['retention_bytes']:,} bytes"] if row["retention_bytes"] else []),
    ]
    return " or ".join(kept) or "all"


@click.command("lag")
@click.argument("function", required=False)
@slot_warning_option
@json_option
@node_options
def lag_command(function: str | None, slot_warning: int, as_json: bool, client: Client) -> None:
    """Show how far each function (or FUNCTION) is behind in each partition."""
    rows = client.get("lag", function=function)["lag"]
    sources = client.get("sources", function=function, warning=slot_warning)["sources"]
    if as_json:
        fed = {source["stream"]: source for source in sources}
        print_json([row | {"source": fed.get(row["stream"])} for row in rows])
        return
    print_table(rows, LAG_COLUMNS, empty="no function reads a stream")
    print_failing(sources)
    print_slots(sources)


@click.command("reset")
@click.argument("function")
@click.option(
    "--to", "start", required=True, metavar="PLACE", help="earliest, latest, an offset or a time."
)
@click.option(
    "--order-of", metavar="OTHER", help="Merge in the order in which this function has merged."
)
@node_options
def reset_command(function: str, start: str, order_of: str | None, client: Client) -> None:
    """Move FUNCTION to another position in its streams."""
    body = {"start": start} if order_of is None else {"start": start, "order_of": order_of}
    found = client.post("functions", function, "reset", data=body)
    click.echo(f"`{function}` goes on from {found['start']}")


@click.command("pause")
@click.argument("function")
@node_options
def pause_command(function: str, client: Client) -> None:
    """Stop delivery to FUNCTION; its positions wait."""
    client.post("functions", function, "pause")
    click.echo(f"`{function}` is paused; `headrace resume {function}` lets it go on")


@click.command("resume")
@click.argument("function")
@node_options
def resume_command(function: str, client: Client) -> None:
    """Resume delivery to a paused FUNCTION."""
    client.post("functions", function, "resume")
    click.echo(f"`{function}` goes on")
