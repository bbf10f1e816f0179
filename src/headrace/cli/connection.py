"""Options of every command that talks to a node: its address, and the format of the answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from headrace.client.http import Client

F = TypeVar("F", bound=Callable[..., Any])


def node_options(function: F) -> F:
    """Add `--url` and `--data`; the command gets an open `client`."""

    @click.option(
        "--url", metavar="URL", help="The node's address  [default: HEADRACE_URL, then node.json]."
    )
    @click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The node's data folder, whose node.json holds its address.",
    )
    @functools.wraps(function)
    def with_client(*args: Any, url: str | None, data: Path | None, **kwargs: Any) -> Any:
        with Client(url, data=data) as client:
            return function(*args, client=client, **kwargs)

    return with_client  # type: ignore[return-value]  # the same command, two options richer


def json_option(function: F) -> F:
    """Add `--json`; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(
        function
    )


def split_position(text: str) -> tuple[str, str, str]:
    """`stream/partition/offset` in its three parts.

    Raises:
        click.BadParameter: It is none.
    """
    parts = text.rsplit("/", 2)
    if len(parts) != 3 or not parts[0] or not parts[1].isdigit() or not parts[2].isdigit():
        raise click.BadParameter(
            f"`{text}` is not an event's position; write `stream/partition/offset`, such as `orders/0/42`"
        )
    return parts[0], parts[1], parts[2]
