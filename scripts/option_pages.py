"""Write the tables of options into the reference pages: `make reference`.

The rows are those of the code (`headrace/model/function_options.py` and the specs beside it); a table
stands below a comment that names it. `--check` writes nothing, and fails where a page differs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from headrace.model.function import StreamSpec
from headrace.model.options import OptionRow, option_rows
from headrace.node.overrides import FUNCTION_KEYS, STREAM_KEYS
from headrace.sdk.options import FUNCTION_OPTIONS, MERGE_OPTIONS, SOURCE_OPTIONS

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
VALUE = "| `value` | anything | the type of its values, which also chooses the codec |"
QUEUE = "| `queue` | `None` | what makes it a [queue](triggers.md#queues); set by `app.queue` |"


def main(check: bool) -> int:
    """Write the tables, or say which differ."""
    differ = 0
    for file, tables in pages().items():
        page = REFERENCE / file
        text = written = page.read_text()
        for name, lines in tables.items():
            found = re.search(rf"^<!-- options: {name} -->\n\n((?:\|.*\n)+)", written, re.M)
            if not found:
                raise SystemExit(f"{page} has no table below `<!-- options: {name} -->`")
            if check:
                differ += _say_difference(file, found[1].splitlines(), lines)
            table = "".join(f"{line}\n" for line in lines)
            written = written[: found.start(1)] + table + written[found.end(1) :]
        if not check and written != text:
            page.write_text(written)
    return differ


def pages() -> dict[str, dict[str, list[str]]]:
    """The lines of each table, by page and name."""
    function = [FUNCTION_OPTIONS["name"]]
    function += [
        row for name, row in FUNCTION_OPTIONS.items() if name not in {"name", *MERGE_OPTIONS}
    ]
    partitions, *stream = table(option_rows(StreamSpec).values())[2:]
    return {
        "policies.md": {
            "function": table(function),
            "source": table(SOURCE_OPTIONS.values()),
            "merge": table(MERGE_OPTIONS.values()),
            "stream": [*table(()), partitions, VALUE, *stream, QUEUE],
        },
        "settings.md": {
            "overridable": [
                "| of a | may be overridden |",
                "|---|---|",
                f"| function | {names(FUNCTION_KEYS)} |",
                f"| stream | {names(STREAM_KEYS)} |",
            ]
        },
    }


def table(rows: Iterable[OptionRow]) -> list[str]:
    """A Markdown table of options: name, default and meaning."""
    return [
        "| option | default | meaning |",
        "|---|---|---|",
        *(f"| `{row.name}` | {row.written_default} | {meaning(row)} |" for row in rows),
    ]


def meaning(row: OptionRow) -> str:
    """What an option does, and the range of a number."""
    if row.about.high is None:
        return row.about.text
    return f"{row.about.text}; {row.range}{'' if row.span is None else ' s'}"


def names(keys: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(f"`{key}`" for key in keys)


def _say_difference(file: str, old: list[str], new: list[str]) -> int:
    lacks = [line for line in new if line not in old]
    excess = [line for line in old if line not in new]
    for line in lacks:
        sys.stdout.write(f"{file} lacks: {line}\n")
    for line in excess:
        sys.stdout.write(f"{file} has, which the code does not: {line}\n")
    if old != new and not lacks and not excess:
        sys.stdout.write(f"{file} has its options in another order\n")
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
