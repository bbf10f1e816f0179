"""The synchronous client of a node's HTTP API, on the standard library alone.

Comes in: what is asked for. Goes out: values, or the error of our own family that the node's
problem+json names. One connection is kept open; one client serves one thread. A request that may be
repeated (it only reads, or carries an idempotency key) is, where the connection broke.
"""

from __future__ import annotations

import functools
import http.client
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Unpack

from headrace.client import calls
from headrace.client.endpoint import Endpoint
from headrace.client.final_response import FinalConnection, FinalTlsConnection
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
TIMEOUT_S = 60.0
MAX_TIMEOUT_S = 86_400.0
_BROKEN = (ConnectionError, http.client.HTTPException, TimeoutError, socket.gaierror, OSError)


class Client:
    """A client of one node, for one thread. Close it, or use it as a context manager.

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
        self._endpoint = end = Endpoint(url, token, data, certificate)
        seconds = seconds_in(timeout, "`timeout=`", low=0.001, high=MAX_TIMEOUT_S)
        self.url = end.url
        self._connect: Callable[[], http.client.HTTPConnection]
        if end.is_tls:
            self._connect = functools.partial(
                FinalTlsConnection, end.host, end.port, timeout=seconds, context=end.tls()
            )
        else:
            self._connect = functools.partial(FinalConnection, end.host, end.port, timeout=seconds)
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go; safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def publish(
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
        return self.run(calls.publish("streams", stream, value, **options))

    def publish_many(
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
        return self.run(calls.publish("streams", stream, body, **options))

    def send(
        self, queue: str, value: object, **options: Unpack[calls.SendOptions]
    ) -> PublishResult:
        """Send one message to a queue; arguments as of `publish`, and see `SendOptions`.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.publish("queues", queue, value, **options))

    def call(
        self,
        function: str,
        value: object = None,
        *,
        timeout: Duration | None = None,
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
        return self.run(calls.call(function, value, timeout, idempotency_key))

    def receive(
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
        return self.run(calls.receive(queue, most, wait, visibility))

    def ack(self, queue: str, *messages: ReceivedMessage | str) -> Settled:
        """Acknowledge messages, or receipts: they are done.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.settle(queue, "ack", messages))

    def nack(
        self, queue: str, *messages: ReceivedMessage | str, delay: Duration = 0, reason: str = ""
    ) -> Settled:
        """Give messages back, to be delivered again after `delay`; `reason` is for the dead letter.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.nack(queue, messages, delay, reason))

    def extend(self, queue: str, *messages: ReceivedMessage | str, duration: Duration) -> Settled:
        """Keep messages for `duration` from now.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.extend(queue, messages, duration))

    def cancel(self, queue: str, *ids: str) -> list[str]:
        """Take back messages that wait for their time; the ids of those that were still there.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.cancel(queue, ids))

    def dead_letters(
        self, function: str | None = None, *, limit: int = 100, after: str = ""
    ) -> DeadLetterPage:
        """Read a page of dead letters, of one function or all; `after` is that of the page before.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.dead_letters(function, limit, after))

    def redrive(
        self, function: str, *letters: DeadLetterRecord | str, everything: bool = False
    ) -> int:
        """Deliver dead letters, or positions, to their function again; how many.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.change_dead(function, "redrive", letters, everything=everything))

    def discard(
        self, function: str, *letters: DeadLetterRecord | str, everything: bool = False
    ) -> int:
        """Delete dead letters, or positions, for good; how many.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.change_dead(function, "discard", letters, everything=everything))

    def invocations(self, function: str | None = None, *, limit: int = 100) -> list[Invocation]:
        """Read the latest invocations, newest first, of one function or all.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.invocations(function, limit))

    def get(self, *path: str, **query: str | float | bool | None) -> Any:
        """Read anything of the HTTP API as data: `path` is the segments below `/-/v1`.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.get(path, query))

    def post(self, *path: str, data: object = None) -> Any:
        """Change anything by the HTTP API, with a JSON body.

        Raises:
            HeadraceError: The node refuses it, or does not answer.
        """
        return self.run(calls.post(path, data))

    def request(
        self,
        method: str,
        path: Iterable[str],
        *,
        query: calls.Query | None = None,
        body: bytes | None = None,
        media: str = "",
        headers: Mapping[str, str] | None = None,
        at_root: bool = False,
    ) -> NodeResponse:
        """Send any request below `/-/v1`, or with `at_root` to a path outside such as `metrics`; see `run`."""
        return self.run(
            calls.Call(
                method,
                tuple(path),
                lambda answer: answer,
                query or {},
                body,
                media,
                headers or {},
                is_repeatable=method == "GET",
                is_at_root=at_root,
            )
        )

    def run(self, call: calls.Call[T]) -> T:
        """Send a request, and read its answer.

        Raises:
            Unavailable: Nothing answers at the address, or what does is not a node.
            HeadraceError: What the node says is wrong, as the class its `code` names.
        """
        target, headers = self._endpoint.base + call.target, self._endpoint.headers(call)
        fresh = self._connection is None
        try:
            answer = self._exchange(call.method, target, call.body, headers)
        except _BROKEN as error:
            self.close()
            # A kept connection that the node closed meanwhile is not a failure of the node.
            if fresh or not call.is_repeatable:
                raise unreachable(self.url, error) from error
            try:
                answer = self._exchange(call.method, target, call.body, headers)
            except _BROKEN as second:
                self.close()
                raise unreachable(self.url, second) from second
        if answer.status >= 400:
            raise error_of(answer)
        return call.read(answer)

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> NodeResponse:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        try:
            connection.request(method, target, body=body, headers=dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            # The node may have answered (too large, overloaded) before it read everything.
            if connection.sock is None:
                raise
        response = connection.getresponse()
        found = NodeResponse(response.status, dict(response.getheaders()), response.read())
        if response.will_close:
            self.close()
        return found
