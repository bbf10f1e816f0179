"""An inbox of CSV files of any size: each is read once it is complete, and again when it is replaced."""

from __future__ import annotations

import csv
from typing import Any

from headrace import App, Event, Files

app = App("inbox", owner="warehouse")
lines = app.stream("lines")


@app.function(
    Files("inbox", pattern="*.csv", events=("created", "modified"), slices="csv"), output=lines
)
def read(event: Event[dict[str, Any]]) -> list[dict[str, str]]:
    """One output for each row of a slice of the file, which may be of any size."""
    part = event.value
    (names,) = csv.reader([part["header"]])
    return [{"file": part["name"], **row} for row in csv.DictReader(part["records"], names)]
