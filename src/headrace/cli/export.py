"""`headrace export`: descriptions of what is deployed, for other tools to read."""

from __future__ import annotations

import click

from headrace.cli.command_groups import CommandGroup
from headrace.cli.connection import node_options
from headrace.cli.output import print_json
from headrace.client.http import Client


@click.group("export", cls=CommandGroup)
def export_command() -> None:
    """Export a description of the deployment for other tools."""


@export_command.command("openapi")
@click.argument("targets", nargs=-1)
@node_options
def export_openapi(targets: tuple[str, ...], client: Client) -> None:
    """Print the routes as OpenAPI 3.1: of the node, or of TARGETS (`app.py`) without one."""
    if not targets:
        print_json(client.request("GET", ("openapi.json",), at_root=True).json())
        return
    from headrace.cli.validate import inspect
    from headrace.node.config import load, surroundings_of
    from headrace.topology.openapi import document

    import_environment = surroundings_of(load())
    print_json(document([inspect(target, import_environment) for target in targets]))
