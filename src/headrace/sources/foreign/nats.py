"""NATS JetStream by a durable pull consumer, with nats-py.

Acknowledgements are confirmed by the server. A message is known by its stream, its number and the
time it was stored, so that a stream re-created under an old name is not mistaken for the old one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import NatsStream
from headrace.sources.foreign.base import DriverContext, ForeignMessage, address_of, lacking
from headrace.sources.foreign.feed import HEADERS_DROPPED, headers_of

try:
    from nats import errors as problems
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import errors as refusals
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
    from nats.js.client import JetStreamContext
except ImportError as error:
    raise lacking("nats", error) from error

WAIT_S = 1.0
TIMEOUT_S = 10.0
CHECK_S = 5.0
"""After so long a silence the server is queried for our consumer."""
STATUS = "Status"
LOST = (problems.Error, OSError, TimeoutError)


class NatsSource:
    """One durable consumer, named after the function."""

    def __init__(self, trigger: NatsStream, around: DriverContext) -> None:
        self._trigger = trigger
        self._durable = trigger.durable or around.name
        self._clock = around.clock
        self._heard = 0.0
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._pull: JetStreamContext.PullSubscription | None = None

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Connect, and make the consumer where there is none."""
        trigger = self._trigger
        try:
            self._client = _Client()
            await self._client.connect(
                [url.strip() for url in trigger.url.split(",")],
                name=self._durable,
                # A failed source is restarted with a pause; a client that reconnects by itself
                # would hide the failure.
                allow_reconnect=False,
                connect_timeout=int(TIMEOUT_S),
                max_reconnect_attempts=1,
                reconnect_time_wait=1,
                error_cb=_quiet,
            )
            stream = self._stream = self._client.jetstream(timeout=TIMEOUT_S)
            self._heard = self._clock.monotonic()
            try:
                # Created only where there is none: an operator's settings of an existing consumer
                # stay as they are.
                await stream.consumer_info(trigger.stream, self._durable)
            except refusals.NotFoundError:
                await stream.add_consumer(trigger.stream, self._config())
            self._pull = await stream.pull_subscribe_bind(self._durable, trigger.stream)
        except refusals.NotFoundError as error:
            raise Unavailable(f"{self._where}: there is no such stream; make it") from error
        except refusals.BadRequestError as error:
            raise Misuse(f"{self._where} refuses the consumer: {error}") from error
        except (problems.AuthorizationError, problems.NoServersError, *LOST) as error:
            if "authorization" in str(error).lower():
                raise Misuse(f"{self._where} refuses the user or password: {error}") from error
            raise self._lost(error) from error
        return places

    async def receive(self, limit: int) -> Sequence[ForeignMessage[Msg]]:
        """The messages that the server has for us, or none after a second."""
        if self._pull is None or self._client is None:
            raise Unavailable(f"{self._where} is not connected")
        try:
            found = await self._pull.fetch(limit, timeout=WAIT_S)
        except (TimeoutError, problems.TimeoutError):
            # A lost connection looks like silence: only the client knows.
            if not self._client.is_connected:
                raise Unavailable(f"{self._where}: the connection is lost") from None
            await self._check()
            return []
        except LOST as error:
            raise self._lost(error) from error
        self._heard = self._clock.monotonic()
        return [self._message(each) for each in found]

    async def acknowledge(self, messages: Sequence[ForeignMessage[Msg]]) -> None:
        """Acknowledge, and wait until the server has confirmed every one."""
        try:
            await asyncio.gather(
                # Confirmed: a plain `ack` is a message that may be lost, and the server would
                # deliver all of it again.
                *(message.receipt.ack_sync(timeout=TIMEOUT_S) for message in messages)
            )
        except LOST as error:
            raise self._lost(error) from error

    async def close(self) -> None:
        """Hang up; what is not acknowledged comes again after `ack_wait`."""
        client, self._client, self._stream, self._pull = self._client, None, None, None
        if client is not None:
            await client.close()

    async def _check(self) -> None:
        """A consumer that was deleted, or whose stream was, is silent too."""
        now = self._clock.monotonic()
        if self._stream is None or now - self._heard < CHECK_S:
            return
        self._heard = now
        try:
            await self._stream.consumer_info(self._trigger.stream, self._durable)
        except refusals.NotFoundError as error:
            raise Unavailable(f"{self._where}: the stream or our consumer was deleted") from error
        except LOST as error:
            raise self._lost(error) from error

    def _config(self) -> ConsumerConfig:
        trigger = self._trigger
        return ConsumerConfig(
            durable_name=self._durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=trigger.ack_wait,
            deliver_policy=DeliverPolicy.ALL if trigger.start == "earliest" else DeliverPolicy.NEW,
            filter_subject=trigger.subject or None,
            # The server then sends no more than this many unacknowledged messages: the bound of
            # our memory.
            max_ack_pending=trigger.in_flight,
        )

    def _message(self, found: Msg) -> ForeignMessage[Msg]:
        about = found.metadata
        stored = round(about.timestamp.timestamp() * 1e6)
        mark = f"{about.stream}/{about.sequence.stream}/{stored}"
        event = Event(
            found.data,
            key=found.subject,
            time=stored,
            id=mark,
            headers=_said(found),
            source=f"nats/{about.stream}",
        )
        return ForeignMessage(event, found, mark=mark)

    @property
    def _where(self) -> str:
        shown = ",".join(address_of(url.strip()) for url in self._trigger.url.split(","))
        return f"NATS stream `{self._trigger.stream}` at {shown}"

    def _lost(self, error: Exception) -> Unavailable:
        return Unavailable(f"{self._where} cannot be reached: {str(error) or type(error).__name__}")


class _Client(Client):
    """The library's client, which takes some messages of others for words of the server, or none.

    What JetStream delivers has an address to be acknowledged at. A header `Status` in it is its
    publisher's; and neither a subject that is not UTF-8 nor headers that are none may end the
    client's reading, since the message would come again for ever.
    """

    async def _process_headers(self, headers: bytes) -> Any:
        try:
            found = await super()._process_headers(headers)
        except (LookupError, ValueError):
            return {HEADERS_DROPPED: f"{len(headers)} bytes"}
        return None if found is None else found | _repeated(headers, found)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any
    ) -> Any:
        shown = bytes(subject).decode("utf-8", "backslashreplace").encode()
        if not reply or not headers or STATUS not in headers:
            return super()._build_message(sid, shown, reply, data, headers)
        others = {name: text for name, text in headers.items() if name != STATUS}
        built = super()._build_message(sid, shown, reply, data, others)
        built.said = headers
        return built


def _repeated(raw: bytes, found: Mapping[Any, str]) -> dict[str, str]:
    """All values of the headers that come several times, of which the library keeps one."""
    lines = (line.partition(b":") for line in raw.split(b"\r\n")[1:])
    pairs = [
        (name.decode("utf-8", "replace").strip(), text.decode("utf-8", "replace").strip())
        for name, colon, text in lines
        if colon
    ]
    count = Counter(name for name, _ in pairs)
    return headers_of(pair for pair in pairs if count[pair[0]] > 1 and pair[0] in found) or {}


def _said(found: Msg) -> dict[str, str] | None:
    """The headers as they were published."""
    headers = getattr(found, "said", found.headers)
    if not headers:
        return None
    return {str(getattr(name, "value", name)): str(text) for name, text in headers.items()}


async def _quiet(error: Exception) -> None:
    """Failures are raised where they are met; the client need not log them too."""
