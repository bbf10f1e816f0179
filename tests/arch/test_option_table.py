"""The table of options: what is written in a row is seen everywhere, and nothing else has to change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from headrace.model.durations import Duration
from headrace.model.function import QueueSettings, QueueSpec, StreamSettings, StreamSpec
from headrace.model.function_options import FunctionOptions, GivenOptions
from headrace.model.options import OptionRow, option_rows
from headrace.model.sizes import Size
from headrace.sdk.options import FUNCTION_OPTIONS, FunctionSettings

ROOT = Path(__file__).parents[2]
TABLE = Path("src", "headrace", "model", "function_options.py")
ROW = '    sampling: Annotated[int, Option("one run in so many is traced", 1, 50)] = 7\n\n'
USES = """
import json
from msgspec.structs import replace
from headrace import App
from headrace.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.node.overrides import apply_overrides, checked
from headrace.runtime.spec_checks import check_claims

def refusal(act):
    try:
        act()
    except Misuse as error:
        return str(error)
    return ""

def where(*keys):
    return "headrace.toml:2"

def overridden(value):
    return checked(FunctionSpec, "shop.f", {"sampling": value}, where)

app = App("shop")
orders = app.stream("orders")

@app.function(orders)
def usual(event): ...

@app.function(orders, sampling=3)
def given(event): ...

spec = app.spec()
usual, given = spec.functions
print(json.dumps({
    "usual": usual.sampling,
    "given": given.sampling,
    "author": refusal(lambda: app.function(orders, name="third", sampling=51)(lambda event: None)),
    "near": refusal(lambda: app.function(orders, smapling=3)),
    "claimed": refusal(lambda: check_claims(replace(spec, functions=(replace(given, sampling=99),)))),
    "operator": apply_overrides(given, [checked(FunctionSpec, "shop.given", {"sampling": 9}, where)]).sampling,
    "operator_out": refusal(lambda: overridden(0)),
}))
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree whose table has one more row."""
    folder = tmp_path_factory.mktemp("planted")
    for part in ("src/headrace", "scripts", "docs/reference"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    table = (folder / TABLE).read_text()
    rows, end, given = table.partition("    @property\n")
    (folder / TABLE).write_text(rows + ROW + end + given.rstrip() + "\n    sampling: int | None\n")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_planted_option_is_checked_kept_and_overridden(planted: Path) -> None:
    done = run(planted, "-c", USES)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert (said["usual"], said["given"], said["operator"]) == (7, 3, 9)
    assert "`sampling=51` is out of range; use 1 to 50" in said["author"]
    assert "no option `smapling` (did you mean `sampling`" in said["near"]
    assert "`sampling=99` is out of range; use 1 to 50" in said["claimed"]
    assert "`sampling = 0` of `shop.f` is out of range; use 1 to 50" in said["operator_out"]


def test_a_planted_option_is_missed_on_the_pages_and_written_there(planted: Path) -> None:
    script = str(planted / "scripts" / "option_pages.py")
    missed = run(planted, script, "--check")
    line = "| `sampling` | `7` | one run in so many is traced; 1 to 50 |"
    assert missed.returncode != 0
    assert f"policies.md lacks: {line}" in missed.stdout
    assert "settings.md lacks: " in missed.stdout
    assert run(planted, script).returncode == 0
    assert line in (planted / "docs" / "reference" / "policies.md").read_text()
    assert run(planted, script, "--check").returncode == 0


def test_the_tables_of_options_on_the_pages_are_those_of_the_code() -> None:
    done = run(ROOT, "scripts/option_pages.py", "--check")
    assert done.returncode == 0, f"run `make reference`:\n{done.stdout}{done.stderr}"


def authors(row: OptionRow) -> Any:
    """The type under which an author gives an option; None is the default."""
    return (Duration if row.span is not None else Size if row.is_size else row.kind) | None


def test_an_author_gives_every_option_under_the_type_of_its_row() -> None:
    rows = option_rows(FunctionOptions)
    assert get_type_hints(GivenOptions) == {name: authors(row) for name, row in rows.items()}
    assert set(get_type_hints(FunctionSettings)) == set(FUNCTION_OPTIONS)


def test_streams_and_queues_are_given_under_the_types_of_their_rows() -> None:
    stream, queue = option_rows(StreamSpec), option_rows(QueueSpec)
    assert get_type_hints(StreamSettings) == {
        name: authors(row) for name, row in stream.items() if name != "partitions"
    }
    assert get_type_hints(QueueSettings) == {
        name: authors(row) for name, row in {**stream, **queue}.items()
    }


def test_every_field_of_the_table_is_an_option_with_a_default() -> None:
    rows = option_rows(FunctionOptions)
    assert tuple(rows) == FunctionOptions.__struct_fields__
    assert all(row.default is not msgspec.NODEFAULT for row in rows.values())
