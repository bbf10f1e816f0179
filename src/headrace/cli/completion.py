"""`headrace completion`: the script a shell sources to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL; source it from the shell's start-up file."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choice above names only what click knows
    root = context.find_root().command
    click.echo(kind(root, {}, "headrace", "_HEADRACE_COMPLETE").source())
