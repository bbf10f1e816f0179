"""Amazon Kinesis streams, shard by shard, with aiobotocore.

How far each shard is read stands in our own checkpoint, in one transaction with the events, so
there is nothing to acknowledge. A shard that was split or merged is read to its end before its
children are read, which keeps the order of every key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.model.errors import Misuse, Unavailable
from headrace.model.event import Event
from headrace.model.triggers.foreign import KinesisStream
from headrace.sources.foreign.base import DriverContext, ForeignMessage, lacking

try:
    from aiobotocore.session import get_session
    from botocore import exceptions as problems
except ImportError as error:
    raise lacking("aws", error) from error

ROUND_S = 30.0
"""New shards are looked for this often, and whenever one has ended."""
LOST = (problems.BotoCoreError, problems.ClientError, OSError)


class KinesisSource:
    """One reader of all shards, in turn."""

    def __init__(self, trigger: KinesisStream, around: DriverContext) -> None:
        self._trigger = trigger
        self._clock = around.clock
        self._exits: contextlib.AsyncExitStack | None = None
        self._client: Any = None
        self._places: dict[str, str] = {}
        self._iterators: dict[str, str] = {}
        self._ended: set[str] = set()
        self._looked = 0.0

    async def connect(self, places: Mapping[str, str]) -> Mapping[str, str]:
        """Find the shards, and where to begin in each."""
        trigger = self._trigger
        self._places = dict(places)
        self._iterators = {}
        self._ended = set()
        self._exits = contextlib.AsyncExitStack()
        try:
            self._client = await self._exits.enter_async_context(
                get_session().create_client(
                    "kinesis",
                    region_name=trigger.region or None,
                    endpoint_url=trigger.endpoint or None,
                )
            )
            shards = await self._shards()
            if not places and trigger.start == "latest":
                # Kept at once, so that a restart does not move "latest" past what came meanwhile.
                now = f"@{self._clock.now() // 1_000}"
                self._places = {shard["ShardId"]: now for shard in shards}
            await self._begin(shards)
        except (problems.NoRegionError, problems.NoCredentialsError) as error:
            raise Misuse(
                f"Kinesis stream `{trigger.stream}`: {error} Give `region=`, or set `AWS_DEFAULT_REGION` and the "
                "credentials in the node's environment"
            ) from error
        except LOST as error:
            raise self._judged(error) from error
        return dict(self._places)

    async def receive(self, limit: int) -> Sequence[ForeignMessage[None]]:
        """One look at every shard."""
        found: list[ForeignMessage[None]] = []
        try:
            if self._clock.monotonic() - self._looked > ROUND_S:
                await self._begin(await self._shards())
            for shard, iterator in list(self._iterators.items()):
                if len(found) >= limit:
                    break
                answer = await self._client.get_records(
                    ShardIterator=iterator, Limit=limit - len(found)
                )
                found += [self._message(shard, record) for record in answer["Records"]]
                # The shard looked at last comes last in the next round.
                del self._iterators[shard]
                if further := answer.get("NextShardIterator"):
                    self._iterators[shard] = further
                else:
                    self._ended.add(shard)
                    # Its children can be read now: look for them in the next round instead of
                    # waiting.
                    self._looked = -ROUND_S
        except LOST as error:
            raise self._judged(error) from error
        if not found:
            # Kinesis allows five reads a second and shard; without the pause an empty stream would
            # use them up.
            await self._clock.sleep(self._trigger.poll)
        return found

    async def acknowledge(self, messages: Sequence[ForeignMessage[None]]) -> None:
        """Nothing to say: the place is kept on our side."""

    async def close(self) -> None:
        """Hang up."""
        exits, self._exits, self._client = self._exits, None, None
        if exits is not None:
            await exits.aclose()

    async def _shards(self) -> list[dict[str, Any]]:
        self._looked = self._clock.monotonic()
        request: dict[str, Any] = {"StreamName": self._trigger.stream}
        found: list[dict[str, Any]] = []
        while True:
            answer = await self._client.list_shards(**request)
            found += answer["Shards"]
            if not (further := answer.get("NextToken")):
                return found
            # AWS refuses a request that has both a token and the stream's name.
            request = {"NextToken": further}

    async def _begin(self, shards: Sequence[dict[str, Any]]) -> None:
        """Start on every shard whose parents are read to the end (or gone)."""
        there = {shard["ShardId"] for shard in shards}
        for shard in shards:
            name = shard["ShardId"]
            if name in self._iterators or name in self._ended:
                continue
            parents = {shard.get("ParentShardId"), shard.get("AdjacentParentShardId")}
            # Parents that the stream no longer lists are past retention, and count as read.
            if parents & there <= self._ended:
                self._iterators[name] = await self._iterator(name)

    async def _iterator(self, shard: str) -> str:
        place = self._places.get(shard)
        request: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if place is not None and place.startswith("@"):
            request = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": int(place[1:]) / 1_000}
        elif place is not None:
            request = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": place,
            }
        answer = await self._client.get_shard_iterator(
            StreamName=self._trigger.stream, ShardId=shard, **request
        )
        return str(answer["ShardIterator"])

    def _message(self, shard: str, record: dict[str, Any]) -> ForeignMessage[None]:
        number = record["SequenceNumber"]
        came = record.get("ApproximateArrivalTimestamp")
        event = Event(
            record["Data"],
            key=record["PartitionKey"],
            time=None if came is None else round(came.timestamp() * 1e6),
            id=f"{self._trigger.stream}/{shard}/{number}",
            source=f"kinesis/{self._trigger.stream}",
        )
        self._places[shard] = number
        return ForeignMessage(event, None, place=(shard, number))

    def _judged(self, error: Exception) -> Misuse | Unavailable:
        where = f"Kinesis stream `{self._trigger.stream}`"
        if isinstance(error, problems.ClientError):
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "ResourceNotFoundException":
                return Unavailable(
                    f"{where} does not exist; make it, or correct its name or region"
                )
            if code in {"AccessDeniedException", "UnrecognizedClientException"}:
                return Misuse(f"{where} refuses access: {error}")
        return Unavailable(f"{where} cannot be reached: {error}")
