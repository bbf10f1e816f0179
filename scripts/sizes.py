"""What has outgrown a screen or its room: functions past 60 lines, files past 400.

For information: nothing fails. A long function asks whether its branches could become a plain one; a
long file asks whether it is two rooms.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

SCREEN_LINES = 60
ROOM_LINES = 400
SOURCE = Path(__file__).parents[1] / "src"


def long_functions(file: Path) -> Iterator[tuple[int, str]]:
    """Functions of a file past one screen: lines, and where."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            lines = node.end_lineno - node.lineno + 1
            if lines > SCREEN_LINES:
                yield lines, f"{file.relative_to(SOURCE)}:{node.lineno} {node.name}"


def main() -> None:
    """Print both lists, longest first."""
    files = sorted(SOURCE.rglob("*.py"))
    functions = sorted((found for file in files for found in long_functions(file)), reverse=True)
    sizes = [(len(file.read_text().splitlines()), str(file.relative_to(SOURCE))) for file in files]
    rooms = sorted((size for size in sizes if size[0] > ROOM_LINES), reverse=True)
    lines = [f"{len(files)} files, {sum(size for size, _ in sizes):,} lines"]
    for title, found in (("functions past a screen", functions), ("files past a room", rooms)):
        lines += ["", f"{title}: {len(found)}", *(f"{size:6} {where}" for size, where in found)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
