"""How the runs of one function are started, as its partition workers are given it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.model.outcome import Outcome
from headrace.runtime.base import Invoker, Lead


@dataclass(frozen=True)
class FunctionRuntime:
    """Starts runs, and looks at their outcomes before anybody else.

    Attributes:
        invoker: Runs a unit to its end.
        lead: Begins a run that others may follow; None where the runtime cannot.
        vet: The outcome as it may land: outputs that the function may not make fail it.
        recall: Takes back what is leased to programs outside and not finished.
    """

    invoker: Invoker
    lead: Lead | None = None
    vet: Callable[[Outcome], Outcome] = lambda outcome: outcome
    recall: Callable[[], None] = lambda: None
