"""Changes captured by Debezium, out of a real Kafka, into a node that is killed again and again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_nodes import operator, page, records, start, wait_for
from tests.services.systems import Kafka

from headrace.client.http import Client

pytest.importorskip("confluent_kafka")

APP = """
import msgspec

from headrace import App, Event, Retry
from headrace.sources import Debezium, KafkaTopic


class Order(msgspec.Struct):
    id: int
    total: float = 0.0


class Change(msgspec.Struct):
    op: str
    before: Order | None
    after: Order | None


app = App("shop")
told = app.stream("told")


@app.function(
    KafkaTopic("{topic}", "127.0.0.1:{port}", changes=Debezium()), output=told, order="key",
    parallelism=8, retry=Retry(attempts=1),
)
def tell(event: Event[Change]) -> str:
    after = event.value.after
    return f"{{event.key}} {{event.value.op}} {{None if after is None else after.total}}"
"""
SCHEMA = {"type": "struct", "fields": [{"type": "int32", "field": "id"}], "name": "shop.Key"}


def row(number: int, total: float | None) -> dict[str, Any] | None:
    return None if total is None else {"id": number, "total": total}


def record(number: int, op: str, before: float | None, after: float | None) -> tuple[bytes, bytes]:
    """A record as Kafka Connect's JSON converter writes it, with schemas."""
    payload = {
        "before": row(number, before),
        "after": row(number, after),
        "source": {"connector": "postgresql", "schema": "public", "table": "orders", "lsn": number},
        "op": op,
        "ts_ms": 1,
        "transaction": None,
    }
    key = {"schema": SCHEMA, "payload": {"id": number}}
    value = {"schema": {"type": "struct", "name": "shop.Envelope"}, "payload": payload}
    return json.dumps(key).encode(), json.dumps(value).encode()


def sent_of(number: int) -> list[tuple[bytes, bytes | None]]:
    """The life of one row: inserted, changed, deleted, and Debezium's tombstone for it."""
    life = [
        record(number, "c", None, 1.0),
        record(number, "u", 1.0, 2.0),
        record(number, "d", 2.0, None),
    ]
    return [*life, (life[0][0], None)]


def produce(port: int, topic: str, pairs: list[tuple[bytes, bytes | None]]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": f"127.0.0.1:{port}", "enable.idempotence": True})
    for key, value in pairs:
        producer.produce(topic, value, key=key)
    assert producer.flush(60) == 0


def counted(client: Client) -> bytes:
    return page(client.url, "/metrics").encode()


async def test_every_change_is_told_once_in_order_per_row_and_poison_is_a_dead_letter(
    tmp_path: Path,
) -> None:
    kafka = Kafka(tmp_path / "kafka")
    place = tmp_path / "node"
    place.mkdir()
    try:
        topic = await kafka.make()
        (place / "app.py").write_text(APP.format(topic=topic, port=kafka.port))
        await asyncio.to_thread(place.chmod, 0o755)
        for life in range(3):
            process, _ = await asyncio.to_thread(start, place)
            pairs = [
                pair for number in range(life * 30, life * 30 + 30) for pair in sent_of(number)
            ]
            await asyncio.to_thread(produce, kafka.port, topic, pairs)
            await asyncio.sleep(0.3)
            process.kill()
            process.wait()
        last = [(b'{"id":1}', b'{"id": 1, "total": 5}'), (b'{"id":1}', None)]
        await asyncio.to_thread(produce, kafka.port, topic, last)
        process, url = await asyncio.to_thread(start, place)
        try:
            with operator(url) as client:
                await asyncio.to_thread(wait_for, lambda: len(records(client, "told")) >= 270)
                await asyncio.to_thread(wait_for, lambda: client.get("dead")["dead"])
                told = records(client, "told")
                (dead,) = client.get("dead")["dead"]
                # What tells of no row is counted, since the node started.
                await asyncio.to_thread(wait_for, lambda: b"debezium/tombstone" in counted(client))
        finally:
            process.terminate()
            process.wait()
    finally:
        kafka.close()
    by_row: dict[str, list[str]] = {}
    for text in told:
        name, what = text.split(" ", 1)
        by_row.setdefault(name, []).append(what)
    assert by_row == {str(n): ["insert 1.0", "update 2.0", "delete None"] for n in range(90)}
    assert dead["event"]["value"] == {"id": 1, "total": 5}
    assert "ExtractNewRecordState" in dead["cause"]["message"]
