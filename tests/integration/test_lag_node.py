"""A lag starts processes that fetch and commit over their channel, on a real node that is killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from tests.integration.gateway_nodes import operator, settle, start

from headrace.client.calls import ENVELOPES
from headrace.client.http import Client

APP = '''
"""Drains its stream by itself, and dies once in the middle."""

import os
import time

from headrace import Consumer, App, Batch, Context
from headrace.sources import Lag

app = App("books")
payments = app.stream("payments", partitions=4)
booked = app.stream("booked")


@app.function(Lag("payments", thresholds={0: 0, 1: 1, 400: 3}, every=0.1))
def book(consumer: Consumer, context: Context) -> None:
    while batch := consumer.fetch(20):
        time.sleep(0.01)
        for event in batch:
            context.publish(booked, {"n": event.value, "by": os.getcwd()})
        count = context.state.get(f"count/{min(consumer.positions)}", 0)
        context.state.put(f"count/{min(consumer.positions)}", count + len(batch))
        consumer.commit()
        if not context.state.get("died", False):
            context.state.put("died", True)
            consumer.commit()
            context.publish(booked, {"n": -1, "by": os.getcwd()})
            consumer.fetch(20)
            os._exit(9)
'''


def _booked(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get("streams", "booked", "records", limit=1_000, cursor=cursor)
        found += [record["value"] for record in page["records"]]
        cursor = page["cursor"]
        if not page["records"]:
            return found


def _publish(client: Client, numbers: range) -> None:
    lines = [json.dumps({"value": number, "key": f"k{number}"}) for number in numbers]
    client.publish("payments", "\n".join(lines).encode(), media=ENVELOPES)


def test_what_a_lag_starts_consumes_exactly_once_though_it_and_its_node_are_killed(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(APP)
    tmp_path.chmod(tmp_path.stat().st_mode | 0o755)
    process, url = start(tmp_path)
    try:
        with operator(url) as client:
            _publish(client, range(1_500))
            deadline = time.monotonic() + 15
            while len(_booked(client)) < 300:
                assert time.monotonic() < deadline, client.get("lag")
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        process, url = start(tmp_path)
        with operator(url) as client:
            _publish(client, range(1_500, 1_600))
            settle(client)
            booked = _booked(client)
            assert sorted(each["n"] for each in booked) == list(range(1_600))
            assert len({each["by"] for each in booked}) >= 4
            rows = client.get("lag")["lag"]
            assert {row["state"] for row in rows} <= {"waiting for lag", "running"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
