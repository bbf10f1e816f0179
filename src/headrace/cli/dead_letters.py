"""Commands about failures: dead letters, parked keys, and where an event is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options, split_position
from headrace.cli.output import (
    plural,
    print_json,
    print_json_line,
    print_table,
    short_time,
    value_text,
)
from headrace.cli.patterns import explain_pattern
from headrace.client.http import Client

EXPORT_PAGE = 500


@click.group("dead", cls=CommandGroup)
def dead_command() -> None:
    """List, show, export, edit, redrive or discard dead letters."""


@dead_command.command("list")
@click.argument("function", required=False)
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@click.option("--after", metavar="PLACE", help="Start after the last row of the previous page.")
@json_option
@node_options
def dead_list(
    function: str | None, limit: int, after: str | None, as_json: bool, client: Client
) -> None:
    """List dead letters, of FUNCTION or of all."""
    found = client.get("dead", function=function, limit=limit, after=after)
    if as_json:
        print_json(found["dead"])
        return
    print_table(
        found["dead"],
        {
            "function": "function",
            "event": "position",
            "key": lambda row: row["event"].get("key"),
            "attempts": "attempts",
            "failed": lambda row: short_time(row["failed"]),
            "cause": lambda row: f"{row['cause']['kind']}: {row['cause']['message']}",
        },
        empty="no dead letters",
    )
    if found["after"]:
        click.echo(f"there are more: --after '{found['after']}'", err=True)


@dead_command.command("show")
@click.argument("function")
@click.argument("event")
@json_option
@node_options
def dead_show(function: str, event: str, as_json: bool, client: Client) -> None:
    """Show one complete dead letter of FUNCTION; EVENT is `stream/partition/offset`."""
    found = client.get("dead", function, *split_position(event))
    if as_json:
        print_json(found)
        return
    _print_facts(
        {
            "function": found["function"],
            "event": found["position"],
            "key": found["event"].get("key"),
            "appended": found["appended"],
            "failed": found["failed"],
            "attempts": found["attempts"],
            "origin": found["origin"],
            "hops": found["hops"],
            "headers": found["event"].get("headers"),
            "cause": f"{found['cause']['kind']}: {found['cause']['message']}",
            "edited": ", ".join(
                f"{short_time(each['time'])} by {each['by']}" for each in found.get("edits", ())
            ),
        }
    )
    click.echo(f"\nvalue\n{value_text(found['event'])}")
    if "original" in found:
        click.echo(f"\nvalue before it was edited\n{value_text(found['original'])}")
    if found["cause"]["traceback"]:
        click.echo(f"\ntraceback\n{found['cause']['traceback'].rstrip()}")


@dead_command.command("export")
@click.argument("function", required=False)
@node_options
def dead_export(function: str | None, client: Client) -> None:
    """Print complete dead letters, of FUNCTION or of all: one JSON object per line."""
    after = ""
    while True:
        found = client.get("dead", function=function, limit=EXPORT_PAGE, after=after or None)
        for letter in found["dead"]:
            print_json_line(letter)
        if not (after := found["after"]):
            return


@dead_command.command("edit")
@click.argument("function")
@click.argument("event")
@click.option("--value", metavar="JSON", help="The new value, or `@FILE`; else an editor opens.")
@node_options
def dead_edit(function: str, event: str, value: str | None, client: Client) -> None:
    """Give the dead letter of FUNCTION at EVENT another value; the original is kept."""
    position = split_position(event)
    if value is None:
        shown = client.get("dead", function, *position)["event"]
        if "value" not in shown:
            raise click.UsageError("This value is not JSON; say what it is to be with `--value`.")
        written = click.edit(json.dumps(shown["value"], indent=2, ensure_ascii=False))
        if written is None:
            raise click.Abort
        value = written
    said = {"position": "/".join(position), "value": _json(value)}
    client.post("dead", function, "edit", data=said)
    click.echo(
        f"`{'/'.join(position)}` of `{function}` changed; `headrace dead redrive` delivers it"
    )


@dead_command.command("redrive")
@click.argument("function")
@click.argument("events", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters of the function.")
@click.option(
    "--value",
    metavar="JSON",
    help="Another value for the one event, or `@FILE`; changed and delivered in one step.",
)
@node_options
def dead_redrive(
    function: str, events: tuple[str, ...], everything: bool, value: str | None, client: Client
) -> None:
    """Deliver dead letters to FUNCTION again: EVENTS (`stream/partition/offset`) or --all."""
    chosen = _chosen(events, everything)
    if value is not None:
        if len(events) != 1:
            raise click.UsageError("`--value` is for one event; name it.")
        chosen["value"] = _json(value)
    count = client.post("dead", function, "redrive", data=chosen)["redriven"]
    click.echo(f"{plural(count, 'dead letter')} handed to `{function}` again")


@dead_command.command("discard")
@click.argument("function")
@click.argument("events", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters of the function.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@node_options
def dead_discard(
    function: str, events: tuple[str, ...], everything: bool, yes: bool, client: Client
) -> None:
    """Delete dead letters of FUNCTION for good: EVENTS or --all."""
    chosen = _chosen(events, everything)
    what = "all dead letters" if everything else plural(len(events), "dead letter")
    if not yes:
        click.confirm(f"Delete {what} of `{function}` for good?", abort=True, err=True)
    count = client.post("dead", function, "discard", data=chosen)["discarded"]
    click.echo(f"{plural(count, 'dead letter')} of `{function}` deleted")


def _json(text: str) -> Any:
    """A JSON value that was typed, or that stands in `@FILE`."""
    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except OSError as error:
        raise click.BadParameter(f"`{text[1:]}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise click.BadParameter(
            f"`{text:.80}` is not JSON: {error}; a text needs quotes of its own, such as '\"tea\"'"
        ) from error


def _chosen(events: tuple[str, ...], everything: bool) -> dict[str, Any]:
    if everything == bool(events):
        raise click.UsageError("Name the events (`stream/partition/offset`), or say `--all`.")
    if everything:
        return {"all": True}
    return {"positions": ["/".join(split_position(event)) for event in events]}


@click.group("parked", cls=CommandGroup)
def parked_command() -> None:
    """List, redrive or discard parked keys."""


@parked_command.command("list")
@click.argument("function", required=False)
@json_option
@node_options
def parked_list(function: str | None, as_json: bool, client: Client) -> None:
    """List parked keys and stopped partitions, of FUNCTION or of all."""
    rows = client.get("parked", function=function)["parked"]
    if as_json:
        print_json(rows)
        return
    print_table(
        rows,
        {
            "function": "function",
            "stream": "stream",
            "partition": "partition",
            "key": "key",
            "status": "status",
            "events": "events",
            "since": lambda row: short_time(row["since"]),
            "cause": "cause",
        },
        empty="nothing is parked",
    )


@parked_command.command("redrive")
@click.argument("function")
@click.argument("key", required=False)
@click.option("--all", "everything", is_flag=True, help="Every parked key of the function.")
@node_options
def parked_redrive(function: str, key: str | None, everything: bool, client: Client) -> None:
    """Deliver the parked events of KEY (or --all) of FUNCTION again, in order."""
    count = client.post("parked", function, "redrive", data=_chosen_key(key, everything))[
        "redriven"
    ]
    click.echo(f"{plural(count, 'parked key')} of `{function}` released")


@parked_command.command("discard")
@click.argument("function")
@click.argument("key", required=False)
@click.option("--all", "everything", is_flag=True, help="Every parked key of the function.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@node_options
def parked_discard(
    function: str, key: str | None, everything: bool, yes: bool, client: Client
) -> None:
    """Delete the parked events of KEY (or --all) of FUNCTION for good."""
    chosen = _chosen_key(key, everything)
    what = "everything" if everything else f"all events under key `{key}`"
    if not yes:
        click.confirm(f"Delete {what} parked by `{function}` for good?", abort=True, err=True)
    count = client.post("parked", function, "discard", data=chosen)["discarded"]
    click.echo(f"{plural(count, 'parked key')} of `{function}` deleted")


def _chosen_key(key: str | None, everything: bool) -> dict[str, Any]:
    if everything == (key is not None):
        raise click.UsageError("Name the key, or say `--all`.")
    return {"all": True} if everything else {"key": key}


@click.command("explain")
@click.argument("what", nargs=-1, required=True, metavar="EVENT | pattern PATTERN JSON")
@json_option
@node_options
@click.pass_context
def explain_command(
    ctx: click.Context, /, what: tuple[str, ...], as_json: bool, client: Client
) -> None:
    """Show where EVENT (`stream/partition/offset`) is and what it waits for.

    `explain pattern PATTERN JSON` tests an event against an event pattern instead (JSON, or `@file`,
    for each) and shows which leaf failed and on which value. The exit status is 1 if it does not
    match.
    """
    if what[0] == "pattern" and len(what) == 3:
        ctx.exit(0 if explain_pattern(what[1], what[2], as_json=as_json) else 1)
    if len(what) != 1:
        raise click.UsageError(
            "write `headrace explain STREAM/PARTITION/OFFSET`, or `headrace explain pattern "
            "PATTERN EVENT`"
        )
    found = client.get("explain", *split_position(what[0]))
    if as_json:
        print_json(found)
        return
    _print_facts({name: value for name, value in found.items() if not isinstance(value, list)})
    click.echo()
    print_table(
        found["functions"],
        {
            "function": "function",
            "status": "status",
            "waits for": "blocked_by",
            "attempts": "attempts",
            "next attempt": "next_attempt",
            "cause": "cause",
            "policy": "policy",
        },
        empty="no function reads this stream",
    )


def _print_facts(facts: Mapping[str, Any]) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if value not in (None, "", {}):
            click.echo(f"{name.replace('_', ' ').ljust(width)}  {value}")
