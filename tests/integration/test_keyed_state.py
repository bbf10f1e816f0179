"""Keyed functions with state on a real node: one run an event, however keys and workers meet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from zlib import crc32

import pytest
from tests.integration.gateway_nodes import page, records, serving, settle

from headrace.client.http import Client
from headrace.http.pipeline.event_bodies import ENVELOPES

APP = """
from headrace import App, Batch, Context

app = App("a")
s = app.stream("s", partitions=2)


@app.function(s, order="key", parallelism=4, batch_size=BATCH_SIZE)
def count(events: Batch[int], context: Context) -> None:
    for event in events:
        context.state.update(f"of/{event.key}", lambda n: n + 1, default=0)
"""
EVENTS = 2_000


def handled(client: Client) -> int:
    """Events handed to the function, each as often as it was."""
    text = page(client.url, "/metrics")
    (found,) = re.findall(r'headrace_handled_events(?:_total)?\{function="a.count"\} (\d+)', text)
    return int(found)


@pytest.mark.parametrize("batch_size", [1, 50])
@pytest.mark.parametrize("keys", [8, 300])
def test_a_keyed_function_with_state_runs_once_for_each_event(
    tmp_path: Path, batch_size: int, keys: int
) -> None:
    with (
        serving(tmp_path, app=APP.replace("BATCH_SIZE", str(batch_size))) as url,
        Client(url) as client,
    ):
        lines = [json.dumps({"value": n, "key": f"k{n % keys}"}) for n in range(EVENTS)]
        client.publish("s", "\n".join(lines).encode(), media=ENVELOPES)
        settle(client, 120)
        kept = client.get("state", "a", "a.count", prefix="of/", limit=1_000)["state"]
        assert sum(row["value"] for row in kept) == EVENTS
        assert handled(client) == EVENTS


LISTING = """
import time
from headrace import App, Context, Event

app = App("a")
s = app.stream("s", partitions=2)
o = app.stream("o")


@app.function(s, batch_size=1)
def book(event: Event[int], context: Context) -> None:
    taken = list(context.state.items("seat/"))
    time.sleep(0.4)
    if not taken:
        context.state.put(f"seat/{event.key}", 1)
        context.publish(o, event.key)
"""


def test_of_two_partitions_that_list_and_find_nothing_one_wins(tmp_path: Path) -> None:
    # One key for each of the partitions.
    keys = {crc32(key.encode()) % 2: key for key in "abcdefgh"}.values()
    with serving(tmp_path, app=LISTING) as url, Client(url) as client:
        for key in keys:
            client.publish("s", b"0", key=key)
        settle(client, 60)
        assert len(records(client, "o")) == 1
