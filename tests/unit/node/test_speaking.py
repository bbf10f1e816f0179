"""Log lines of libraries that a node writes to stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from headrace.node.lifecycle import speak

NAMES = (None, "headrace", "aiormq")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in NAMES}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_libraries_are_heard_only_where_something_alarms_them() -> None:
    speak("INFO")
    assert logging.getLogger("headrace.node").isEnabledFor(logging.INFO)
    for name in ("asyncssh", "watchfiles.main"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
        assert logging.getLogger(name).isEnabledFor(logging.WARNING)
    # It repeats what the trigger's own line says.
    assert not logging.getLogger("aiormq.connection").isEnabledFor(logging.ERROR)


def test_who_asks_for_everything_hears_the_libraries_too() -> None:
    speak("DEBUG")
    assert logging.getLogger("headrace.node").isEnabledFor(logging.DEBUG)
    assert logging.getLogger("asyncssh").isEnabledFor(logging.DEBUG)


def test_who_wants_errors_alone_hears_no_warning() -> None:
    speak("ERROR")
    assert not logging.getLogger("headrace.node").isEnabledFor(logging.WARNING)
    assert not logging.getLogger("asyncssh").isEnabledFor(logging.WARNING)
