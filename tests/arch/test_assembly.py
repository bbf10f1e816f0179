"""The parts of a node are connected in one place, for nodes and for the hosts of tests alike."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "headrace"
PARTS = {
    "PartitionSupervisor",
    "InternalFunctions",
    "Bus",
    "Replays",
    "host_services",
    "build_services",
}


def test_only_one_module_connects_the_parts_of_a_node() -> None:
    made = {
        (node.func.id, str(file.relative_to(SOURCE)))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PARTS
    }
    assert made == {(part, "node/shared_parts.py") for part in PARTS}
