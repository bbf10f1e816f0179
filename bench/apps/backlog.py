"""Functions that wait behind a backlog; they touch every event, as those of `road` do."""

from typing import Any

from headrace import App, Batch

app = App("backlog")


def touch(events: Batch[Any]) -> None:
    """Read one field of every event."""
    large = 0
    for event in events:
        large += event.value["amount"] > 100


for partitions in (1, 4, 16, 64, 256):
    stream = app.stream(f"backlog_{partitions}", partitions=partitions)
    app.function(stream, name=f"touch_{partitions}", batch_size=1_000)(touch)
