"""What every handler is given: the rooms, the door's own counters, and whether it is closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from headrace.faces.gateway.admission import Admission
from headrace.faces.gateway.buckets import Buckets
from headrace.faces.gateway.metrics import Metrics
from headrace.faces.gateway.requests import Request
from headrace.faces.gateway.responses import Response
from headrace.faces.gateway.rooms import Rooms
from headrace.faces.gateway.routes import Router
from headrace.world.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class Door:
    """One per gateway; handlers read it and change only its counters.

    Attributes:
        scheme: What clients speak: `http` or `https`.
    """

    rooms: Rooms
    admission: Admission
    metrics: Metrics
    tasks: Tasks
    scheme: Literal["http", "https"] = "http"
    buckets: Buckets = field(default_factory=Buckets)
    closing: asyncio.Event = field(default_factory=asyncio.Event)


Handler = Callable[[Door, Request, tuple[str, ...]], Awaitable[Response]]
Routes = Router[Handler]
