"""Commands that make, list and revoke the tokens clients bring."""

from __future__ import annotations

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import json_option, node_options
from headrace.cli.duration_type import DurationType
from headrace.cli.output import print_json, print_table
from headrace.client import calls
from headrace.client.http import Client
from headrace.model.policy import MAX_LIFETIME_S


@click.group("token", cls=CommandGroup)
def token_command() -> None:
    """Create, list and revoke tokens."""


@token_command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help="A scope that it grants, such as `orders:write`; may be repeated.",
)
@click.option(
    "--expires",
    type=DurationType(1, MAX_LIFETIME_S),
    metavar="SPAN",
    help="How long it is valid, such as `90d`  [default: until revoked].",
)
@json_option
@node_options
def token_create(
    name: str, scopes: tuple[str, ...], expires: float | None, as_json: bool, client: Client
) -> None:
    """Create a token called NAME, and print it. It is shown only once."""
    made = client.post("tokens", data={"name": name, "scopes": scopes, "lifetime": expires})
    if as_json:
        print_json(made)
        return
    click.echo(made["token"])
    click.echo(f"keep it safe: the node knows only its hash (id {made['id']})", err=True)


@token_command.command("list")
@json_option
@node_options
def token_list(as_json: bool, client: Client) -> None:
    """List tokens, including revoked and expired ones."""
    found = client.get("tokens")["tokens"]
    if as_json:
        print_json(found)
        return
    print_table(
        found,
        {
            "id": "id",
            "name": "name",
            "scopes": lambda row: " ".join(row["scopes"]),
            "created": "created",
            "expires": "expires",
            "revoked": "revoked",
        },
        empty="there are no tokens; `headrace token create NAME --scope SCOPE` makes one",
    )


@token_command.command("revoke")
@click.argument("token")
@node_options
def token_revoke(token: str, client: Client) -> None:
    """Revoke the token with the id TOKEN."""
    found = client.run(calls.delete(("tokens", token)))
    click.echo(f"token `{found['name']}` ({found['id']}) counts no more")
