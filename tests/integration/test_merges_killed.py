"""A merge on a real node that is killed again and again: what it had passed over is on the disk."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random
from time import sleep

from tests.integration.gateway_nodes import operator, records, start, wait_for

from headrace.client.calls import ENVELOPES
from headrace.client.http import Client

APP = '''
"""Two streams, merged."""

from headrace import App, Batch, Context

app = App("house")
doors = app.stream("doors")
rooms = app.stream("rooms")
seen = app.stream("seen")


@app.function(doors, rooms, merge="time", idle_timeout=0.05, batch_size=3)
def join(events: Batch, context: Context) -> None:
    for event in events:
        context.publish(seen, event.value, key="all")
'''


DAY = 1_767_225_600


def tell(client: Client, stream: str, number: int, time: int) -> None:
    envelope = b'{"value": %d, "key": "hall", "time": %d, "id": "%d"}' % (number, time, number)
    client.publish(stream, envelope, media=ENVELOPES)


def by_the_logs(told: list[tuple[str, int]]) -> list[int]:
    """The order where every stream had always had something to read."""
    waiting = {
        name: [(time, number) for number, (stream, time) in enumerate(told) if stream == name]
        for name in ("doors", "rooms")
    }
    found: list[int] = []
    while left := [events for events in waiting.values() if events]:
        found.append(min(left, key=lambda events: events[0][0]).pop(0)[1])
    return found


def test_a_merge_that_was_killed_again_and_again_takes_the_same_order_twice(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    tmp_path.chmod(tmp_path.stat().st_mode | 0o755)
    chance, told = Random(7), list[tuple[str, int]]()
    for _ in range(4):
        process, url = start(tmp_path)
        try:
            with operator(url) as client:
                for _ in range(15):
                    # Now the one speaks, now the other, and each late in turn.
                    stream, time = chance.choice(("doors", "rooms")), chance.randint(0, 99)
                    tell(client, stream, len(told), DAY + time)
                    told.append((stream, time))
                    if chance.random() < 0.4:
                        sleep(0.1)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    process, url = start(tmp_path)
    try:
        with operator(url) as client:
            wait_for(lambda: len(records(client, "seen")) == len(told))
            first = records(client, "seen")
            assert sorted(first) == list(range(len(told)))
            assert first != by_the_logs(told)
            client.post("functions", "house.join", "reset", data={"start": "earliest"})
            wait_for(lambda: len(records(client, "seen")) == 2 * len(told))
            assert records(client, "seen")[len(told) :] == first
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
