"""How the runs of one function are started, as its partition workers are given it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.runtime.base import Submit


@dataclass(frozen=True)
class FunctionRuntime:
    """Starts runs.

    Attributes:
        submit: Starts a run; its outcome is one that may land.
        recall: Takes back what is leased to programs outside and not finished.
    """

    submit: Submit
    recall: Callable[[], None] = lambda: None
