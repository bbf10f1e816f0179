"""Status of sources for `map`, `lag` and `doctor`: which fail, and the state of replication slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from headrace.cli.output import Cell, plural, print_table
from headrace.cli.size_type import SizeType
from headrace.model.replication_slot import SLOT_WARNING_BYTES
from headrace.model.sizes import MAX_SIZE, written_size

Row = Mapping[str, Any]

FAILING: Final[dict[str, Cell]] = {
    "function": "function",
    "trigger": "trigger",
    "state": "state",
    "error": lambda row: row["error"],
}
SLOTS: Final[dict[str, Cell]] = {
    "function": "function",
    "slot": lambda row: row["slot"]["name"],
    "behind bytes": lambda row: row["slot"]["behind_bytes"],
    "kept bytes": lambda row: row["slot"]["kept_bytes"],
    "read now": lambda row: row["slot"]["active"],
    "wal": lambda row: row["slot"]["wal_status"],
    "state": lambda row: row["slot"]["state"],
}

slot_warning_option = click.option(
    "--slot-warning",
    type=SizeType(0, MAX_SIZE),
    default=written_size(SLOT_WARNING_BYTES),
    show_default=True,
    metavar="SIZE",
    help="A replication slot that keeps more of its server's log is `behind`.",
)


def print_failing(rows: Sequence[Row]) -> None:
    """The sources that do not run and why, under a line of their own; nothing where all do."""
    found = [row for row in rows if row.get("state") in {"failing", "halted"}]
    if found:
        click.echo()
        print_table(found, FAILING, empty="")


def print_slots(rows: Sequence[Row]) -> None:
    """Print the state of replication slots, under a line of their own; nothing if there are none."""
    found = [row for row in rows if row["slot"] is not None]
    if found:
        click.echo()
        print_table(found, SLOTS, empty="")
        for row in found:
            if row["slot"]["error"]:
                click.echo(f"{row['slot']['name']}: {row['slot']['error']}")


def source_findings(rows: Sequence[Row]) -> list[tuple[str, bool, str]]:
    """Findings of `doctor` about them: a name, whether it is well, and what was found."""
    if not rows:
        return []
    ill = [row for row in rows if row["state"] != "running"]
    found = [
        ("triggers", not ill, f"{plural(len(rows) - len(ill), 'source')} of {len(rows)} running")
    ]
    found += [
        (f"trigger {row['function']}", False, f"{row['trigger']} is {row['state']}: {row['error']}")
        for row in ill
    ]
    found += [
        (f"slot {slot['name']}", slot["state"] == "ok", slot_text(slot))
        for row in rows
        if (slot := row["slot"]) is not None
    ]
    return found


def slot_text(slot: Row) -> str:
    """Describe the state of a slot on one line."""
    if slot["error"]:
        return str(slot["error"])
    read = "being read" if slot["active"] else "not being read"
    left = (
        "" if slot["safe_bytes"] is None else f", {slot['safe_bytes']:,} more until it is at risk"
    )
    return (
        f"{slot['state']}: {slot['behind_bytes'] or 0:,} bytes behind, {slot['kept_bytes'] or 0:,} kept, "
        f"{read}, wal {slot['wal_status'] or 'unknown'}{left}"
    )
