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
INTERCEPTING = {"PublishChecks", "ExternalConsumers", "NodeRuntime"}


def test_only_one_module_connects_the_parts_of_a_node() -> None:
    made = {
        (node.func.id, str(file.relative_to(SOURCE)))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in PARTS | INTERCEPTING
    }
    assert made == {(part, "node/shared_parts.py") for part in PARTS} | {
        (part, "node/run_chain.py") for part in INTERCEPTING
    }


def test_only_one_module_puts_interceptors_in_front_of_a_runtime() -> None:
    """Whoever else asked a runtime for its `submit` would start runs that no interceptor sees."""
    composing, below = set(), set()
    for file in SOURCE.rglob("*.py"):
        module = str(file.relative_to(SOURCE))
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "intercepted":
                composing.add(module)
            elif isinstance(node, ast.Attribute) and node.attr == "submit":
                below.add((module, ast.unparse(node)))
    assert composing == {"node/run_chain.py"}
    assert below == {
        ("node/run_chain.py", "runtime.submit"),
        # From here on it is what the chain made.
        ("delivery/assignment/supervisor.py", "runtime.submit"),
        ("delivery/assignment/supervisor.py", "self.submit"),
        ("delivery/partition/worker.py", "self._runtime.submit"),
        ("node/http_services.py", "supervisor.submit"),
    }
