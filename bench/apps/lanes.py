"""Functions over one partition with many keys: some wait for something else, some have nothing to do."""

import time
from typing import Any

from headrace import App, Batch, Event, Scaling

app = App("lanes")

slow = app.stream("slow")
swift = app.stream("swift")
plain = app.stream("plain")


@app.function(slow, order="key", parallelism=64, batch_size=1, scaling=Scaling(min=64, max=64))
def wait(event: Event[Any]) -> None:
    """Wait 10 ms, as for an answer from elsewhere."""
    time.sleep(0.01)


@app.function(swift, order="key", parallelism=4, batch_size=100, scaling=Scaling(max=2))
def by_key(events: Batch[Any]) -> None:
    """Look at every event, key by key."""
    for event in events:
        assert event.value is not None


@app.function(plain, batch_size=100, scaling=Scaling(max=2))
def in_order(events: Batch[Any]) -> None:
    """Look at every event, one batch after the other."""
    for event in events:
        assert event.value is not None
