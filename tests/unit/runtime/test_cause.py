"""How a failure is told: by the name of what was raised."""

from __future__ import annotations

from headrace.runtime.child.cause import cause_of
from headrace.runtime.child.channel import HostRefused


def test_what_the_host_could_not_do_is_told_by_its_name_there() -> None:
    found = cause_of(HostRefused("Corrupt", "the file is damaged"))
    assert (found.kind, found.message) == ("Corrupt", "the file is damaged")


def test_what_the_author_raised_is_told_by_its_class() -> None:
    assert cause_of(KeyError("k")).kind == "KeyError"
