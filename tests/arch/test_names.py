"""Names and words that keep the source readable: each table may only shrink."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headrace"
MODULES = sorted(file for file in SOURCE.rglob("*.py") if file.name != "__init__.py")

SHARED_CLASS_NAMES = {"Event"}
"""Defined in more than one module: the event as it is stored, and as a handler sees it."""
ENDS_LIKE_A_GERUND = {"housekeeping", "streaming", "content_encoding", "payload_binding"}
"""Nouns of the field that end in `ing`."""
WIDE_CONSTRUCTORS = {
    "Folding": 10,
}
"""Constructors with more than eight parameters, and with how many."""
NOT_A = re.compile(r"(?<!here )\bis no (?!longer|more\b|one\b)")
INSIDER_WORDS = re.compile(
    r"^(door|hall|rooms?|shelf|errand|shift|roster|convoy|begun|apart|standing|outlet|attic|wicket|kin|births)$"
)


def classes() -> list[tuple[Path, ast.ClassDef]]:
    return [
        (file, node)
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    ]


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, set[Path]] = defaultdict(set)
    for file, node in classes():
        places[node.name].add(file)
    assert {name for name, files in places.items() if len(files) > 1} == SHARED_CLASS_NAMES


def test_no_module_is_named_by_a_gerund_or_an_insider_word() -> None:
    names = {file.stem for file in MODULES} | {file.parent.name for file in MODULES}
    assert {name for name in names if name.endswith("ing")} - {"testing"} == ENDS_LIKE_A_GERUND
    assert {name for name in names if INSIDER_WORDS.match(name)} == set()


def test_no_constructor_takes_more_than_eight_parameters() -> None:
    wide = {
        node.name: count
        for _, node in classes()
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        if (count := len(method.args.args) + len(method.args.kwonlyargs) - 1) > 8
    }
    assert wide == WIDE_CONSTRUCTORS


def test_errors_say_is_not_a() -> None:
    archaic = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Raise) and node.exc and NOT_A.search(ast.unparse(node.exc))
    ]
    assert archaic == []


def test_lines_of_the_pages_end_before_column_120() -> None:
    """Tables, code and pictures keep their lines."""
    long = []
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        if "decisions" in page.parts or page.name == "CHANGELOG.md":
            continue
        code = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            if line.lstrip().startswith("```"):
                code = not code
            elif len(line) > 120 and not code and not line.lstrip().startswith("|"):
                long.append(f"{page.relative_to(ROOT)}:{number}")
    assert long == []
