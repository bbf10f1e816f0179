"""Error of user code as a value: class name, text, and the author's frames, each with a limit."""

from __future__ import annotations

from typing import Any

from headrace.model.errors import is_final
from headrace.model.exception_names import classes_of
from headrace.model.outcome import Cause
from headrace.model.policy import MAX_TRACEBACK
from headrace.model.redaction import Blot
from headrace.runtime.child.channel import HostRefused
from headrace.runtime.child.environment_variables import unset_variable
from headrace.runtime.child.file_advice import advice
from headrace.sdk.error_notes import notes_of
from headrace.sdk.event import Undecodable
from headrace.sdk.results import Permanent
from headrace.sdk.source_location import is_ours

MAX_MESSAGE = 4_096


def cause_of(error: BaseException, blot: Blot = str) -> Cause:
    """Return the cause of a failure, without secrets; never raises, whatever the exception's own methods do."""
    # An error of the host keeps its class name, so that policies match it as with the inline
    # runtime.
    kind = error.kind if isinstance(error, HostRefused) else type(error).__name__
    final = (
        error.final
        if isinstance(error, HostRefused)
        else isinstance(error, (Permanent, Undecodable)) or is_final(error)
    )
    return Cause(
        kind=kind,
        # Redact before the cut: a secret that the limit divides would no longer be recognised.
        message=blot(_clean(describe(error)))[:MAX_MESSAGE],
        traceback=_traceback(error, blot),
        retryable=not final,
        classes=() if isinstance(error, HostRefused) else classes_of(error),
    )


def describe(error: BaseException) -> str:
    """Return the error's own text with its notes, and advice if there is any."""
    text = unset_variable(error) or _text(error)
    if notes := notes_of(error):
        text = f"{text} ({'; '.join(notes)})"
    more = advice(error)
    return f"{text}; {more}" if more else text


def failed_for(reason: object, blot: Blot) -> Cause:
    """Return the cause of a failure that an author described: without secrets, then cut to length."""
    return Cause("Failed", blot(str(reason))[:MAX_MESSAGE])


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as worse:  # noqa: BLE001  # the author's `__str__` may do anything
        return f"<its text cannot be had: {type(worse).__name__}>"


def _traceback(error: BaseException, blot: Blot) -> str:
    # Imported at the first failure only: it costs a fresh process more than a short run does.
    from traceback import TracebackException

    try:
        # The last frames, as a recursion's first ones say least; the limit bounds the cost of
        # formatting.
        found = TracebackException.from_exception(error, limit=-64)
        _strip(found, set())
        text = blot(_clean("".join(found.format())))
    except BaseException as worse:  # noqa: BLE001  # as above
        return f"<the traceback cannot be had: {type(worse).__name__}>"
    if len(text) <= MAX_TRACEBACK:
        return text
    head, tail = MAX_TRACEBACK // 4, MAX_TRACEBACK * 3 // 4 - 40
    return f"{text[:head]}\n... {len(text) - head - tail:,} characters left out ...\n{text[-tail:]}"


def _strip(found: Any, seen: set[int]) -> None:
    """Remove the platform's frames from the exception and from its causes."""
    # Exceptions may refer to each other in a circle.
    if found is None or id(found) in seen:
        return
    seen.add(id(found))
    found.stack[:] = [frame for frame in found.stack if not is_ours(frame.filename)]
    _strip(found.__cause__, seen)
    _strip(found.__context__, seen)
    for each in getattr(found, "exceptions", None) or ():
        _strip(each, seen)


def _clean(text: str) -> str:
    """Return text that can be encoded as UTF-8."""
    # Lone surrogates (from `surrogateescape`, or bad JSON) are valid in a `str` and refused by the
    # encoder.
    return text.encode("utf-8", "backslashreplace").decode()
