"""The family of errors Headrace raises, grouped by who must act.

What the author's own code raised is never one of these: it travels as an outcome. Every class
carries a stable `code`, which is listed in `docs/reference/errors.md` and shown in HTTP answers.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class HeadraceError(Exception):
    """The root of the family; catch it to catch everything Headrace itself reports."""

    code: ClassVar[str] = "headrace"


class Misuse(HeadraceError):
    """The author or operator must change something: a name, a type, a setting."""

    code: ClassVar[str] = "misuse"


class Unknown(Misuse):
    """The named stream, function, group or record does not exist."""

    code: ClassVar[str] = "unknown"


class Invalid(Misuse):
    """The bytes or values handed in are not of the form that was asked for."""

    code: ClassVar[str] = "invalid"


class TooLarge(Misuse):
    """An event or request is larger than its stream or route allows."""

    code: ClassVar[str] = "too-large"


class Unavailable(HeadraceError):
    """Nothing is wrong with the request; try again later."""

    code: ClassVar[str] = "unavailable"


class DiskFull(Unavailable):
    """The disk cannot take another record; what was acknowledged is safe."""

    code: ClassVar[str] = "disk-full"


DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Overloaded(Unavailable):
    """A bounded queue is full; the producer must slow down."""

    code: ClassVar[str] = "overloaded"


class Fenced(HeadraceError):
    """Another owner has taken over; what this one was about to commit must not land."""

    code: ClassVar[str] = "fenced"


class Conflict(HeadraceError):
    """State read by an invocation has changed since; run the invocation again on fresh state."""

    code: ClassVar[str] = "conflict"


class Refused(HeadraceError):
    """A limit or an access rule forbids it."""

    code: ClassVar[str] = "refused"


def is_final(error: BaseException) -> bool:
    """Return whether the same event would meet the same error again, so that another attempt is useless."""
    return isinstance(error, (Refused, Invalid, Unknown, TooLarge))


class Locked(Refused):
    """Another process owns the data folder."""

    code: ClassVar[str] = "locked"


class Corrupt(HeadraceError):
    """Stored bytes do not match their checksum or form: stop and shout."""

    code: ClassVar[str] = "corrupt"


def denied(what: str, error: OSError) -> Unavailable:
    """Explain that the system denied us `what`: a sentence without its end."""
    reason = error.strerror or str(error)
    if error.errno in DISK_FULL:
        return DiskFull(f"{what}: {reason}; free some space, what was acknowledged is safe")
    return Unavailable(f"{what}: {reason}; the machine's limits or rights do not allow it now")
