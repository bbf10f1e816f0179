"""What stands at each door: what `import headrace` loads, what it offers, and empty inner doors."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from headrace import testing

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headrace"

PUBLIC = {
    "headrace": {
        "App",
        "At",
        "Batch",
        "Bearer",
        "Breaker",
        "Concurrency",
        "Consumer",
        "Context",
        "Cors",
        "Cron",
        "DeadLetter",
        "Debounce",
        "Discard",
        "Event",
        "Every",
        "Failures",
        "Files",
        "HeadraceError",
        "Http",
        "Legacy",
        "Output",
        "ParkKey",
        "ParkPartition",
        "PerClient",
        "Permanent",
        "Priority",
        "Queue",
        "Sample",
        "Reply",
        "Request",
        "Resource",
        "Resources",
        "Retry",
        "Scaling",
        "Setting",
        "Singleton",
        "State",
        "Store",
        "Stream",
        "Throttle",
        "Webhook",
    },
    "headrace.bus": {
        "HttpTarget",
        "Rule",
    },
    "headrace.client": {
        "AsyncClient",
        "Client",
        "DeadLetterPage",
        "DeadLetterRecord",
        "Invocation",
        "Message",
        "PublishOptions",
        "PublishResult",
        "ReceivedMessage",
        "SendOptions",
        "Settled",
        "retry_after_of",
    },
    "headrace.errors": {
        "Conflict",
        "Corrupt",
        "DiskFull",
        "Fenced",
        "HeadraceError",
        "Invalid",
        "Locked",
        "Misuse",
        "Overloaded",
        "Permanent",
        "Problem",
        "Refused",
        "TooLarge",
        "Unavailable",
        "Undecodable",
        "Unknown",
    },
    "headrace.sources": {
        "Debezium",
        "Emit",
        "Foreign",
        "KafkaTopic",
        "KinesisStream",
        "Lag",
        "Missing",
        "MqttTopic",
        "NatsStream",
        "Objects",
        "PulsarTopic",
        "RabbitQueue",
        "RedisStream",
        "Sftp",
        "Silence",
        "SqlTable",
        "SqsQueue",
    },
    "headrace.webhooks": {
        "GitHub",
        "Hmac",
        "Secret",
        "Slack",
        "StandardWebhooks",
        "Stripe",
    },
    "headrace.windows": {
        "ClosedWindow",
        "HoppingWindow",
        "SessionWindow",
        "TumblingWindow",
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


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_those_we_promised(module: str) -> None:
    loaded = importlib.import_module(module)
    assert set(loaded.__all__) == PUBLIC[module]
    assert list(loaded.__all__) == sorted(loaded.__all__)
    for name in PUBLIC[module]:
        assert getattr(loaded, name).__doc__, f"`{name}` has no docstring"
        assert name in dir(loaded)


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_loads_only_the_ground_floor(module: str) -> None:
    ours = {name for name in loaded_by(f"import {module}") if name.startswith("headrace.")}
    assert {name.split(".")[1] for name in ours} <= {"model", "sdk", "topology", module[9:]}
    assert all(len(name.split(".")) == 2 for name in ours if name.split(".")[1] == module[9:])


def test_every_name_of_the_root_is_loaded_from_the_module_that_a_checker_sees() -> None:
    checked = {
        name.name: node.module
        for outer in ast.parse((SOURCE / "__init__.py").read_text()).body
        if isinstance(outer, ast.If)
        for node in outer.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert checked == vars(headrace)["_MODULES"]
    assert set(checked) == set(headrace.__all__)


def test_a_name_that_has_moved_says_where_it_is_now() -> None:
    for name, place in vars(headrace)["_MOVED"].items():
        module, _, new = place.rpartition(".")
        assert new in importlib.import_module(module).__all__
        with pytest.raises(ImportError, match=f"from {module} import {new}"):
            getattr(headrace, name)
    with pytest.raises(AttributeError, match="no attribute `Nobody`"):
        _ = headrace.Nobody  # type: ignore[attr-defined]


def test_the_door_for_tests_offers_what_we_promised_and_loads_a_node_only_when_asked() -> None:
    promised = {"Published", "World", "batch", "context", "event", "serving", "signed"}
    assert set(testing.__all__) == promised
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)
    loaded = loaded_by("import headrace.testing")
    rooms = {name.split(".")[1] for name in loaded if name.startswith("headrace.")}
    assert rooms & {"cli", "delivery", "http", "storage", "node"} == set()


PUBLIC_PACKAGES = {SOURCE, *(SOURCE / name for name in ("bus", "client", "sources", "testing"))}
"""Their `__init__` names what authors import."""


def test_every_room_has_an_empty_door() -> None:
    furnished = [
        str(door.relative_to(ROOT))
        for door in SOURCE.rglob("__init__.py")
        if door.parent not in PUBLIC_PACKAGES and not _only_a_docstring(door)
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
