"""An inbox of CSV files: each is read once it is complete, and read again when it is replaced."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from headrace import App, Event, Files

app = App("inbox", owner="warehouse")
lines = app.stream("lines")


@app.function(
    Files("inbox", pattern="*.csv", events=("created", "modified"), settle=0.5), output=lines
)
def read(event: Event[dict[str, Any]]) -> list[dict[str, str]]:
    """One output for each line of the file."""
    with Path(event.value["path"]).open(newline="") as file:
        return [{"file": event.value["name"], **row} for row in csv.DictReader(file)]
