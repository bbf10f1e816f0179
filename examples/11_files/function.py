"""An inbox of CSV files of any size: each is read once it is complete, and again when it is replaced.

Nothing tells that a file was the last one: its total is published when no line has come for a while.
"""

from __future__ import annotations

import csv
from typing import Any

from headrace import App, Event, Files, Output
from headrace.windows import SessionWindow

app = App("inbox", owner="warehouse")
lines = app.stream("lines")
totals = app.stream("totals")


@app.function(
    Files("inbox", glob="*.csv", events=("created", "modified"), slices="csv"), output=lines
)
def read(event: Event[dict[str, Any]]) -> list[Output[dict[str, str]]]:
    """One output for each row of a slice of the file, which may be of any size."""
    part = event.value
    (names,) = csv.reader([part["header"]])
    rows = csv.DictReader(part["records"], names)
    return [Output({"file": part["name"], **row}, key=part["name"]) for row in rows]


def both(one: int, other: int) -> int:
    """The total of two parts of a file."""
    return one + other


@app.window(lines, SessionWindow("10s"), idle="10s", output=totals, combine=both)
def total(so_far: int | None, line: Event[dict[str, str]]) -> int:
    """How many pieces a file brought, ten seconds after its last line."""
    return (so_far or 0) + int(line.value["count"])
