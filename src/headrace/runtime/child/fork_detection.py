"""Detection of forks by an author's code: a forked process is not an instance.

The child of such a fork has a copy of its parent's state: the channel, the current run, its notes.
It may run the author's code to its end; where that code returns to the platform, the child exits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from headrace.model.errors import Misuse

T = TypeVar("T")

count = 0
"""The number of forks between the first process and this one. It differs from an earlier value only in the child of
a fork, and reading it is faster than `os.getpid`, which is a system call."""


def _note() -> None:
    global count
    count += 1


# Runs for `os.fork` and `multiprocessing`; a C library that forks by itself escapes it, which the
# pid check of the channel covers.
os.register_at_fork(after_in_child=_note)


def guarded(call: Callable[[], T]) -> T:
    """Call the author's code; a process that it forked exits where the call returns or raises."""
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
    """Return the error for a forked process that requests what only its instance has."""
    return Misuse(
        f"{what} was asked for in a process that the handler forked; only the process that runs "
        "the handler can do so: hand the result to it, and do it there"
    )


def leave(error: BaseException | None = None) -> NoReturn:
    """Exit a forked process with Python's exit codes, but without the exit hooks that its parent registered."""
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = _exit_code(error)
        elif error is not None:
            code = 1
            sys.excepthook(type(error), error, error.__traceback__)
        for stream in (sys.stdout, sys.stderr):
            # Our streams hold only this process's text; any other buffer may hold text that the
            # parent will write, which would then appear twice.
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
