"""The asynchronous client of a node's HTTP API: the same requests as the synchronous one, over pooled connections.

One client serves any number of tasks of one event loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, Unpack

from headrace.client import calls
from headrace.client.endpoint import Endpoint
from headrace.client.http import MAX_TIMEOUT_S, TIMEOUT_S
from headrace.client.http_pool import HttpPool, ServiceRequest, UpstreamFailed, UpstreamLate
from headrace.client.responses import NodeResponse, error_of, unreachable
from headrace.client.views import (
    DeadLetterPage,
    DeadLetterRecord,
    Invocation,
    Message,
    PublishResult,
    ReceivedMessage,
    Settled,
)
from headrace.model.durations import Duration, seconds_in

T = TypeVar("T")
MAX_ANSWER_BYTES = 256 << 20


class AsyncClient:
    """A client of one node, for the tasks of one event loop. Close it, or use it as a context manager.

    Args:
        url: Its address; None finds it as commands do: `HEADRACE_URL`, else `node.json` in the data folder
            (`HEADRACE_DATA`, else `.headrace`), else this machine's port 4280.
        token: Shown to be let in, "" for none; None takes `HEADRACE_TOKEN`, else the operator's key of a node
            on this machine.
        data: The data folder of a node on this machine.
        certificate: A PEM file: the one certificate that is trusted, whatever name it is for; "" trusts
            what the system does; None takes that of a node on this machine, if it is this one.
        timeout: Until an answer must have come.

    Attributes:
        url: The node's address.

    Raises:
        Misuse: The address cannot be one, or no node runs on the data folder that was named.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        data: Path | None = None,
        certificate: str | None = None,
        timeout: Duration = TIMEOUT_S,
    ) -> None:
        self._endpoint = Endpoint(url, token, data, certificate)
        self._seconds = seconds_in(timeout, "`timeout=`", low=0.001, high=MAX_TIMEOUT_S)
        self.url = self._endpoint.url
        self._pool = HttpPool(self._endpoint.tls())

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let idle connections go; safe to call twice."""
        self._pool.close()

    async def publish(
        self, stream: str, value: object, **options: Unpack[calls.PublishOptions]
    ) -> PublishResult:
        """Publish one event; it is on the disk when this returns.

        Args:
            stream: Its name.
            value: JSON data, a dataclass or struct; bytes are sent as they are.
            **options: See `PublishOptions`.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.publish("streams", stream, value, **options))

    async def publish_many(
        self, stream: str, messages: Iterable[Message], *, idempotency_key: str | None = None
    ) -> PublishResult:
        """Publish events together: all of them, or none. At most 10,000.

        Raises:
            HeadraceError: The node refuses them, or does not answer.
        """
        body = calls.envelopes(messages)
        options: calls.PublishOptions = {
            "media": calls.ENVELOPES,
            "idempotency_key": idempotency_key,
        }
        return await self.run(calls.publish("streams", stream, body, **options))

    async def send(
        self, queue: str, value: object, **options: Unpack[calls.SendOptions]
    ) -> PublishResult:
        """Send one message to a queue; arguments as of `publish`, and see `SendOptions`.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.publish("queues", queue, value, **options))

    async def call(
        self,
        function: str,
        value: object = None,
        *,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the node's limit, not this client's
        idempotency_key: str | None = None,
    ) -> Any:
        """Call a function (`app.function`), and return its answer, once what it did is committed.

        Args:
            function: Its full name.
            value: As of `publish`.
            timeout: How long the node waits for the answer.
            idempotency_key: A repetition with it gets the first answer.

        Raises:
            HeadraceError: The node refuses it, the function failed, or the node does not answer.
        """
        return await self.run(calls.call(function, value, timeout, idempotency_key))

    async def receive(
        self,
        queue: str,
        *,
        most: int = 1,
        wait: Duration = 0,
        visibility: Duration | None = None,
    ) -> list[ReceivedMessage]:
        """Receive messages of a queue, which are this client's until it acknowledges them or time is up.

        Args:
            queue: Its name.
            most: Messages, 1 to 100.
            wait: How long to wait for the first one, up to 20 s.
            visibility: How long they are this client's; None: as the queue says.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.receive(queue, most, wait, visibility))

    async def ack(self, queue: str, *messages: ReceivedMessage | str) -> Settled:
        """Acknowledge messages, or receipts: they are done.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.settle(queue, "ack", messages))

    async def nack(
        self, queue: str, *messages: ReceivedMessage | str, delay: Duration = 0, reason: str = ""
    ) -> Settled:
        """Give messages back, to be delivered again after `delay`; `reason` is for the dead letter.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.nack(queue, messages, delay, reason))

    async def extend(
        self, queue: str, *messages: ReceivedMessage | str, duration: Duration
    ) -> Settled:
        """Keep messages for `duration` from now.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.extend(queue, messages, duration))

    async def cancel(self, queue: str, *ids: str) -> list[str]:
        """Take back messages that wait for their time; the ids of those that were still there.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.cancel(queue, ids))

    async def dead_letters(
        self, function: str | None = None, *, limit: int = 100, after: str = ""
    ) -> DeadLetterPage:
        """Read a page of dead letters, of one function or all; `after` is that of the page before.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.dead_letters(function, limit, after))

    async def redrive(
        self, function: str, *letters: DeadLetterRecord | str, everything: bool = False
    ) -> int:
        """Deliver dead letters, or positions, to their function again; how many.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(
            calls.change_dead(function, "redrive", letters, everything=everything)
        )

    async def discard(
        self, function: str, *letters: DeadLetterRecord | str, everything: bool = False
    ) -> int:
        """Delete dead letters, or positions, for good; how many.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(
            calls.change_dead(function, "discard", letters, everything=everything)
        )

    async def invocations(
        self, function: str | None = None, *, limit: int = 100
    ) -> list[Invocation]:
        """Read the latest invocations, newest first, of one function or all.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.invocations(function, limit))

    async def get(self, *path: str, **query: str | float | bool | None) -> Any:
        """Read anything of the HTTP API as data: `path` is the segments below `/-/v1`.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.get(path, query))

    async def post(self, *path: str, data: object = None) -> Any:
        """Change anything by the HTTP API, with a JSON body.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return await self.run(calls.post(path, data))

    async def run(self, call: calls.Call[T]) -> T:
        """Send a request, and read its answer.

        Raises:
            Unavailable: Nothing answers at the address, or what does is not a node.
            HeadraceError: What the node says is wrong, as the class its `code` names.
        """
        headers = self._endpoint.headers(call).items()
        ask = ServiceRequest(
            self._endpoint.url + self._endpoint.base,
            call.method,
            call.target,
            tuple((name.lower().encode(), text.encode()) for name, text in headers),
            call.body or b"",
            seconds=self._seconds,
            max_bytes=MAX_ANSWER_BYTES,
        )
        try:
            found = await self._pool.ask(ask)
        except (UpstreamFailed, UpstreamLate) as error:
            raise unreachable(self.url, error.__cause__ or error) from error
        answer = NodeResponse(
            found.status,
            {name.decode(): text.decode("latin-1") for name, text in found.headers},
            found.body,
        )
        if answer.status >= 400:
            raise error_of(answer)
        return call.read(answer)
