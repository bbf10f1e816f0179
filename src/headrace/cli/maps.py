"""The function-trigger map, of a node or of code that is not deployed: as a table, and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from headrace.cli.connection import json_option, node_options
from headrace.cli.functions import NOTHING
from headrace.cli.output import print_json
from headrace.cli.source_status import print_failing
from headrace.client.http import Client

LANGUAGES = ("mermaid", "dot")


@click.command("map")
@click.argument("targets", nargs=-1)
@json_option
@node_options
def map_command(targets: tuple[str, ...], as_json: bool, client: Client) -> None:
    """Print every function with its streams, triggers, policies, version and owner.

    With TARGETS (`app.py`, a folder, `package.module:app`) it is read from their code, without a node.
    """
    rows = _rows(targets, client)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(NOTHING)
        return
    import msgspec

    from headrace.topology.map import MapRow, map_table, secret_notes

    click.echo(map_table(msgspec.convert(rows, list[MapRow])))
    for note in dict.fromkeys(
        note for kind in ("stores", "settings") for row in rows for note in row[kind]
    ):
        click.echo(note)
    users: dict[str, dict[str, None]] = {}
    for row in rows:
        for name in row["secrets"]:
            users.setdefault(name, {})[row["function"]] = None
    for note in secret_notes({name: list(each) for name, each in users.items()}):
        click.echo(note)
    print_failing(rows)


@click.command("graph")
@click.argument("targets", nargs=-1)
@click.option(
    "--format",
    "language",
    type=click.Choice(LANGUAGES),
    default="mermaid",
    show_default=True,
    help="The output format.",
)
@node_options
def graph_command(targets: tuple[str, ...], language: str, client: Client) -> None:
    """Print the topology for a drawing tool: of the node, or of the code of TARGETS."""
    import msgspec

    from headrace.topology.diagram import graphviz, mermaid
    from headrace.topology.map import MapRow

    rows = msgspec.convert(_rows(targets, client), list[MapRow])
    click.echo(mermaid(rows) if language == "mermaid" else graphviz(rows))


def _rows(targets: Sequence[str], client: Client) -> list[dict[str, Any]]:
    """The map's rows; those of a node say how its triggers stand, too."""
    if not targets:
        found: list[dict[str, Any]] = client.get("map")["map"]
        return found
    import msgspec

    from headrace.cli.validate import inspect
    from headrace.node.config import load, surroundings_of
    from headrace.topology.map import map_rows

    import_environment = surroundings_of(load())
    apps = [inspect(each, import_environment) for each in targets]
    rows: list[dict[str, Any]] = msgspec.to_builtins(map_rows(apps))
    return rows
