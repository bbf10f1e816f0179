"""Options of every command that talks to a node: its address, and the format of the answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from headrace.client.http import Client
from headrace.model.errors import Misuse

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
        with connect(url, data) as client:
            return function(*args, client=client, **kwargs)

    return with_client  # type: ignore[return-value]  # the same command, two options richer


def json_option(function: F) -> F:
    """Add `--json`; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(
        function
    )


def connect(url: str | None, data: Path | None) -> Client:
    """A client of the node that is meant; what is typed wins over the environment.

    Raises:
        Misuse: No node runs on the data folder that was named.
    """
    from headrace.client.address import client_address, read_note

    if url is None and data is not None and read_note(data) is None:
        # The user did not mean another node, perhaps to delete there.
        raise Misuse(
            f"no node runs on the data folder `{data}`: it holds no `node.json`; start one with "
            f"`headrace serve app.py --data {data}`, or name another folder"
        )
    # What is typed wins: the environment names no node where a folder was named.
    note = read_note(data) if url is None and data is not None else None
    found = client_address(url if note is None else note.api, data=data)
    return Client(found.url, token=found.token, certificate=found.certificate)


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
