"""No expression holds up the node: those of public collections, and nasty ones, against long texts.

The collections are what Pygments knows of some hundred languages (8,000) and what AWS describes the values of its services
by (7,000): some of them by default, all where `PROPERTY_EXAMPLES` is 300 or more, as in CI. Time is the processor's, of
this thread alone.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pygments.lexers._mapping import LEXERS
from pygments.util import Future

from headrace.model.errors import Misuse
from headrace.model.jsonschema import Mismatch
from headrace.patterns.schema_validation import MAX_STEPS, Checker, places_of

LETTERS = 20_000
MOST_S = 0.005
FEW = 100
MANY = int(os.environ.get("PROPERTY_EXAMPLES", "50")) >= 300
TEXTS = [
    (piece * LETTERS)[:LETTERS]
    for piece in (
        "é",
        "日本 a",
        "arn:aws:s3:::a/",
        "a",
        "ab",
        "<a b='c' ",
        "1.2e3,",
        "\\\"'",
        " \t",
        "((((a",
    )
]
# Widely copied, each of which takes an engine that tries again longer than anybody lives.
NASTY = [
    r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
    r"^(([a-zA-Z0-9]+)([\.\-_]?))*@$",
    r"(x+x+)+y",
    r"^(a|aa)+$",
    r"^(a|a?)+$",
    r"(.*a){20}b",
    r"^(\w+\s?)*$",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(a*)*b",
    r".*.*=.*",
    r"(a|b)*a(a|b){100}c",
    r"^([^/]([!-~]+/){1,511})?[A-Za-z0-9_+=,.@-]{1,64}$",
]


def seconds(checker: Checker, text: str) -> float:
    """Time to match the text against it; the best of a few, since caches fill meanwhile."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(Mismatch):
            checker.check(text)
        found.append(time.thread_time() - began)
        if found[-1] < MOST_S:
            break
    return min(found)


def of_languages(languages: Sequence[str]) -> list[str]:
    """Names of these languages in Pygments."""
    found: dict[str, None] = {}
    for name in languages:
        lexer = getattr(import_module(LEXERS[name][0]), name)
        for rules in getattr(lexer, "tokens", {}).values():
            for rule in rules:
                first = rule[0] if isinstance(rule, tuple) and rule else None
                if isinstance(first, Future):
                    first = first.get()
                if isinstance(first, str):
                    found[first] = None
    return list(found)


def of_services() -> list[str]:
    """Expressions in the descriptions of AWS's services: in requests (botocore) and templates (cfn-lint)."""
    found: dict[str, None] = {}

    def look(data: Any) -> None:
        if isinstance(data, dict):
            if isinstance(said := data.get("pattern"), str):
                found[said] = None
            for each in data.values():
                look(each)
        elif isinstance(data, list):
            for each in data:
                look(each)

    for package, files in (("botocore", "data/*/*/service-2.json*"), ("cfnlint", "data/**/*.json")):
        at = Path(str(pytest.importorskip(package, reason="`make setup-all` brings it").__file__))
        for file in sorted(at.parent.glob(files)):
            raw = file.read_bytes()
            with contextlib.suppress(ValueError):
                look(json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw))
    return list(found)


def chosen(found: list[str]) -> list[str]:
    """All of them, or some where somebody waits for the answer."""
    return found if MANY else Random(7).sample(found, FEW)


def longest(expression: str) -> int:
    """The longest text that is matched at all."""
    return min(LETTERS, MAX_STEPS // places_of(expression))


def slow(expressions: Iterable[str]) -> tuple[int, list[tuple[str, str, float]]]:
    """Count the usable ones, and list those that take too long, with the text and the seconds."""
    ran, found = 0, []
    for expression in expressions:
        try:
            checker = Checker({"type": "string", "pattern": expression})
        except Misuse:
            continue
        ran += 1
        chance = Random(expression)
        letters = expression + "aé1"
        own = (expression * LETTERS)[:LETTERS]
        mixed = "".join(chance.choices(letters, k=LETTERS))
        found += [
            (expression, text[:20], spent)
            for text in (*TEXTS, own, mixed)
            # As much as is matched at all, where that is less.
            for part in {text, text[: longest(expression)]}
            if (spent := seconds(checker, part)) > MOST_S
        ]
    return ran, found


@pytest.mark.parametrize("expression", NASTY)
def test_a_nasty_expression_takes_no_time(expression: str) -> None:
    checker = Checker({"type": "string", "pattern": expression})
    for text in (*TEXTS, "a" * (LETTERS - 1) + "!", "x" * LETTERS, "a@" * (LETTERS // 2)):
        assert seconds(checker, text) < MOST_S


def test_what_languages_are_known_by_takes_no_time() -> None:
    ran, found = slow(
        chosen(of_languages(sorted(LEXERS) if MANY else Random(7).sample(sorted(LEXERS), 25)))
    )
    assert not found, found[:20]
    assert ran > (5_000 if MANY else FEW // 2)


def test_what_services_hold_values_against_takes_no_time() -> None:
    ran, found = slow(chosen(of_services()))
    assert not found, found[:20]
    assert ran > (6_000 if MANY else FEW // 2)
