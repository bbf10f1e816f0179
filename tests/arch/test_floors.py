"""Calls go down, never up: the import contracts of pyproject.toml, and what they cannot say."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headrace"


def imported(file: Path) -> Iterator[str]:
    """The modules a file imports anywhere, inside functions and type-only blocks too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} uses a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_import_contract_is_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_room_that_exists_has_a_floor() -> None:
    rooms = {folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists()}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (floors,) = (
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    named = {room.strip(" ()") for floor in floors for room in floor.split("|")}
    assert rooms - named == set()


def test_the_ground_floor_stands_on_the_standard_library_and_msgspec_alone() -> None:
    allowed = sys.stdlib_module_names | {"headrace", "msgspec"}
    strangers = {
        f"{file.relative_to(ROOT)}: {name}"
        for room in ("model", "topology", "sdk", "runtime/child")
        for file in (SOURCE / room).rglob("*.py")
        for name in imported(file)
        if name.split(".")[0] not in allowed
    }
    # Values of pydantic types are accepted where an author has it, and only then is it imported; what
    # `type_variables.py` imports is for type checkers alone.
    assert {
        text
        for text in strangers
        if not text.partition(": ")[2].startswith(("pydantic", "typing_extensions"))
    } == set()


def test_what_is_forked_knows_only_the_ground_floor_its_own_room_and_the_wire() -> None:
    allowed = (
        "headrace.model",
        "headrace.sdk",
        "headrace.runtime.child",
        "headrace.runtime.protocol.frames",
        "headrace.runtime.protocol.messages",
        "headrace.runtime.sandbox.limits",
        "headrace.runtime.kernel",
        "headrace.runtime.process_tree",
        "headrace.runtime.sandbox.isolation",
        "headrace.runtime.sandbox.warden",
    )
    strangers = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in (SOURCE / "runtime" / "child").rglob("*.py")
        for name in imported(file)
        if name.startswith("headrace.")
        and not name.startswith(allowed)
        and not any(name == each.rpartition(".")[0] for each in allowed)
    }
    assert strangers == set()


def test_only_settings_clients_and_the_forked_side_read_the_environment() -> None:
    readers = {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    strangers = {name for name in readers if not name.startswith("runtime/")}
    # A client is part of a program outside, which has no settings of a node to find it by.
    assert strangers - {"node/config.py", "client/address.py"} == set()


def test_no_import_hides_behind_type_checking() -> None:
    hidden = {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        if "TYPE_CHECKING" in file.read_text()
    }
    # The root, `client` and `testing` load names when they are used, and show checkers where these are;
    # pytest loads the plugin in every project, so it names what it makes without loading it; spans and names
    # import nothing there, but tell checkers that a field takes more than it holds.
    assert hidden <= {
        "__init__.py",
        "client/__init__.py",
        "testing/__init__.py",
        "testing/pytest_plugin.py",
        "model/triggers/field_types.py",
        "model/durations.py",
        "model/sizes.py",
        "model/exception_names.py",
        "model/policy_struct.py",
        "sdk/type_variables.py",
    }
