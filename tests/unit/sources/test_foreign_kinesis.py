"""Kinesis shards that split, by a stand-in: no server for tests splits shards as Kinesis does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.contract.contract_drivers import ManualClock

from headrace.environment.randomness import SeededEntropy
from headrace.model.triggers.foreign import KinesisStream

pytest.importorskip("aiobotocore")

from headrace.sources.foreign import kinesis
from headrace.sources.foreign.base import DriverContext, ForeignMessage
from headrace.sources.foreign.kinesis import KinesisSource


class Clock(ManualClock):
    """Sleeping takes no time here, but time passes."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


class Shards:
    """A parent with two children; each holds numbered records and is closed or open."""

    def __init__(self) -> None:
        self.records = {"parent": range(5), "left": range(5, 8), "right": range(8, 11)}
        self.closed = {"parent"}
        self.asked: list[dict[str, Any]] = []

    async def list_shards(self, **asked: Any) -> dict[str, Any]:
        if "NextToken" not in asked:
            return {"Shards": [{"ShardId": "left", "ParentShardId": "parent"}], "NextToken": "n"}
        return {
            "Shards": [
                {"ShardId": "right", "ParentShardId": "parent"},
                {"ShardId": "parent", "ParentShardId": "long gone"},
            ]
        }

    async def get_shard_iterator(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        begin = int(asked.get("StartingSequenceNumber", "-1")) + 1
        return {"ShardIterator": f"{asked['ShardId']}:{max(begin, 0)}"}

    async def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803 - their names
        shard, begin = ShardIterator.split(":")
        there = [n for n in self.records[shard] if n >= int(begin)][:Limit]
        after = there[-1] + 1 if there else int(begin)
        ended = shard in self.closed and after > self.records[shard][-1]
        return {
            "Records": [
                {"SequenceNumber": str(n), "PartitionKey": "k", "Data": b"%d" % n} for n in there
            ],
            "NextShardIterator": None if ended else f"{shard}:{after}",
        }


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch) -> Shards:
    made = Shards()

    class Session:
        @contextlib.asynccontextmanager
        async def create_client(self, *_: Any, **__: Any) -> AsyncIterator[Shards]:
            yield made

    monkeypatch.setattr(kinesis, "get_session", Session)
    return made


async def read(
    places: dict[str, str], looks: int = 12, **options: Any
) -> list[ForeignMessage[None]]:
    around = DriverContext("f", Clock(), SeededEntropy(1))
    driver = KinesisSource(KinesisStream("s", in_flight=2, **options), around)
    await driver.connect(places)
    found: list[ForeignMessage[None]] = []
    for _ in range(looks):
        found += await driver.receive(2)
    await driver.close()
    return found


async def test_a_split_shard_is_read_to_its_end_before_its_children(shards: Shards) -> None:
    found = [int(message.event.value) for message in await read({})]
    assert found[:5] == [0, 1, 2, 3, 4]
    assert sorted(found) == list(range(11))
    assert [n for n in found if 5 <= n < 8] == [5, 6, 7]
    assert [n for n in found if n >= 8] == [8, 9, 10]


async def test_every_shard_goes_on_after_its_own_place(shards: Shards) -> None:
    found = await read({"parent": "4", "left": "6"})
    assert sorted(int(message.event.value) for message in found) == [7, 8, 9, 10]
    assert dict(message.place for message in found if message.place) == {"left": "7", "right": "10"}


async def test_the_first_latest_is_a_moment_that_is_kept(shards: Shards) -> None:
    clock = Clock()
    trigger = KinesisStream("s", start="latest")
    driver = KinesisSource(trigger, DriverContext("f", clock, SeededEntropy(1)))
    places = dict(await driver.connect({}))
    await driver.close()
    assert set(places.values()) == {f"@{clock.now() // 1_000}"}
    clock.advance(3_600)
    assert dict(await driver.connect(places)) == places
    assert shards.asked[-1]["ShardIteratorType"] == "AT_TIMESTAMP"
    assert shards.asked[-1]["Timestamp"] == 1_700_000_000.0
