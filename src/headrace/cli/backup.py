"""`headrace backup`: a copy of what a node keeps, while it runs or not."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("backup")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".headrace"),
    envvar="HEADRACE_DATA",
    metavar="DIR",
    help="The node's data folder  [default: .headrace].",
)
def backup_command(target: Path, data: Path) -> None:
    """Copy all data of the node into the new file TARGET, except the files in apps' own folders."""
    from headrace.storage.kv.sqlite.backup import back_up

    size = back_up(data, target)
    click.echo(f"wrote `{target}`: {size:,} bytes, checked")
    if kept := _folders(data):
        click.echo(f"not in it, copy them too: {', '.join(f'`{each}`' for each in kept)}")


def _folders(data: Path) -> list[Path]:
    """The folders of apps that keep files of their own there."""
    from headrace.runtime.app_folders import FILES

    try:
        return sorted(each for each in (data / FILES).iterdir() if any(each.iterdir()))
    except OSError:
        return []
