"""`headrace publish`: one value from the command line, or a whole file in batches.

Every batch carries an idempotency key, so that one that is sent twice (the connection broke, the node
was restarted) lands once. A node that is overloaded is waited for.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from headrace.cli.connection import json_option, node_options
from headrace.cli.duration_type import DurationType
from headrace.cli.input_lines import Fields, csv_lines, jsonl_lines, text_lines
from headrace.cli.output import plural, print_json
from headrace.client import calls
from headrace.client.http import Client
from headrace.client.responses import retry_after_of
from headrace.client.views import PublishResult
from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.model.errors import HeadraceError, Refused, Unavailable
from headrace.model.policy import MAX_DELAY

MAX_BATCH_BYTES = 4 << 20
MAX_RETRIES = 60

Reading = Callable[[Iterable[bytes], Fields, str], Iterator[bytes]]


@click.command("publish")
@click.argument("stream")
@click.argument("value", required=False)
@click.option("--file", "source", metavar="FILE", help="Publish every line of FILE (`-`: stdin).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "text"]),
    help="The format of FILE  [default: by its name, else jsonl].",
)
@click.option(
    "--types",
    type=click.Choice(["declared", "text"]),
    default="declared",
    show_default=True,
    help="The types of CSV fields: the stream's declared type, or texts.",
)
@click.option("--key", metavar="TEXT", help="The key of the event, or of every line.")
@click.option("--key-field", metavar="NAME", help="The field whose value is the key.")
@click.option(
    "--time-field",
    metavar="NAME",
    help="The field that says when it happened (RFC 3339 or seconds).",
)
@click.option("--id-field", metavar="NAME", help="The field that identifies a repeated event.")
@click.option(
    "--id",
    "event_id",
    metavar="TEXT",
    help="The id of the event, which identifies repetitions and can be cancelled.",
)
@click.option(
    "--delay",
    type=DurationType(0, MAX_DELAY),
    metavar="SPAN",
    help="To a queue: how long every message waits, such as `24h`.",
)
@click.option(
    "--at", metavar="TIME", help="To a queue: when the messages may be received (RFC 3339)."
)
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=1_000,
    show_default=True,
    help="Events in one request.",
)
@json_option
@node_options
def publish_command(
    stream: str,
    value: str | None,
    source: str | None,
    form: str | None,
    types: str,
    key: str | None,
    key_field: str | None,
    time_field: str | None,
    id_field: str | None,
    event_id: str | None,
    delay: float | None,
    at: str | None,
    batch: int,
    as_json: bool,
    client: Client,
) -> None:
    """Publish VALUE (JSON), or the lines of a file, on STREAM."""
    if (value is None) == (source is None):
        raise click.UsageError("Give one VALUE, or a file with `--file`.")
    if source is None:
        if key_field or time_field or id_field or form:
            raise click.UsageError(
                "`--format`, `--key-field`, `--time-field` and `--id-field` are about the lines of "
                "a file; give one with `--file`."
            )
        found = client.run(
            calls.publish(
                "streams",
                stream,
                (value or "").encode(),
                key=key,
                id=event_id,
                delay=delay,
                at=at,
                idempotency_key=SystemEntropy().token(),
            )
        )
        if as_json:
            print_json(msgspec.to_builtins(found))
        else:
            click.echo(_result_of(found, stream, event_id))
        return
    if event_id is not None:
        raise click.UsageError("`--id` is the id of one event; for a file give `--id-field`.")
    fields = Fields(key=key, key_field=key_field, time_field=time_field, id_field=id_field)
    form = form or {".csv": "csv", ".txt": "text"}.get(Path(source).suffix.lower(), "jsonl")
    schema = _schema(client, stream) if form == "csv" and types == "declared" else None
    when = {"delay": delay, "at": at}
    published, duplicates = _publish_file(client, stream, source, form, fields, batch, schema, when)
    if as_json:
        print_json({"stream": stream, "published": published, "duplicates": duplicates})
    else:
        dropped = f", {plural(duplicates, 'duplicate')} dropped" if duplicates else ""
        click.echo(f"published {plural(published, 'event')} on `{stream}`{dropped}")


def _result_of(found: PublishResult, stream: str, event_id: str | None) -> str:
    """Report the result of one event."""
    if found.delayed:
        cancel = (
            ""
            if event_id is None
            else f"; `headrace queue cancel {stream} {event_id}` takes it back"
        )
        return f"kept for `{stream}` until it is due{cancel}"
    if found.duplicates:
        return f"dropped: `{stream}` has had an event of this id"
    return f"published {found.positions[0]}"


def _publish_file(
    client: Client,
    stream: str,
    source: str,
    form: str,
    fields: Fields,
    batch: int,
    schema: Mapping[str, Any] | None,
    when: Mapping[str, Any],
) -> tuple[int, int]:
    readings: dict[str, Reading] = {
        "jsonl": jsonl_lines,
        "csv": functools.partial(csv_lines, schema=schema),
        "text": text_lines,
    }
    read = readings[form]
    file, size = _opened(source)
    token = SystemEntropy().token(8)
    published = duplicates = 0
    try:
        with file:
            counted = Counted(file)
            for number, lines in enumerate(
                _with_progress(batches(read(counted, fields, source), batch), counted, size)
            ):
                found = send(client, stream, b"\n".join(lines), f"{token}-{number}", when)
                duplicates += found.duplicates
                published += len(lines) - found.duplicates
    except (HeadraceError, KeyboardInterrupt) as error:
        # Who sends the file again wants to know what of it is there already.
        if sent := published + duplicates:
            least = "at least " if isinstance(error, KeyboardInterrupt | Unavailable) else ""
            click.echo(f"of `{source}` {least}the first {plural(sent, 'event')} went out", err=True)
        raise
    return published, duplicates


def _schema(client: Client, stream: str) -> Mapping[str, Any] | None:
    """Schema of the stream's values, if its owner gave one."""
    try:
        found: Mapping[str, Any] | None = client.get("streams", stream)["schema"]
    except Refused:
        # A token that may only publish here.
        click.echo(
            f"the type of `{stream}` may not be read with this token, so fields are sent as texts",
            err=True,
        )
        return None
    return found


def _opened(source: str) -> tuple[BinaryIO, int]:
    if source == "-":
        return sys.stdin.buffer, 0
    path = Path(source)
    try:
        return path.open("rb"), path.stat().st_size
    except OSError as error:
        raise click.BadParameter(
            f"`{source}` cannot be read: {error.strerror}", param_hint="--file"
        ) from error


def batches(lines: Iterable[bytes], most: int) -> Iterator[list[bytes]]:
    """Lines in lists of up to `most`, none of them larger than a request should be."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= most or size + len(line) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line) + 1
    if batch:
        yield batch


def send(
    client: Client, stream: str, body: bytes, token: str, when: Mapping[str, Any] | None = None
) -> PublishResult:
    """Publish a batch, waiting for a node that is overloaded, full or away.

    Raises:
        HeadraceError: The node refuses it, or stays away.
    """
    clock = SystemClock()
    for attempt in range(MAX_RETRIES + 1):
        try:
            return client.run(
                calls.publish(
                    "streams",
                    stream,
                    body,
                    media=calls.ENVELOPES,
                    idempotency_key=token,
                    **(when or {}),
                )
            )
        except Unavailable as error:
            seconds = retry_after_of(error)
            # What was never reached at the first try is more likely a wrong address than a pause.
            if attempt == MAX_RETRIES or (seconds is None and token.endswith("-0")):
                raise
            if attempt == 0:
                click.echo(f"waiting: {error}", err=True)
            clock.pause(1.0 if seconds is None else seconds)
    raise HeadraceError("unreachable: the loop above returns or raises")


class Counted:
    """A file that knows how many bytes of it were read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            self.bytes += len(line)
            yield line


def _with_progress(
    lists: Iterable[list[bytes]], counted: Counted, size: int
) -> Iterator[list[bytes]]:
    """The same lists, with a progress bar on stderr where that is a terminal."""
    if not size or not sys.stderr.isatty():
        yield from lists
        return
    clock = SystemClock()
    began = clock.monotonic()
    events = 0

    def speed(read: int | None) -> str:
        rate = events / max(clock.monotonic() - began, 0.001)
        return "" if read is None else f"{events:,} events, {rate:,.0f}/s"

    with click.progressbar(
        length=size, label="publish", file=sys.stderr, item_show_func=speed, show_pos=False
    ) as bar:
        for batch in lists:
            yield batch
            events += len(batch)
            bar.update(counted.bytes - bar.pos, counted.bytes)
