"""Starts the runs of one function: an argument of its partition workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.runtime.base import Submit


@dataclass(frozen=True)
class FunctionRuntime:
    """Starts runs.

    Attributes:
        submit: Starts a run; its outcome has passed the checks and may be committed.
        recall: Takes back unfinished messages that are leased to programs outside.
    """

    submit: Submit
    recall: Callable[[], None] = lambda: None
