"""The figures of recorded campaigns: kept in `docs/reliability.json`, shown in the page beside it.

A campaign adds a run to the file and the table to the page; a test holds the two together. Nothing
is written by hand.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def record(rows: list[dict[str, Any]], seed: int) -> None:
    """Add a campaign to the file, and show it in the page."""
    runs = kept()
    runs.append(
        {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": _commit(),
            "machine": f"{os.cpu_count()} cores, Linux {platform.release().partition('-')[0]}, "
            f"Python {platform.python_version()}",
            "seed": seed,
            "rows": rows,
        }
    )
    KEPT.write_text(json.dumps(runs, indent=1) + "\n")
    PAGE.write_text(shown(PAGE.read_text(), runs))


def kept() -> list[dict[str, Any]]:
    """Every recorded campaign, oldest first."""
    found: list[dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else []
    return found


def shown(page: str, runs: list[dict[str, Any]]) -> str:
    """The page with the table of these runs."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(runs)}\n{END}{tail}"


def table(runs: list[dict[str, Any]]) -> str:
    """All recorded runs added up, fault by fault."""
    lines = [
        "| fault | times | events judged | rounds with a broken promise | rate below (95 %) | slowest start |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in dict.fromkeys(row["name"] for run in runs for row in run["rows"]):
        rows = [row for run in runs for row in run["rows"] if row["name"] == name]
        times = sum(row["times"] for row in rows)
        failed = sum(row["rounds_failed"] for row in rows)
        start = max(row["figures"].get("slowest_start_s", 0) for row in rows)
        below = f"{300 / times:.2g} %" if not failed and times > 3 else "-"
        lines.append(
            f"| {rows[-1]['fault']} | {times:,} | {sum(row['events'] for row in rows):,} "
            f"| {failed} of {sum(row['rounds'] for row in rows)} | {below} | {start:.2f} s |"
        )
    last = [f"- {run['date']} (`{run['commit']}`; {run['machine']})" for run in runs[-3:]]
    lines += ["", f"{len(runs)} recorded campaigns, the last:", "", *last]
    return "\n".join(lines)


def _commit() -> str:
    """The commit under trial; a `+` says that its source had been changed."""
    head = _git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{head}+" if _git("status", "--porcelain", "src") else head


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
