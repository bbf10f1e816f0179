"""How a failure is told: by the name of what was raised."""

from __future__ import annotations

import pytest

from headrace import Permanent
from headrace.model.errors import Invalid, Misuse, Refused, TooLarge, Unavailable, Unknown
from headrace.runtime.child.channel import HostRefused
from headrace.runtime.child.error_cause import cause_of


def test_what_the_host_could_not_do_is_told_by_its_name_there() -> None:
    found = cause_of(HostRefused("Corrupt", "the file is damaged"))
    assert (found.kind, found.message) == ("Corrupt", "the file is damaged")


def test_what_the_author_raised_is_told_by_its_class() -> None:
    assert cause_of(KeyError("k")).kind == "KeyError"


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (Refused("no"), False),
        (Invalid("no"), False),
        (Unknown("no"), False),
        (Permanent("no"), False),
        (TooLarge("no"), False),
        (HostRefused("Unknown", "no", final=True), False),
        (HostRefused("Unavailable", "no"), True),
        (Unavailable("no"), True),
        (Misuse("no"), True),
        (KeyError("no"), True),
    ],
)
def test_what_the_same_event_would_meet_again_is_not_tried_again(
    error: Exception, retryable: bool
) -> None:
    assert cause_of(error).retryable is retryable
