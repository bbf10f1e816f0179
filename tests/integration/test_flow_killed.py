"""Every kind of flow control on a real node that is killed again and again: none is forgotten."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.integration.gateway_nodes import operator, records, start, wait_for

from headrace.client.http import Client

GAP_S = 1.0
LATE_S = 0.3
"""How much later than it was let go a run may find itself, on a busy machine."""
QUIET_S = 0.8
KEYS = "abc"
STREAMS = ("throttled", "rated", "debounced", "alone", "waited", "batched", "urgent")
APP = f'''
"""One stream, and everything that may keep its events back."""

import time

from headrace import (
    App, Batch, Concurrency, Context, Debounce, Event, Priority, Sample, Singleton, Throttle,
)

app = App("flow")
edits = app.stream("edits")
told = {{name: app.stream(name) for name in {STREAMS}}}


def said(event):
    return {{"key": event.key, "n": event.value, "at": time.time()}}


@app.function(edits, throttle=Throttle(1, per={GAP_S}, per_key=True), batch_size=1,
              output=told["throttled"])
def throttled(event: Event[int]) -> dict:
    return said(event)


@app.function(edits, sample=Sample(2, per=86_400), output=told["rated"])
def rated(event: Event[int]) -> dict:
    return said(event)


@app.function(edits, debounce=Debounce({QUIET_S}), output=told["debounced"])
def debounced(event: Event[int]) -> dict:
    return said(event)


def slowly(event):
    begun = time.time()
    time.sleep(0.02)
    return said(event) | {{"begun": begun}}


@app.function(edits, order="none", parallelism=6, concurrency=Concurrency(6, key_limit=1),
              batch_size=1, output=told["alone"])
def alone(event: Event[int]) -> dict:
    return slowly(event)


@app.function(edits, order="none", parallelism=6, singleton=Singleton("wait"), batch_size=1,
              output=told["waited"])
def waited(event: Event[int]) -> dict:
    return slowly(event)


@app.function(edits, batch_per_key=True, batch_size=5, batch_window=0.1, output=told["batched"])
def batched(events: Batch[int], context: Context) -> None:
    keys = sorted({{event.key for event in events}})
    for event in events:
        context.publish(told["batched"], said(event) | {{"beside": keys}}, key=event.key)


@app.function(edits, priority=Priority("hurry"), batch_size=1, order="key", parallelism=2,
              output=told["urgent"])
def urgent(event: Event[int]) -> dict:
    return said(event)
'''


def by_key(client: Client, stream: str) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for one in records(client, stream):
        found[one["key"]].append(one)
    return found


def has(client: Client, stream: str, count: int) -> bool:
    return len(records(client, stream)) >= count


def lives(place: Path) -> Iterator[Client]:
    """A node that is killed after each, and one that is not."""
    for _ in range(4):
        process, url = start(place)
        try:
            with operator(url) as client:
                yield client
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_a_node_killed_again_and_again_forgets_no_flow_control(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    tmp_path.chmod(tmp_path.stat().st_mode | 0o755)
    sent = 0
    for client in lives(tmp_path):
        for _ in range(2):
            for key in KEYS:
                client.publish("edits", b"%d" % sent, key=key)
            sent += 1
            time.sleep(0.2)
    process, url = start(tmp_path)
    try:
        with operator(url) as client:
            everything = list(range(sent))
            for name in ("throttled", "alone", "waited", "batched", "urgent"):
                wait_for(partial(has, client, name, sent * len(KEYS)))
            wait_for(
                lambda: [one["n"] for one in records(client, "debounced")].count(sent - 1) == 3
            )
            time.sleep(2 * QUIET_S)
            told = {name: by_key(client, name) for name in STREAMS}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    for key in KEYS:
        numbers = {name: [one["n"] for one in told[name][key]] for name in told}
        assert numbers["throttled"] == numbers["batched"] == numbers["urgent"] == everything
        assert sorted(numbers["alone"]) == sorted(numbers["waited"]) == everything
        begun = [one["at"] for one in told["throttled"][key]]
        assert min(after - before for before, after in pairwise(begun)) > GAP_S - LATE_S
        assert numbers["rated"] == [0, 1]
        assert numbers["debounced"][-1] == sent - 1
        assert len(set(numbers["debounced"])) == len(numbers["debounced"])
        assert all(one["beside"] == [key] for one in told["batched"][key])
        for name in ("alone", "waited"):
            runs = sorted((one["begun"], one["at"]) for one in told[name][key])
            assert all(end < begin for (_, end), (begin, _) in pairwise(runs))
