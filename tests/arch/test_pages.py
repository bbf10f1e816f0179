"""Documentation that cannot rot: links, code blocks and reference pages are held against the code."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import msgspec
import pytest
from msgspec import structs

import headrace
from headrace import bus, errors, sources, webhooks, windows
from headrace.admin.lag import LagRow
from headrace.admin.stores import StoreRow
from headrace.cli.main import COMMANDS
from headrace.http.response import dead_view
from headrace.http.server.route_resolver import route_table
from headrace.model import policy
from headrace.model.effects import DeadEvent, Edit
from headrace.model.event import Event
from headrace.model.function import QueueSpec
from headrace.model.options import option_rows, written_default
from headrace.model.outcome import Cause
from headrace.model.record import Position, encode_events
from headrace.model.triggers.base import Trigger
from headrace.node.config import NODE_KEYS
from headrace.runtime.instance_views import InstanceView
from headrace.sdk.options import FUNCTION_OPTIONS
from headrace.telemetry.history import RunRecord

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headrace"
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted(
    page for folder in ("docs", "examples") for page in (ROOT / folder).rglob("*.md")
) + sorted(ROOT.glob("*.md"))
RUNNABLE = [
    page for page in PAGES if page.name == "README.md" or page.parent.name in {"guides", "concepts"}
]

PUBLIC_NAMES = {
    name
    for module in (headrace, bus, errors, sources, webhooks, windows)
    for name in module.__all__
}

TRIGGER_SECTIONS = {
    "StreamTrigger": "Streams",
    "CallTrigger": "Calls",
    "Lag": "Lag",
    "Rule": "Event bus",
    "Cron": "Schedules",
    "Every": "Schedules",
    "At": "Schedules",
    "Custom": "Custom triggers",
    "Files": "Files",
    "Objects": "Objects",
    "Sftp": "SFTP",
    "SqlTable": "Tables",
    "Silence": "Freshness",
    "Missing": "Freshness",
    "Http": "HTTP",
    "Webhook": "Webhooks",
    "Ends": "Windows",
}
"""Where a trigger stands in `triggers.md`; all others come from foreign systems."""
TRIGGER_WORKINGS = {
    "function",
    "streams",
    "schema",
    "query_schema",
    "codec",
    "partitions",
    "answers",
    "any_status",
}
"""Fields that are told from the handler and what it is given, not written by the author."""

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \|", re.M)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in these languages."""
    for language, body in FENCE.findall(page.read_text()):
        if language in languages:
            yield textwrap.dedent(body)


def commands(page: Path, program: str) -> set[str]:
    """The first words after `program` where a page shows it being run."""
    text = page.read_text()
    inline = re.findall(rf"`{program} ([a-z][a-z0-9-]*)", FENCE.sub("", text))
    shown = "\n".join(blocks(page, "", "console", "sh", "bash"))
    return {*inline, *re.findall(rf"^(?:\$ )?{program} ([a-z][a-z0-9-]*)", shown, re.M)}


def anchors(page: Path) -> set[str]:
    """The anchors its headings make."""
    prose = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(page: str, title: str) -> dict[str, str]:
    """The rows of the tables under a heading: first cell -> second cell."""
    text = (REFERENCE / page).read_text()
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"{page} has no section `{title}`"
    return {name: cell.strip().strip("`") for name, cell in ROW.findall(found[1])}


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            if "://" in link or link.startswith("mailto:"):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
            elif anchor and anchor not in anchors(target):
                broken.append(f"{page.relative_to(ROOT)}: {link} (no such heading)")
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    found, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in found or page.suffix != ".md" or not page.exists():
            continue
        found.add(page)
        waiting += [
            (page.parent / link.partition("#")[0]).resolve()
            for link in LINK.findall(page.read_text())
            if "://" not in link and not link.startswith("#")
        ]
    lonely = [str(page.relative_to(ROOT)) for page in PAGES if page not in found]
    assert lonely == []


def test_every_python_block_compiles() -> None:
    for page in PAGES:
        for number, block in enumerate(blocks(page, "python"), 1):
            compile(block, f"{page.relative_to(ROOT)}, block {number}", "exec")


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """Blocks headed `# name.py` are files of one folder; those named `test_*.py` are run by pytest."""
    tests: list[str] = []
    files: list[str] = []
    for block in blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block)
            (tests if named[1].startswith("test_") else files).append(named[1])
    for command in (
        [sys.executable, "-c", "; ".join(f"import {Path(name).stem}" for name in files)],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", *tests]
        if tests
        else [],
    ):
        if command:
            run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stdout + run.stderr


def test_every_make_target_the_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        (target, str(page.relative_to(ROOT))) for page in PAGES for target in commands(page, "make")
    }
    assert {(target, page) for target, page in named if target not in targets} == set()


def test_every_make_target_is_listed_with_its_purpose() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.M))
    assert targets == set(re.findall(r"^([a-z0-9-]+):.*## \S", text, re.M))


def test_every_command_the_pages_name_exists() -> None:
    named = {
        (command, str(page.relative_to(ROOT)))
        for page in PAGES
        for command in commands(page, "headrace")
    }
    assert {(command, page) for command, page in named if command not in COMMANDS} == set()


def test_every_error_code_is_documented_and_nothing_else() -> None:
    text = (REFERENCE / "errors.md").read_text().partition("## Causes")[0]
    documented = set(re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|", text, re.M))
    assert documented == set(_error_codes())


def test_the_page_of_triggers_begins_with_the_way_to_every_section() -> None:
    top, *rest = (REFERENCE / "triggers.md").read_text().split("\n## ")
    named = {link.removeprefix("#") for link in LINK.findall(top) if link.startswith("#")}
    titles = {part.partition("\n")[0].lower().replace(" ", "-") for part in rest}
    assert titles - named == set()


def test_every_cause_the_platform_gives_is_documented() -> None:
    text = (REFERENCE / "errors.md").read_text().partition("## Causes")[2]
    given = {
        kind
        for file in SOURCE.rglob("*.py")
        if file.parent.name not in {"testing", "simulation"}
        for kind in re.findall(r'\bCause\(\s*"(\w+)"', file.read_text())
    }
    assert len(given) > 10
    assert {kind for kind in given if f"`{kind}`" not in text} == set()


def test_every_policy_field_is_documented_with_its_default() -> None:
    for struct in (policy.Retry, policy.Breaker, policy.Scaling, policy.Resources):
        fields = {
            field.name: written_default(field.type, field.default)
            for field in msgspec.structs.fields(struct)
        }
        assert section("policies.md", struct.__name__) == fields


def test_every_option_of_every_trigger_is_documented_in_its_section() -> None:
    text = (REFERENCE / "triggers.md").read_text()
    missing = []
    for struct in get_args(Trigger):
        title = TRIGGER_SECTIONS.get(struct.__name__, "Options of foreign sources")
        found = re.search(rf"^##+ {title}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
        assert found, f"triggers.md has no section `{title}` for `{struct.__name__}`"
        cells = {
            name
            for row in re.findall(r"^\|(.+)\|$", found[1], re.M)
            for cell in row.split("|")[:2]
            # By itself, or among the arguments of what the author writes.
            for name in re.findall(r"`(?:\w+\.)?([a-z_]+)`", cell)
            + re.findall(r"[a-z_]+", " ".join(re.findall(r"`\w+\(([a-z_, ]+)\)`", cell)))
        }
        missing += [
            f"{title}: `{field}` of `{struct.__name__}`"
            for field in struct.__struct_fields__
            if field not in cells | TRIGGER_WORKINGS
        ]
        if struct.__name__ in PUBLIC_NAMES and not re.search(
            rf"`(\S*\()?{struct.__name__}\b", found[1]
        ):
            missing.append(f"{title}: `{struct.__name__}` itself")
    assert missing == []


def test_every_way_of_giving_up_is_documented() -> None:
    text = (REFERENCE / "policies.md").read_text()
    for struct in (policy.DeadLetter, policy.ParkKey, policy.ParkPartition, policy.Discard):
        assert f"| `{struct.__name__}()` |" in text


def test_every_range_of_an_option_stands_on_the_page_of_triggers() -> None:
    rows = re.findall(
        r"^\| (`.+?) \| .*?\| (.*?) \|", (REFERENCE / "triggers.md").read_text(), re.M
    )
    highest = {name: row.about.high for name, row in FUNCTION_OPTIONS.items()}
    for name, high in highest.items():
        if high is None:
            continue
        limits = [limit for options, limit in rows if f"`{name}`" in options]
        assert any(f"{high:,.0f}" in limit for limit in limits), (name, limits)


def test_every_option_of_a_queue_is_documented_with_its_default() -> None:
    rows = section("triggers.md", "Queues")
    for name, row in option_rows(QueueSpec).items():
        assert rows[name] == row.written_default.strip("`"), name


def test_every_limit_is_documented_with_its_value() -> None:
    limits = {name: f"{value:,}" for name, value in vars(policy).items() if name.startswith("MAX_")}
    assert section("policies.md", "Limits") == limits


def test_every_setting_is_documented() -> None:
    text = (REFERENCE / "settings.md").read_text()
    missing = [name for name in NODE_KEYS if not re.search(rf"`{name}`", text)]
    assert missing == []


def test_every_command_is_documented() -> None:
    text = (REFERENCE / "cli.md").read_text()
    missing = [name for name in COMMANDS if f"headrace {name}" not in text]
    assert missing == []


def test_every_option_of_every_command_is_documented_in_its_section() -> None:
    text = (REFERENCE / "cli.md").read_text()
    missing = []
    for name, command in _all_commands():
        found = re.search(rf"^##+ headrace {name}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
        if not found:
            missing.append(f"headrace {name}")
            continue
        options = {
            option for each in command.params for option in (*each.opts, *each.secondary_opts)
        }
        missing += [
            f"headrace {name} {option}"
            for option in sorted(options)
            if option.startswith("--") and not re.search(rf"`[^`]*{option}\b", found[1])
        ]
    assert missing == []


def test_help_opens_like_the_section_of_its_command() -> None:
    """The reference and `--help` describe a command with the same words."""
    text = (REFERENCE / "cli.md").read_text()
    differing = []
    for name, command in _all_commands():
        found = re.search(rf"^##+ headrace {name}\n\n(?:`headrace .*\n\n)*((?:.+\n)+)", text, re.M)
        said = (command.help or "").split("\n\n")[0]
        if not found or found[1].split() != said.split():
            differing.append(f"headrace {name}")
    assert differing == []


def test_every_metric_is_documented() -> None:
    text = (REFERENCE / "http.md").read_text()
    code = (SOURCE / "http" / "metrics.py").read_text()
    names = set(re.findall(r'"(headrace_\w+)"', code))
    assert len(names) > 10
    assert {name for name in names if not re.search(rf"`{name}(_total)?`", text)} == set()


def test_every_route_is_documented() -> None:
    text = (REFERENCE / "http.md").read_text()
    missing = [
        f"{method} {path}"
        for method, path in route_table().patterns()
        if not re.search(rf"`{method} {re.escape(path)}(\?[^`]*)?`", text)
        and not path.startswith("/console")
    ]
    assert missing == []


def test_the_fields_of_what_operators_read_are_documented_and_nothing_else() -> None:
    text = (REFERENCE / "http.md").read_text()
    event = encode_events([Event(b"1")])
    cause = Cause("Failed", "")
    dead = DeadEvent("f", Position("s", 0, 0), event, cause, 1, 1, 1, original=event)
    shown = {
        "GET /-/v1/lag": set(LagRow.__struct_fields__),
        "GET /-/v1/invocations": set(RunRecord.__struct_fields__),
        "GET /-/v1/instances": set(InstanceView.__struct_fields__),
        "GET /-/v1/dead": set(dead_view(structs.replace(dead, edits=(Edit(1, "operator", ""),)))),
        "GET /-/v1/state/{app}": set(StoreRow.__struct_fields__),
        "GET /-/v1/state/{app}/{store}": {"key", "value", "bytes", "expires"},
    }
    for path, fields in shown.items():
        found = re.search(rf"^#### `{re.escape(path)}`\n(.*?)(?=^##|\Z)", text, re.M | re.S)
        assert found, path
        cells = re.findall(r"^\| (`[^|]*`) \|", found[1], re.M)
        assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == fields, path


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[?([^\]\s]+)\]?", text, re.M)
    assert headings[0] == "Unreleased"
    kinds = {"Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds


def test_every_decision_has_its_parts() -> None:
    wanted = ["Context", "Decision", "What we give up", "What would make us change it"]
    for page in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        text = page.read_text()
        assert re.match(rf"# {page.name[:4]}: \S", text), page.name
        assert re.search(r"^Status: (accepted|superseded by \d{4}), \d{4}-\d{2}-\d{2}$", text, re.M)
        assert re.findall(r"^## (.+)$", text, re.M) == wanted, page.name


def test_the_glossary_is_in_order_and_says_nothing_twice() -> None:
    text = (REFERENCE / "glossary.md").read_text()
    words = re.findall(r"^\*\*([^*]+)\*\*", text, re.M)
    assert words == sorted(set(words), key=str.lower)


def _all_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with the words it is called by, those of groups too."""
    waiting = [
        (name, getattr(importlib.import_module(f"headrace.cli.{module}"), f"{name}_command"))
        for name, (module, _) in COMMANDS.items()
    ]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        if isinstance(command, click.Group):
            waiting += [(f"{name} {each}", inner) for each, inner in command.commands.items()]


def _written(value: object) -> str:
    """A default as the reference pages write it."""
    if isinstance(value, str):
        return f'"{value}"'
    return f"{type(value).__name__}()" if isinstance(value, msgspec.Struct) else repr(value)


def _error_codes() -> Iterator[tuple[str, str]]:
    """Every error class of the family, with its code."""
    family = {"HeadraceError"}
    classes = [
        node
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    grown = True
    while grown:
        more = {
            node.name
            for node in classes
            for base in node.bases
            if (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")) in family
        }
        grown = not more <= family
        family |= more
    for node in classes:
        if node.name in family:
            codes = [
                statement.value.value
                for statement in node.body
                if isinstance(statement, ast.Assign | ast.AnnAssign)
                and isinstance(statement.value, ast.Constant)
                and "code" in ast.unparse(statement).split("=")[0]
            ]
            assert codes, f"`{node.name}` has no code of its own"
            yield str(codes[0]), node.name
