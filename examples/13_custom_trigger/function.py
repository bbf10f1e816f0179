"""A trigger of one's own: a generator that goes through a growing log file, line by line."""

from __future__ import annotations

from collections.abc import Iterator

from headrace import App, Event
from headrace.sources import Emit

app = App("door", owner="porter")
visits = app.stream("visits")
LOG = app.folder / "door.log"


@app.source(every="1s")
def new_lines(offset: int | None) -> Iterator[Emit]:
    """Every complete line after `offset`; what was said and the new offset are kept together."""
    if not LOG.exists():
        return
    with LOG.open("rb") as file:
        file.seek(offset or 0)
        while (line := file.readline()).endswith(b"\n"):
            yield Emit(line.decode().strip(), checkpoint=file.tell())


@app.function(new_lines, output=visits)
def visit(event: Event[str]) -> dict[str, str]:
    """One line, one visit."""
    name, _, way = event.value.partition(" ")
    return {"who": name, "way": way}
