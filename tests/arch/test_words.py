"""Pages use the field's words: a reader who searches for a standard term finds the right page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *(
        page
        for folder in ("concepts", "guides", "reference")
        for page in (DOCS / folder).glob("*.md")
    ),
    *(DOCS / name for name in ("performance.md", "reliability.md", "mutants.md")),
    *(ROOT / "examples").glob("*/README.md"),
]
TERMS = {
    "at-least-once": "docs/concepts/delivery.md",
    "at-most-once": "docs/concepts/delivery.md",
    "exactly-once": "docs/concepts/delivery.md",
    "FaaS": "README.md",
    "serverless": "README.md",
    "autoscaling": "docs/reference/policies.md",
    "circuit breaker": "docs/reference/policies.md",
    "backpressure": "docs/reference/triggers.md",
    "change data capture": "docs/reference/triggers.md",
    "consumer group": "docs/reference/triggers.md",
    "fan-out": "docs/reference/triggers.md",
    "rate limit": "docs/reference/triggers.md",
    "scheduler": "docs/reference/triggers.md",
    "visibility timeout": "docs/reference/triggers.md",
    "cold start": "docs/concepts/runtime.md",
    "dead-letter queue": "docs/guides/failures.md",
    "long polling": "docs/reference/http.md",
}
"""The page that introduces a term, in a heading or in the first paragraph below one."""
PLAIN_PACKAGES = (
    *(
        "bus",
        "cli",
        "client",
        "environment",
        "http",
        "model",
        "node",
        "patterns",
        "sdk",
        "security",
    ),
    *("simulation", "sources", "storage", "telemetry", "testing", "topology"),
)
"""Packages whose names, docstrings, comments and messages use only the field's words, with their tests."""
PLAIN_SOURCES = ("admin", "delivery", "runtime")
"""Packages of which this holds for the source, not yet for the tests; may only shrink."""
NOT_YET_PLAIN = {
    *("model/windows.py", "sdk/windows.py", "sdk/test_windows.py"),
    *("calls/direct.py", "calls/idempotency.py", "calls/streaming.py"),
    *("partition/invocation.py", "runtime/base.py"),
}
"""Files of these packages that still have other words; may only shrink."""
LEFT = {
    "simulation": {"crowd", "patience", "told"},
    "sources": {"told"},
}
"""Words that a plain package still has: names of parts that other packages share; may only shrink."""
PLAIN_CODE = {
    package: [
        file
        for top in (ROOT / "src" / "headrace", ROOT / "tests" / "unit")
        for file in sorted((top / package).rglob("*.py"))
        if f"{file.parent.name}/{file.name}" not in NOT_YET_PLAIN
    ]
    for package in PLAIN_PACKAGES
} | {
    package: [
        file
        for file in sorted((ROOT / "src" / "headrace" / package).rglob("*.py"))
        if f"{file.parent.name}/{file.name}" not in NOT_YET_PLAIN
    ]
    for package in PLAIN_SOURCES
}
FORMER_WORDS = re.compile(
    r"(?<![^\W_])(doors?|halls?|rooms?|outlets?|crowds?|patience|speakers?|standing|begun|ground"
    r"|told|tells?|anew|whoever|whom|beside|errands?|shifts?|rosters?|dispatcher|wicket|furnish"
    r"|births?|walls|cradles?|nursery|doom|shelf)(?![^\W_])",
    re.I,
)
"""In names too, where `_` separates words."""
VAGUE = re.compile(r"(What|Whether|Who|Whom|Whose|Where|How|That|Which|When|Why)\b")
"""First words of docstrings that open with neither a verb nor a noun."""
VAGUE_PACKAGES = {"http"}
"""Plain packages of which some docstrings still do."""
OWN_CODE = re.compile(r"\b(src/headrace/)?((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)\b")
SAME_WORD = {
    "app",
    "attempt",
    "batch",
    "cause",
    "event",
    "handler",
    "host",
    "record",
    "route",
    "warm",
}
"""Entries whose word is the field's own; any other needs the words of other systems."""


def openings(page: Path) -> str:
    """The headings of a page, each with the first paragraph below it."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    parts = re.findall(r"^(#+ .+)\n+((?:.+\n)*)", prose, re.M)
    return "\n".join(" ".join(f"{title}\n{first}".split()) for title, first in parts)


@pytest.mark.parametrize(("term", "page"), TERMS.items())
def test_a_standard_term_is_introduced_on_its_page(term: str, page: str) -> None:
    assert term.lower() in openings(ROOT / page).lower()


def test_the_terms_of_other_systems_name_every_standard_term() -> None:
    text = " ".join((DOCS / "reference" / "terms.md").read_text().lower().split())
    assert {term for term in TERMS if term.lower() not in text} == set()


def test_every_entry_of_the_glossary_names_the_words_of_other_systems() -> None:
    text = (DOCS / "reference" / "glossary.md").read_text()
    entries = [" ".join(entry.split()) for entry in re.split(r"^(?=\*\*)", text, flags=re.M)[1:]]
    words = {entry.split("**")[1]: "Also called: " in entry for entry in entries}
    assert {word for word, named in words.items() if not named} - SAME_WORD == set()


def test_the_files_that_the_architecture_names_exist() -> None:
    named = {path for _, path in OWN_CODE.findall((ROOT / "ARCHITECTURE.md").read_text())}
    assert len(named) > 40
    assert {path for path in named if not (ROOT / "src" / "headrace" / path).exists()} == set()


def test_pages_use_no_insider_words() -> None:
    """Former private names, and words of an older English; the glossary has those that replaced them."""
    insider = re.compile(
        r"\b(convoys?|errands?|rosters?|pickers?|pumps?|dispatcher|outlets?|agenda|anew"
        r"|whoever|wicket|attic|shelf|shifts?|beside|whom|told|keepers)\b",
        re.I,
    )
    found = [
        f"{page.relative_to(ROOT)}:{number}: {word[0]}"
        for page in PAGES
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if (word := insider.search(line))
    ]
    assert found == []


@pytest.mark.parametrize("package", PLAIN_CODE)
def test_a_plain_package_uses_no_insider_words(package: str) -> None:
    assert PLAIN_CODE[package]
    left = LEFT.get(package, set())
    found = {
        word[0].lower(): f"{file.relative_to(ROOT)}:{number}"
        for file in PLAIN_CODE[package]
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for word in FORMER_WORDS.finditer(line)
    }
    assert {word: place for word, place in found.items() if word not in left} == {}
    assert left <= found.keys(), f"`LEFT` names words that `{package}` has no more"


@pytest.mark.parametrize("package", sorted(PLAIN_CODE.keys() - VAGUE_PACKAGES))
def test_docstrings_open_with_a_verb_or_a_noun(package: str) -> None:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = [
        f"{file.relative_to(ROOT)}: {text.splitlines()[0]}"
        for file in PLAIN_CODE[package]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, kinds) and VAGUE.match(text := ast.get_docstring(node) or "")
    ]
    assert found == []
