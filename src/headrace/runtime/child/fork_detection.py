"""Detection of forks by an author's code: a forked process is not an instance.

The child of such a fork has a copy of all that its parent has: the channel, the runs in hand, what
was noted. It may run the author's code to its end; where that hands back to us, the child ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from headrace.model.errors import Misuse

T = TypeVar("T")

count = 0
"""How many forks lie between the first of all processes and this one. Differs from what was noted
earlier only in the child of a fork, and is quicker to ask for than the process's number."""


def _note() -> None:
    global count
    count += 1


os.register_at_fork(after_in_child=_note)


def guarded(call: Callable[[], T]) -> T:
    """Call the author's code; a process that it forked ends where it returns or raises."""
    started_as = count
    try:
        result = call()
    except BaseException as error:
        if count != started_as:
            leave(error)
        raise
    if count != started_as:
        leave()
    return result


def refusal(what: str) -> Misuse:
    """The error of a forked process that asks for what only its instance has."""
    return Misuse(
        f"{what} was asked for in a process that the handler forked; only the process that runs "
        "the handler can do so: hand the result to it, and do it there"
    )


def leave(error: BaseException | None = None) -> NoReturn:
    """End a forked process as Python ends a program, but run nothing that its parent registered."""
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = _exit_code(error)
        elif error is not None:
            code = 1
            sys.excepthook(type(error), error, error.__traceback__)
        for stream in (sys.stdout, sys.stderr):
            # Ours hold what this process said; in others may be what its parent has yet to write.
            finish = getattr(stream, "finish", None)
            if finish is not None:
                finish()
    finally:
        os._exit(code)


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1
