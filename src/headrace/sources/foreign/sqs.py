"""Amazon SQS queues, standard and FIFO, with aiobotocore.

Credentials come from where the AWS tools look for them. What is taken stays hidden for `visibility`
seconds and is deleted once it is on our disk; message ids are never used twice.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import SqsQueue
from headrace.sources.foreign.base import DriverContext, ForeignMessage, lacking

try:
    from aiobotocore.session import get_session
    from botocore import exceptions as problems
except ImportError as error:
    raise lacking("aws", error) from error

TAKE = 10
"""The protocol's own limit for one request."""
# Long polling costs fewer requests, but a stop of the source waits for its end.
WAIT_S = 2
REFUSALS = {
    "AccessDenied",
    "AccessDeniedException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
}
LOST = (problems.BotoCoreError, problems.ClientError, OSError)


class SqsSource:
    """One reader of one queue."""

    def __init__(self, trigger: SqsQueue, around: DriverContext) -> None:
        del around
        self._trigger = trigger
        self._exits: contextlib.AsyncExitStack | None = None
        self._client: Any = None
        self._url = ""

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Find the queue."""
        trigger = self._trigger
        self._exits = contextlib.AsyncExitStack()
        try:
            self._client = await self._exits.enter_async_context(
                get_session().create_client(
                    "sqs",
                    region_name=trigger.region or None,
                    endpoint_url=trigger.endpoint or None,
                )
            )
            if "://" in trigger.queue:
                self._url = trigger.queue
            else:
                self._url = (await self._client.get_queue_url(QueueName=trigger.queue))["QueueUrl"]
        except (problems.NoRegionError, problems.NoCredentialsError) as error:
            raise Misuse(
                f"SQS queue `{trigger.queue}`: {error} Give `region=`, or set `AWS_DEFAULT_REGION` and the "
                "credentials in the node's environment"
            ) from error
        except LOST as error:
            raise self._judged(error) from error
        return places

    async def receive(self, limit: int) -> Sequence[ForeignMessage[str]]:
        """Up to ten messages, or nothing after a while."""
        try:
            answer = await self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(limit, TAKE),
                WaitTimeSeconds=WAIT_S,
                VisibilityTimeout=int(self._trigger.visibility),
                # All: the group id (the key) and the time of sending are among them, and are sent
                # only on request.
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except LOST as error:
            raise self._judged(error) from error
        return [self._message(found) for found in answer.get("Messages", ())]

    async def acknowledge(self, messages: Sequence[ForeignMessage[str]]) -> None:
        """Delete them."""
        entries = [
            {"Id": str(index), "ReceiptHandle": message.receipt}
            for index, message in enumerate(messages)
        ]
        try:
            for begin in range(0, len(entries), TAKE):
                # One that could not be deleted comes again, and is recognised.
                await self._client.delete_message_batch(
                    QueueUrl=self._url, Entries=entries[begin : begin + TAKE]
                )
        except LOST as error:
            raise self._judged(error) from error

    async def close(self) -> None:
        """Hang up; what was not deleted becomes visible again by itself."""
        exits, self._exits, self._client = self._exits, None, None
        if exits is not None:
            await exits.aclose()

    def _message(self, found: dict[str, Any]) -> ForeignMessage[str]:
        system = found.get("Attributes", {})
        headers = {
            name: said["StringValue"]
            if isinstance(said.get("StringValue"), str)
            else base64.b64encode(said.get("BinaryValue", b"")).decode()
            for name, said in found.get("MessageAttributes", {}).items()
        }
        # The id, not the receipt handle, which is another at each delivery.
        mark = f"{self._url}/{found['MessageId']}"
        sent = system.get("SentTimestamp")
        event = Event(
            found["Body"].encode("utf-8", "surrogatepass"),
            key=system.get("MessageGroupId"),
            time=None if sent is None else int(sent) * 1_000,
            id=mark,
            headers=headers or None,
            source=f"sqs/{self._trigger.queue.rpartition('/')[2]}",
        )
        return ForeignMessage(event, found["ReceiptHandle"], mark=mark)

    def _judged(self, error: Exception) -> Misuse | Unavailable:
        where = f"SQS queue `{self._trigger.queue}`"
        if isinstance(error, problems.ClientError):
            code = str(error.response.get("Error", {}).get("Code", ""))
            if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
                return Unavailable(
                    f"{where} does not exist; make it, or correct its name or region"
                )
            if code in REFUSALS:
                return Misuse(f"{where} refuses access: {error}")
        return Unavailable(f"{where} cannot be reached: {error}")
