"""Routes of streams: publish to them, list them, browse their records."""

from __future__ import annotations

from typing import Any

from headrace.environment.time_slices import Slices
from headrace.http.api.records import (
    MAX_RECORDS,
    MAX_WAIT_S,
    cursor_text,
    parse_cursor,
    read_page,
    starting_cursor,
    wait_page,
)
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.pipeline.event_bodies import PUBLISHING, read_events
from headrace.http.pipeline.event_times import parse_time
from headrace.http.pipeline.read_access import Owners, authorize_reader
from headrace.http.request import IncomingRequest
from headrace.http.response import Response, json_list, json_response, published_view
from headrace.model.errors import Invalid, Refused
from headrace.model.function import StreamSpec
from headrace.model.numeric_text import whole

MAX_OFFSET = (1 << 63) - 1
BROWSING = ("cursor", "partition", "offset", "from", "limit", "wait")


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("POST", "/streams/{stream}", publish, query=PUBLISHING)
    routes.add("GET", "/streams", list_streams)
    routes.add("GET", "/streams/{stream}", show_stream)
    routes.add("GET", "/streams/{stream}/records", browse, query=BROWSING)


async def publish(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Take events in; answered 202 once they are on the disk."""
    stream = context.services.broker.stream(names[0])
    if stream.private or stream.name.startswith("_"):
        raise Refused(
            f"stream `{stream.name}` is private to app `{stream.owner}`; "
            "publish to one of its public streams, or declare it without `private=True`"
        )
    events = await read_events(request, stream)
    found = await context.services.publisher.publish(stream.name, events)
    context.metrics.published(
        stream.name,
        events=len(events),
        duplicates=found.duplicates,
        size=sum(len(event.value) for event in events),
    )
    return json_response(published_view(found), status=202)


async def list_streams(context: ApiContext, _: IncomingRequest, __: tuple[str, ...]) -> Response:
    """Every stream with what it holds."""
    slices = Slices(context.services.clock)
    found = [
        await _summary(context, spec)
        async for spec in slices.over(context.services.broker.streams())
    ]
    return await json_list("streams", found, slices)


async def show_stream(context: ApiContext, _: IncomingRequest, names: tuple[str, ...]) -> Response:
    """One stream, partition by partition."""
    spec = context.services.broker.stream(names[0])
    shown = await _summary(context, spec)
    shown["extents"] = []
    for number in range(spec.partitions):
        extent = await context.services.broker.extent(spec.name, number)
        shown["extents"].append(
            {"partition": number, "low": extent.low, "high": extent.high, "bytes": extent.bytes}
        )
    shown["schema"] = spec.schema
    return json_response(shown)


async def _summary(context: ApiContext, spec: StreamSpec) -> dict[str, Any]:
    extents = [
        await context.services.broker.extent(spec.name, number) for number in range(spec.partitions)
    ]
    return {
        "name": spec.name,
        "owner": spec.owner,
        "partitions": spec.partitions,
        "private": spec.private,
        "codec": spec.codec,
        "cleanup": spec.cleanup,
        "retention_age": spec.retention_age,
        "retention_bytes": spec.retention_bytes,
        "dedupe_window": spec.dedupe_window,
        "max_event_bytes": spec.max_event_bytes,
        "records": sum(extent.high - extent.low for extent in extents),
        "bytes": sum(extent.bytes for extent in extents),
        "readers": context.services.supervisor.readers(spec.name),
    }


async def browse(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """A page of records, from a cursor or a place; with `wait`, a long poll."""
    spec = context.services.broker.stream(names[0])
    await authorize_reader(context, request, Owners(context).of_stream(spec.name))
    limit = request.number("limit", 100, low=1, high=MAX_RECORDS)
    seconds = request.seconds("wait", 0.0, high=MAX_WAIT_S) or 0.0
    if (text := request.query.get("cursor")) is not None:
        cursor = parse_cursor(text, spec)
    else:
        partition = (
            request.number("partition", 0, high=1_000_000) if "partition" in request.query else None
        )
        start = request.query.get("offset", request.query.get("from", "earliest"))
        cursor = await starting_cursor(context.services.broker, spec, partition, place(start))
    if seconds:
        context.admission.start_waiting()
        left = context.tasks.start(request.wait_left(), name="long poll")
        try:
            page = await wait_page(
                context.services.broker,
                spec,
                cursor,
                limit,
                seconds=seconds,
                clock=context.services.clock,
                over=lambda: left.done() or context.closing.is_set(),
            )
        finally:
            left.cancel()
            context.admission.stop_waiting()
    else:
        page = await read_page(
            context.services.broker, spec, cursor, limit, Slices(context.services.clock)
        )
    slices = Slices(context.services.clock)
    return await json_list("records", page.records, slices, cursor=cursor_text(page.cursor))


def place(text: str) -> str:
    """A place in a stream as the log knows it: RFC 3339 times become `@micros`.

    Raises:
        Invalid: It is neither a known place nor a time.
    """
    digits = text.removeprefix("@")
    # `isdigit` alone accepts `²`, which `int` does not.
    number = whole(digits) if digits.isascii() and digits.isdigit() else None
    # SQLite's integers have a sign: a larger one would be an error of the node's.
    is_number = number is not None and number <= MAX_OFFSET
    if text in {"earliest", "latest"} or is_number:
        return text
    try:
        return f"@{parse_time(text)}"
    except Invalid as error:
        raise Invalid(
            f"`{text:.80}` is not a place in a stream; write `earliest`, `latest`, an offset, "
            "or a time like `2026-01-31T12:00:00Z`"
        ) from error
