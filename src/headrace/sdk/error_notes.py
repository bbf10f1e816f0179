"""Notes on exceptions of authors: where in an instance's life they were raised."""

from __future__ import annotations

import contextlib


def note(error: BaseException, text: str) -> None:
    """Add a note, once, to an exception that may be raised again and again; never raises."""
    with contextlib.suppress(Exception):
        if text not in notes_of(error):
            error.add_note(text)


def notes_of(error: BaseException) -> list[str]:
    """The notes of an exception, whatever its author made of the attribute."""
    found = getattr(error, "__notes__", None)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
