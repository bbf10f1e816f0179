"""Routes of queues: send, receive, acknowledge, give back, keep longer; count, look, redrive, purge.

The first are for programs outside, the others for operators; the app's functions listen to a queue without any of this. A receipt that is no
longer good is reported, not raised: the other receipts of the request are dealt with all the same.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec

from headrace.admin.queues import QueuedMessage
from headrace.delivery.queues.external_consumers import LeasedMessage
from headrace.environment.time_slices import Slices
from headrace.http.context import ApiContext
from headrace.http.pipeline.api_routes import Routes
from headrace.http.pipeline.event_bodies import PUBLISHING, read_events
from headrace.http.pipeline.read_access import Owners, authorize_reader
from headrace.http.request import IncomingRequest
from headrace.http.response import (
    Response,
    event_view,
    json_list,
    json_response,
    published_view,
    rfc3339,
    view,
)
from headrace.model.durations import MaybeSeconds, Seconds, keep_seconds
from headrace.model.errors import Invalid, Refused, Unknown
from headrace.model.function import StreamSpec
from headrace.model.policy import MAX_MESSAGES, MAX_VISIBILITY
from headrace.model.policy_struct import default
from headrace.storage.log.queue_leases import place_of
from headrace.topology.external_consumers import consumer_name

MAX_WAIT_S = 20.0
MAX_PEEKED = 1_000

Receipts = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]


class ReceiveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How many messages, how long to wait for one, and how long they are the asker's."""

    max: Annotated[int, msgspec.Meta(ge=1, le=MAX_MESSAGES)] = 1
    wait: Seconds = default(0.0)
    visibility: MaybeSeconds = default(None)

    def __post_init__(self) -> None:
        """Keep times as seconds."""
        keep_seconds(self, "wait", low=0, high=MAX_WAIT_S, what="`wait`")
        keep_seconds(self, "visibility", low=0, high=MAX_VISIBILITY, what="`visibility`")


class PurgeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """That everything is meant."""

    all: bool = False


class Cancelling(msgspec.Struct, forbid_unknown_fields=True):
    """The ids of messages that are not to be delivered."""

    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]


class SettleRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What is said of messages that were received.

    Attributes:
        receipts: One to a hundred.
        delay: `nack`: the time before they may be received again.
        seconds: `extend`: how long they are kept, from now.
        reason: `nack`: why, for the dead letter.
    """

    receipts: Receipts
    delay: Seconds = default(0.0)
    seconds: Seconds = default(0.0)
    reason: str = ""

    def __post_init__(self) -> None:
        """Keep times as seconds."""
        for name in ("delay", "seconds"):
            keep_seconds(self, name, low=0, high=MAX_VISIBILITY, what=f"`{name}`")


def add_routes(routes: Routes) -> None:
    """Put this file's handlers into the table."""
    routes.add("GET", "/queues", list_queues)
    routes.add("GET", "/queues/{queue}", show)
    routes.add("GET", "/queues/{queue}/messages", peek, query=("limit", "group"))
    routes.add("POST", "/queues/{queue}", send, query=PUBLISHING)
    routes.add("POST", "/queues/{queue}/cancel", cancel, body=Cancelling)
    routes.add("POST", "/queues/{queue}/receive", receive, body=ReceiveRequest)
    routes.add("POST", "/queues/{queue}/ack", acknowledge, body=SettleRequest)
    routes.add("POST", "/queues/{queue}/nack", refuse, body=SettleRequest)
    routes.add("POST", "/queues/{queue}/extend", extend, body=SettleRequest)
    routes.add("POST", "/queues/{queue}/redrive", redrive)
    routes.add("POST", "/queues/{queue}/purge", purge, body=PurgeRequest)


async def send(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Put messages on the queue; `delay` or `at`, and `priority` in the query are for all of them."""
    spec, _ = _queue(context, names[0])
    if spec.private:
        raise Refused(f"queue `{spec.name}` is private to app `{spec.owner}`")
    events = await read_events(request, spec)
    found = await context.services.publisher.publish(spec.name, events)
    return json_response(published_view(found), status=202)


async def cancel(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Take back messages that wait for their time, by their ids."""
    spec, _ = _queue(context, names[0])
    await authorize_reader(context, request, Owners(context).of_stream(spec.name))
    asked = await request.json(Cancelling)
    found = await context.services.publisher.cancel(spec.name, asked.ids)
    left = [id for id in asked.ids if id not in set(found)]
    return json_response({"cancelled": found, "unknown": left})


async def receive(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """Messages, each with the receipt that is needed to say anything about it."""
    spec, group = _queue(context, names[0])
    await authorize_reader(context, request, Owners(context).of_stream(spec.name))
    asked = await request.json(ReceiveRequest)
    receive = context.services.supervisor.queues.receive
    if not asked.wait:
        messages = await receive(group, most=asked.max, visibility=asked.visibility)
    else:
        context.admission.start_waiting()
        # A message must not be leased to a client that is gone.
        over = context.tasks.start(_over(context, request), name="long poll")
        try:
            messages = await receive(
                group, most=asked.max, wait=asked.wait, visibility=asked.visibility, over=over
            )
        finally:
            over.cancel()
            context.admission.stop_waiting()
    shown = (_view(message, spec) for message in messages)
    return await json_list("messages", shown, Slices(context.services.clock))


async def _over(context: ApiContext, request: IncomingRequest) -> None:
    """Return once the client is gone, or the HTTP server closes."""
    ends = [
        context.tasks.start(request.wait_left(), name="long poll, its client"),
        context.tasks.start(_closing(context), name="long poll, the server"),
    ]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


async def _closing(context: ApiContext) -> None:
    await context.closing.wait()


async def acknowledge(
    context: ApiContext, request: IncomingRequest, names: tuple[str, ...]
) -> Response:
    """These messages are done."""
    _, group = _queue(context, names[0])
    said = await request.json(SettleRequest)
    queues = context.services.supervisor.queues
    return await _each(said.receipts, lambda receipt: queues.acknowledge(group, receipt))


async def refuse(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Give these messages back."""
    _, group = _queue(context, names[0])
    said = await request.json(SettleRequest)
    queues = context.services.supervisor.queues
    return await _each(
        said.receipts,
        lambda receipt: queues.refuse(group, receipt, delay=said.delay, reason=said.reason),
    )


async def extend(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Keep these messages for `seconds` from now."""
    _, group = _queue(context, names[0])
    said = await request.json(SettleRequest)
    if said.seconds <= 0:
        raise Invalid("`seconds` is missing; say for how long the messages are to be kept")
    queues = context.services.supervisor.queues
    return await _each(said.receipts, lambda receipt: queues.extend(group, receipt, said.seconds))


async def redrive(context: ApiContext, __: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Deliver every dead message again, to the consumer that gave it up."""
    return json_response({"redriven": await context.services.queues.redrive(names[0])})


async def purge(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """Let everything that is in the queue count as done; it has to be said: `{"all": true}`."""
    if not (await request.json(PurgeRequest)).all:
        raise Invalid('say that you mean it: `{"all": true}`')
    return json_response(view(await context.services.queues.purge(names[0])))


async def list_queues(context: ApiContext, __: IncomingRequest, ___: tuple[str, ...]) -> Response:
    """Every queue with what is in it."""
    rows = await context.services.queues.rows()
    return await json_list("queues", map(view, rows), Slices(context.services.clock))


async def peek(context: ApiContext, request: IncomingRequest, names: tuple[str, ...]) -> Response:
    """The first messages, without leasing them."""
    limit = request.number("limit", 10, low=1, high=MAX_PEEKED)
    context.services.queues.spec(names[0])
    await authorize_reader(context, request, Owners(context).of_stream(names[0]))
    found = await context.services.queues.peek(names[0], request.query.get("group"), limit=limit)
    return await json_list("messages", map(_seen, found), Slices(context.services.clock))


async def show(context: ApiContext, __: IncomingRequest, names: tuple[str, ...]) -> Response:
    """The queue's settings and what is in it, in all and for each reader."""
    row = await context.services.queues.row(names[0])
    group = consumer_name(row.owner, row.queue)
    offered, leased = context.services.supervisor.queues.counts(group)
    unfinished = max((each.waiting + each.in_flight for each in row.readers), default=0)
    shown: dict[str, Any] = view(row)
    return json_response(
        shown | {"group": group, "unfinished": unfinished, "offered": offered, "leased": leased}
    )


def _seen(seen: QueuedMessage) -> dict[str, Any]:
    return {
        "position": seen.position or None,
        "state": seen.state,
        "receives": seen.receives,
        "until": rfc3339(seen.until) if seen.until else None,
        "appended": rfc3339(seen.appended) if seen.appended else None,
        **event_view(seen.event),
    }


async def _each(receipts: list[str], say: Callable[[str], Awaitable[bool]]) -> Response:
    for receipt in receipts:
        # What is not a receipt at all refuses the request before anything is said of the others.
        place_of(receipt)
    stale = [receipt for receipt in receipts if not await say(receipt)]
    return json_response({"settled": len(receipts) - len(stale), "stale": stale})


def _queue(context: ApiContext, name: str) -> tuple[StreamSpec, str]:
    spec = context.services.broker.stream(name)
    if spec.queue is None:
        raise Unknown(f'`{name}` is a stream, not a queue; declare it with `app.queue("{name}")`')
    return spec, consumer_name(spec.owner, spec.name)


def _view(message: LeasedMessage, spec: StreamSpec) -> dict[str, Any]:
    event = message.event
    shown: dict[str, Any] = {
        "receipt": message.receipt,
        "position": str(message.position),
        "attempt": message.attempt,
        "key": event.key,
        "id": event.id,
        "headers": event.headers or {},
        "until": rfc3339(message.until),
    }
    if spec.codec == "json":
        shown["value"] = msgspec.Raw(event.value)
    elif spec.codec == "text":
        shown["value_text"] = event.value.decode()
    else:
        shown["value_base64"] = base64.b64encode(event.value).decode()
    return shown
