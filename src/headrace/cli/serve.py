"""`headrace serve` and `headrace dev`: settings come together here, the node's lifecycle does the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from headrace.model.errors import Misuse

F = TypeVar("F", bound=Callable[..., Any])
DEV_DEFAULTS = {"access": "local"}
"""Settings of `headrace dev` where nothing is said; a node that serves trusts no address."""


def _server_options(function: F) -> F:
    for option in reversed(
        (
            click.option(
                "--data",
                type=click.Path(path_type=Path, file_okay=False),
                metavar="DIR",
                help="The data folder, which holds the log and the state  [default: .headrace].",
            ),
            click.option(
                "--host", metavar="NAME", help="The address to listen on  [default: 127.0.0.1]."
            ),
            click.option(
                "--port",
                type=click.IntRange(0, 65_535),
                help="The port to listen on; 0 takes a free one  [default: 4280].",
            ),
            click.option(
                "--api-port",
                type=click.IntRange(0, 65_535),
                help="A port for the platform's own paths alone  [default: they share the other].",
            ),
            click.option(
                "--config",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="The settings file  [default: headrace.toml, if it is there].",
            ),
            click.option(
                "--allow-host",
                "allowed_hosts",
                multiple=True,
                metavar="NAME",
                help="A host name that the node accepts besides its own; may be repeated.",
            ),
            click.option(
                "--set",
                "chosen",
                multiple=True,
                metavar="APP.NAME=VALUE",
                help="Give a setting of an app a value; may be repeated.",
            ),
            click.option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"]),
                help="The lowest level of the node's own log lines.",
            ),
        )
    ):
        function = option(function)
    return function


@click.command("serve")
@click.argument("targets", nargs=-1)
@_server_options
def serve_command(targets: tuple[str, ...], **options: Any) -> int:
    """Run the apps TARGETS (`app.py`, a folder, `package.module:app`) as a node."""
    return _run(targets, is_dev=False, options=options)


@click.command("dev")
@click.argument("targets", nargs=-1)
@click.option("--quiet", is_flag=True, help="Print only what fails: warnings and errors.")
@click.option(
    "--only",
    multiple=True,
    metavar="FUNCTION",
    help="Print only what this function or app does; may be repeated.",
)
@_server_options
def dev_command(targets: tuple[str, ...], **options: Any) -> int:
    """Run the apps TARGETS here, print what they do, and reload them when their files change."""
    return _run(targets, is_dev=True, options=options)


def _run(targets: tuple[str, ...], *, is_dev: bool, options: dict[str, Any]) -> int:
    from headrace.node.config import load

    quiet, only = options.pop("quiet", False), options.pop("only", ())
    file, chosen = options.pop("config"), options.pop("chosen")
    options["allowed_hosts"] = options["allowed_hosts"] or None
    settings = load(
        {"targets": targets or None, "reload": is_dev or None, **options},
        file=file,
        chosen=chosen,
        usual=DEV_DEFAULTS if is_dev else None,
    )
    if not settings.targets:
        raise Misuse(
            "no app is named; write `headrace "
            f"{'dev' if is_dev else 'serve'} app.py`, or set `targets` in headrace.toml"
        )
    from headrace.node.dev_output import OutputSelection
    from headrace.node.lifecycle import run

    return run(settings, OutputSelection(quiet, only) if is_dev else None)
