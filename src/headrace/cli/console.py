"""`headrace console`: the link by which a browser is let into the console, good once."""

from __future__ import annotations

import click

from headrace.cli.connection import node_options
from headrace.client.http import Client


@click.command("console")
@node_options
def console_command(client: Client) -> None:
    """Print a link that signs one browser in to the console."""
    click.echo(f"{client.url}{client.post('console', 'links')['path']}")
