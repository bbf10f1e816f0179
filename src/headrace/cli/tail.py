"""`headrace tail`: a stream's latest events, and those that come."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli.connection import json_option, node_options
from headrace.cli.output import print_json_line, short_time, value_text
from headrace.client.http import Client

_PAGE = 500
_WAIT_S = 20


@click.command("tail")
@click.argument("stream")
@click.option(
    "--from",
    "start",
    metavar="PLACE",
    help="earliest, latest, an offset, or a time like 2026-01-31T12:00:00Z  [default: the last N].",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    help="Events to show  [default: 10, or all with --from].",
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing events as they arrive.")
@click.option("--partition", type=click.IntRange(min=0), help="Only this partition.")
@json_option
@node_options
def tail_command(
    stream: str,
    start: str | None,
    limit: int | None,
    follow: bool,
    partition: int | None,
    as_json: bool,
    client: Client,
) -> None:
    """Show STREAM's latest events; with -f, go on as they arrive."""
    if start is None:
        count = 10 if limit is None else limit
        cursor = _last(client, stream, partition, count)
        records, cursor = _all(client, stream, cursor)
        records = records[-count:] if count else []
        for record in records:
            _print(record, as_json)
        left = None
    else:
        left = limit
        found = client.get(
            "streams", stream, "records", limit=_page(left), partition=partition, **{"from": start}
        )
        cursor, left = _show(found, left, as_json)
        while left != 0 and found["records"]:
            found = client.get("streams", stream, "records", limit=_page(left), cursor=cursor)
            cursor, left = _show(found, left, as_json)
    while follow and left != 0:
        found = client.get(
            "streams", stream, "records", limit=_page(left), cursor=cursor, wait=_WAIT_S
        )
        cursor, left = _show(found, left, as_json)


def _page(left: int | None) -> int:
    return _PAGE if left is None else max(1, min(_PAGE, left))


def _last(client: Client, stream: str, partition: int | None, count: int) -> str:
    extents = client.get("streams", stream)["extents"]
    if partition is not None and partition >= len(extents):
        raise click.BadParameter(
            f"stream `{stream}` has partitions 0 to {len(extents) - 1}", param_hint="--partition"
        )
    chosen = extents if partition is None else [extents[partition]]
    return ",".join(
        f"{extent['partition']}:{max(extent['low'], extent['high'] - count)}" for extent in chosen
    )


def _all(client: Client, stream: str, cursor: str) -> tuple[list[dict[str, Any]], str]:
    records: list[dict[str, Any]] = []
    while True:
        found = client.get("streams", stream, "records", limit=_PAGE, cursor=cursor)
        cursor = found["cursor"]
        if not found["records"]:
            return records, cursor
        records.extend(found["records"])


def _show(found: dict[str, Any], left: int | None, as_json: bool) -> tuple[str, int | None]:
    for record in found["records"]:
        _print(record, as_json)
    return found["cursor"], None if left is None else max(0, left - len(found["records"]))


def _print(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json_line(record)
    else:
        click.echo(
            f"{record['position']}  {short_time(record['appended'])}  "
            f"{record.get('key', '-')}  {value_text(record)}"
        )
