"""The table of the platform's own paths: each is answered by a handler, or by a pipeline of its own steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.http.context import ApiContext, Handler
from headrace.http.pipeline.step import RouteEnd, RouteStep
from headrace.http.router import Router


@dataclass(frozen=True)
class OwnSteps:
    """A path of the platform's own that is answered by a pipeline instead of a handler.

    Attributes:
        compile: Makes the steps and the end from the texts in the path's braces.
    """

    compile: Callable[[ApiContext, tuple[str, ...]], tuple[Sequence[RouteStep], RouteEnd]]


Routes = Router[Handler | OwnSteps]
