"""No expression holds up the node: those of a public collection, and nasty ones, against long texts.

The collection is what Pygments knows of some hundred languages: 150 expressions of it by default,
all of some 8,000 where `PROPERTY_EXAMPLES` is 1,000 or more. Time is the processor's, of this thread alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from importlib import import_module
from random import Random

import pytest
from pygments.lexers._mapping import LEXERS
from pygments.util import Future

from headrace.model.errors import Misuse
from headrace.model.schemas import Mismatch
from headrace.triggers.schemas import Checker

LETTERS = 20_000
MOST_S = 0.005
MANY = int(os.environ.get("PROPERTY_EXAMPLES", "50")) >= 1_000
TEXTS = [
    (piece * LETTERS)[:LETTERS]
    for piece in ("a", "ab", "<a b='c' ", "1.2e3,", "\\\"'", " \t", "((((a")
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
]


def seconds(checker: Checker, text: str) -> float:
    """What holding the text against it costs; the best of a few, since caches fill meanwhile."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(Mismatch):
            checker.check(text)
        found.append(time.thread_time() - began)
        if found[-1] < MOST_S:
            break
    return min(found)


def collected() -> list[str]:
    """The collection's expressions, in a fixed order."""
    languages = sorted(LEXERS)
    chosen = languages if MANY else Random(7).sample(languages, 25)
    found: dict[str, None] = {}
    for name in chosen:
        lexer = getattr(import_module(LEXERS[name][0]), name)
        for rules in getattr(lexer, "tokens", {}).values():
            for rule in rules:
                first = rule[0] if isinstance(rule, tuple) and rule else None
                if isinstance(first, Future):
                    first = first.get()
                if isinstance(first, str):
                    found[first] = None
    return list(found) if MANY else list(found)[:150]


@pytest.mark.parametrize("expression", NASTY)
def test_a_nasty_expression_takes_no_time(expression: str) -> None:
    checker = Checker({"type": "string", "pattern": expression})
    for text in (*TEXTS, "a" * (LETTERS - 1) + "!", "x" * LETTERS, "a@" * (LETTERS // 2)):
        assert seconds(checker, text) < MOST_S


def test_expressions_of_a_public_collection_take_no_time() -> None:
    ran = 0
    slow = []
    for expression in collected():
        try:
            checker = Checker({"type": "string", "pattern": expression})
        except Misuse:
            continue
        ran += 1
        own = (expression * LETTERS)[:LETTERS] if expression.isascii() else ""
        slow += [
            (expression, text[:20], spent)
            for text in (*TEXTS, own)
            if (spent := seconds(checker, text)) > MOST_S
        ]
    assert slow == []
    assert ran > (5_000 if MANY else 100)
