"""MQTT 5 topics by a persistent session of quality 1, with paho-mqtt.

The server numbers messages with 16 bits and uses a number again once it was acknowledged, so a
number alone proves nothing: only a message flagged as sent before is compared with what was
appended. Quality 2 is not requested, because the client library keeps what is half received in
memory only, and a killed node would lose it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import MqttTopic
from headrace.sources.foreign.base import DriverContext, ForeignMessage, address_of, lacking
from headrace.sources.foreign.feed import headers_of

try:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
    from paho.mqtt.subscribeoptions import SubscribeOptions
except ImportError as error:
    raise lacking("mqtt", error) from error

WAIT_S = 1.0
TIMEOUT_S = 15.0
ONLY_IF_NEW = 1
CONTENT_TYPE = "content-type"
MAX_WAITING = 10_000
REFUSALS = {"Bad user name or password", "Not authorized", "Client identifier not valid", "Banned"}


class MqttSource:
    """One session. paho's thread reads the socket and hands everything to the loop."""

    def __init__(self, trigger: MqttTopic, around: DriverContext) -> None:
        self._trigger = trigger
        self._clock = around.clock
        topic = hashlib.blake2b(trigger.topic.encode(), digest_size=4).hexdigest()
        self._name = trigger.client_id or f"{around.name}-{topic}"
        self._client: paho.Client | None = None
        # The server is limited to `in_flight` messages of quality 1 until some are
        # acknowledged; Mosquitto may send a few more, which wait here. Of quality 0, which promises
        # nothing, those beyond MAX_WAITING are dropped.
        self._handed_out = 0
        self._arrived: deque[paho.MQTTMessage] = deque()
        self._news = asyncio.Event()
        self._subscribed = asyncio.Event()
        self._trouble: Misuse | Unavailable | None = None

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Take the session up again, or begin one, and subscribe."""
        self._arrived.clear()
        self._handed_out = 0
        self._trouble = None
        self._news = asyncio.Event()
        self._subscribed = asyncio.Event()
        client = self._client = self._made(asyncio.get_running_loop())
        parts = urlsplit(self._trigger.url)
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # theirs
        session.SessionExpiryInterval = int(self._trigger.session)
        session.ReceiveMaximum = self._trigger.in_flight
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        try:
            await asyncio.to_thread(
                client.connect,
                parts.hostname or "127.0.0.1",
                port,
                keepalive=30,
                # The session holds what came while we were away; a clean start would drop it.
                clean_start=False,
                properties=session,
            )
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self._where} cannot be reached: {error}") from error
        client.loop_start()
        try:
            await self._clock.timeout(self._subscribed.wait(), TIMEOUT_S)
        except TimeoutError as error:
            raise Unavailable(f"{self._where} does not answer") from error
        if self._trouble is not None:
            raise self._trouble
        return places

    async def receive(self, limit: int) -> Sequence[ForeignMessage[int]]:
        """The messages that have arrived, or none after a second; never more than may be in flight."""
        free = self._trigger.in_flight - self._handed_out
        if self._trouble is None and not (self._arrived and free):
            self._news.clear()
            try:
                await self._clock.timeout(self._news.wait(), WAIT_S)
            except TimeoutError:
                return []
        if not self._arrived and self._trouble is not None:
            raise self._trouble
        count = min(limit, len(self._arrived), free)
        messages = [self._message(self._arrived.popleft()) for _ in range(count)]
        self._handed_out += sum(1 for message in messages if message.receipt)
        return messages

    async def acknowledge(self, messages: Sequence[ForeignMessage[int]]) -> None:
        """Send PUBACK for each, in the order received, as the protocol wants it."""
        if self._client is None or self._trouble is not None:
            raise self._trouble or Unavailable(f"{self._where} is not connected")
        for message in messages:
            if message.receipt:
                self._client.ack(message.receipt, 1)
                self._handed_out -= 1

    async def close(self) -> None:
        """Hang up without a farewell to the session, which goes on."""
        client, self._client = self._client, None
        if client is not None:
            # Our own disconnect is not a failure.
            client.on_disconnect = None
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    def _made(self, loop: asyncio.AbstractEventLoop) -> paho.Client:
        parts = urlsplit(self._trigger.url)
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._name,
            protocol=paho.MQTTv5,
            # paho would acknowledge on receipt, before the message is on our disk.
            manual_ack=True,
            # The source restarts with a new client: messages of the former connection must not be
            # acknowledged on this one.
            reconnect_on_failure=False,
        )
        client.connect_timeout = TIMEOUT_S
        if parts.username is not None:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set()

        def on_loop(work: Any, *given: object) -> None:
            if not loop.is_closed():
                # paho calls back on its own thread; the deque and the events belong to the loop.
                loop.call_soon_threadsafe(work, *given)

        client.on_connect = lambda _c, _d, _f, code, _p: on_loop(self._connected, client, code)
        client.on_subscribe = lambda _c, _d, _m, codes, _p: on_loop(self._granted, codes)
        client.on_message = lambda _c, _d, message: on_loop(self._arrive, client, message)
        client.on_disconnect = lambda _c, _d, _f, code, _p: on_loop(self._ended, client, str(code))
        return client

    def _connected(self, client: paho.Client, code: ReasonCode) -> None:
        # A callback of a former connection may still be queued on the loop.
        if client is not self._client:
            return
        if code.is_failure:
            kind = Misuse if str(code) in REFUSALS else Unavailable
            self._fail(kind(f"{self._where} refuses the connection: {code}"))
            return
        # What was retained is sent once, with the first subscription, and not at every return.
        wishes = SubscribeOptions(qos=1, retainHandling=ONLY_IF_NEW)
        client.subscribe(self._trigger.topic, options=wishes)

    def _granted(self, codes: Sequence[ReasonCode]) -> None:
        if codes and codes[0].is_failure:
            self._fail(Misuse(f"{self._where} refuses the subscription: {codes[0]}"))
        self._subscribed.set()

    def _arrive(self, client: paho.Client, message: paho.MQTTMessage) -> None:
        if client is self._client and (message.qos or len(self._arrived) < MAX_WAITING):
            self._arrived.append(message)
            self._news.set()

    def _ended(self, client: paho.Client, why: str) -> None:
        if client is self._client and self._trouble is None:
            self._fail(Unavailable(f"{self._where}: the connection is lost ({why})"))

    def _fail(self, trouble: Misuse | Unavailable) -> None:
        self._trouble = trouble
        self._news.set()
        self._subscribed.set()

    def _message(self, found: paho.MQTTMessage) -> ForeignMessage[int]:
        said = hashlib.blake2b(found.topic.encode() + b"\0" + found.payload, digest_size=8)
        event = Event(
            bytes(found.payload),
            key=found.topic,
            headers=_headers(found.properties),
            source=f"mqtt/{self._trigger.topic}",
        )
        if found.qos == 0:
            return ForeignMessage(event, 0)
        mark = f"{self._name}/{found.mid}/{said.hexdigest()}"
        return ForeignMessage(event, found.mid, mark=mark, repeated=found.dup)

    @property
    def _where(self) -> str:
        return f"MQTT topic `{self._trigger.topic}` at {address_of(self._trigger.url)}"


def _headers(properties: Properties | None) -> dict[str, str] | None:
    pairs = [pair for pair in getattr(properties, "UserProperty", ()) if pair[0] != CONTENT_TYPE]
    kind = getattr(properties, "ContentType", None)
    said = [pair for pair in getattr(properties, "UserProperty", ()) if pair[0] == CONTENT_TYPE]
    return headers_of([*pairs, *([(CONTENT_TYPE, kind)] if kind else said)])
