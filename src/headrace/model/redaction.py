"""Texts without secrets: every exact value that is known is replaced by the secret's name. Pure.

In: values by name, then texts. Out: the texts as they may be logged, stored and shown. A value of many
lines is known by each of them as well, since logs are kept line by line. What code made of a value
(a part, a hash, another encoding) is not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec.structs import replace

from headrace.model.outcome import Cause, Crashed, Outcome, Returned, TimedOut

MIN_CHARACTERS: Final = 4
"""Shorter values are not blotted out: they would be found everywhere."""
MAX_KEPT: Final = 4
"""Values that are remembered of one secret, the newest: what it was before may still appear."""

Blot: TypeAlias = Callable[[str], str]
"""A text without secrets."""


class Redaction:
    """The values that must not appear anywhere. Owned by the part that hands out secrets."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, name: str, value: str) -> None:
        """This is the value of the secret of that name now."""
        known = self._values.setdefault(name, [])
        if known and known[-1] == value:
            return
        known[:] = [*(each for each in known if each != value), value][-MAX_KEPT:]
        self._names = {
            form: name
            for name, values in self._values.items()
            for each in values
            for form in _forms(each)
        }
        forms = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None

    def blot(self, text: str) -> str:
        """The text, with `[secret NAME]` where a value stood."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found[0]]}]", text)


def _forms(value: str) -> set[str]:
    """Forms in which a value may appear: as it is, as Python shows it, line by line."""
    forms = {value, repr(value)[1:-1], *value.splitlines()}
    return {form for form in forms if len(form) >= MIN_CHARACTERS}


def blotted(outcome: Outcome, blot: Blot) -> Outcome:
    """The outcome as it may be kept: nothing that it says of failures holds a secret."""
    match outcome:
        case Returned():
            return blotted_return(outcome, blot)
        case Crashed() | TimedOut():
            return replace(outcome, cause=_cause(outcome.cause, blot))


def blotted_return(returned: Returned, blot: Blot) -> Returned:
    """As `blotted`; what did not fail comes back as it is."""
    if returned.error is None and not returned.failures:
        return returned
    return replace(
        returned,
        error=None if returned.error is None else _cause(returned.error, blot),
        failures=tuple(replace(each, cause=_cause(each.cause, blot)) for each in returned.failures),
    )


def _cause(cause: Cause, blot: Blot) -> Cause:
    return replace(
        cause, kind=blot(cause.kind), message=blot(cause.message), traceback=blot(cause.traceback)
    )
