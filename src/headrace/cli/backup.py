"""`headrace backup`: a copy of what a node keeps, while it runs or not."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("backup")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=Path(".headrace"),
    envvar="HEADRACE_DATA", metavar="DIR", help="The node's data folder  [default: .headrace].",
)  # fmt: skip
def backup_command(target: Path, data: Path) -> None:
    """Copy all that the node keeps into the new file TARGET."""
    from headrace.keepers.storage.sqlite.backup import back_up

    size = back_up(data, target)
    click.echo(f"wrote `{target}`: {size:,} bytes, checked")
