"""What stands at each door: what `import headrace` loads, what it offers, and empty inner doors."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import headrace
from headrace import testing

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headrace"

PUBLIC = {
    "authors write": {
        "App",
        "Batch",
        "Consumer",
        "Context",
        "Event",
        "Failures",
        "Output",
        "Queue",
        "Stream",
        "Hopping",
        "Session",
        "Setting",
        "Resource",
        "Tumbling",
        "Window",
    },
    "set functions off": {
        "At",
        "Cron",
        "Emit",
        "Every",
        "Files",
        "Lag",
        "Missing",
        "Objects",
        "Sftp",
        "Silence",
        "Table",
        "HttpTarget",
        "Rule",
        "Foreign",
        "KafkaTopic",
        "KinesisStream",
        "MqttTopic",
        "NatsStream",
        "PulsarTopic",
        "RabbitQueue",
        "RedisStream",
        "SqsQueue",
        "Debezium",
    },
    "policies": {
        "Breaker",
        "DeadLetter",
        "Discard",
        "ParkKey",
        "ParkPartition",
        "Resources",
        "Retry",
        "Scaling",
        "Concurrency",
        "Debounce",
        "Priority",
        "Rate",
        "Singleton",
        "Throttle",
    },
    "routes": {
        "Bearer",
        "Cors",
        "GitHub",
        "Hmac",
        "Http",
        "Legacy",
        "PerClient",
        "Reply",
        "Problem",
        "Request",
        "Secret",
        "Slack",
        "StandardWebhooks",
        "Stripe",
        "Webhook",
    },
    "raised by handlers": {"Permanent"},
    "errors": {
        "Conflict",
        "Corrupt",
        "DiskFull",
        "Fenced",
        "HeadraceError",
        "Invalid",
        "Locked",
        "Misuse",
        "Overloaded",
        "Refused",
        "TooLarge",
        "Unavailable",
        "Undecodable",
        "Unknown",
    },
}
"""The promise to authors. A change here is a line in CHANGELOG.md; a removal is a new major version."""


def loaded_by(statement: str) -> set[str]:
    """The modules a fresh interpreter has after `statement`, beyond those it starts with."""
    code = (
        f"import sys; before = set(sys.modules); {statement}\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(run.stdout)
    return set(found)


def test_import_headrace_loads_only_the_ground_floor_and_the_standard_library() -> None:
    loaded = loaded_by("import headrace")
    ours = {name for name in loaded if name.startswith("headrace.")}
    assert {name.split(".")[1] for name in ours} <= {"model", "sdk", "replay", "topology"}
    # msgspec takes typing_extensions along where it finds it.
    tops = {name.split(".")[0] for name in loaded - loaded_by("import msgspec")}
    assert tops - sys.stdlib_module_names - {"headrace", "msgspec"} == set()


def test_import_headrace_leaves_slow_corners_of_the_standard_library_alone() -> None:
    slow = {"asyncio", "dataclasses", "inspect", "multiprocessing", "sqlite3", "ssl", "unittest"}
    assert (loaded_by("import headrace") - loaded_by("import msgspec")) & slow == set()


def test_the_public_names_are_those_we_promised() -> None:
    promised = set().union(*PUBLIC.values())
    assert set(headrace.__all__) == promised
    assert list(headrace.__all__) == sorted(headrace.__all__)
    for name in promised:
        assert getattr(headrace, name).__doc__, f"`{name}` has no docstring"


def test_the_door_for_tests_offers_what_we_promised_and_loads_a_node_only_when_asked() -> None:
    promised = {"Published", "World", "batch", "context", "event", "serving", "signed"}
    assert set(testing.__all__) == promised
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)
    loaded = loaded_by("import headrace.testing")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("headrace.")}
    assert rooms & {"cli", "delivery", "http", "storage", "node"} == set()


def test_every_room_has_an_empty_door() -> None:
    furnished = [
        str(door.relative_to(ROOT))
        for door in SOURCE.rglob("__init__.py")
        if door.parent not in {SOURCE, SOURCE / "testing"} and not _only_a_docstring(door)
    ]
    assert furnished == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in SOURCE.rglob("*.py")
        if not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert silent == []


def test_every_public_class_and_function_says_what_it_promises() -> None:
    silent = [
        f"{file.relative_to(ROOT)}: {node.name}"
        for file in SOURCE.rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def _only_a_docstring(door: Path) -> bool:
    body = ast.parse(door.read_text()).body
    return len(body) == 1 and isinstance(body[0], ast.Expr)
