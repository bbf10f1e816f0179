"""Commands that look at what the stores of an app hold."""

from __future__ import annotations

import json

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options
from headrace.cli.output import one_line, print_json, print_table
from headrace.client.http import Client
from headrace.model.errors import Misuse


@click.group("state", cls=CommandGroup)
def state_command() -> None:
    """Show the stores of an app."""


@state_command.command("list")
@click.argument("app")
@click.argument("store", required=False)
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that start with it.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@click.option("--after", metavar="KEY", help="Start after the last key of the previous page.")
@json_option
@node_options
def state_list(
    app: str,
    store: str | None,
    prefix: str,
    limit: int,
    after: str | None,
    as_json: bool,
    client: Client,
) -> None:
    """List the keys of STORE with their values, or the stores of APP.

    STORE is a name that the app declares, or the full name of a function (`shop.count`): what that keeps for
    itself by `context.state`.
    """
    if store is None:
        if prefix or after:
            raise Misuse(f"`--prefix` and `--after` are of keys: name a store of `{app}` too")
        _list_stores(app, as_json, client)
        return
    found = client.get("state", app, store, prefix=prefix, limit=limit, after=after)
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
        empty=f"`{store}` has no keys" + (f" under `{prefix}`" if prefix else ""),
    )
    if found["after"]:
        click.echo(f"there are more: --after '{found['after']}'", err=True)


def _list_stores(app: str, as_json: bool, client: Client) -> None:
    found = client.get("state", app)["stores"]
    if as_json:
        print_json(found)
        return
    print_table(
        found,
        {
            "store": "store",
            "type": "type",
            "ttl": lambda row: "-" if row["ttl"] is None else f"{row['ttl']:g}s",
            "holds": lambda row: "nothing" if row["is_empty"] else "values",
            "used": lambda row: "yes" if row["is_used"] else "by nobody any more",
        },
        empty=f"app `{app}` has no stores, and its functions keep nothing",
    )


@state_command.command("get")
@click.argument("app")
@click.argument("store")
@click.argument("key")
@json_option
@node_options
def state_get(app: str, store: str, key: str, as_json: bool, client: Client) -> None:
    """Print the value of KEY in a STORE of APP, named as for `list`."""
    found = client.get("state", app, store, key)
    print_json(found if as_json else found["value"])
