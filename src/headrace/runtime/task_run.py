"""A run as a task of the host: an interceptor answers a run by itself with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headrace.environment.tasks import Tasks
from headrace.model.invocation import InvocationBase
from headrace.model.outcome import Outcome
from headrace.runtime.base import Waiter

AnyInvocation = TypeVar("AnyInvocation", bound=InvocationBase)


class TaskRun:
    """Implements `runtime.base.Run`: no other run is sent ahead of its end."""

    takes_another = False

    def __init__(
        self,
        tasks: Tasks,
        work: Callable[[AnyInvocation], Awaitable[Outcome]],
        invocation: AnyInvocation,
        done: Waiter,
    ) -> None:
        self._task = tasks.start(_run(work, invocation, done), name=f"run {invocation.function}")

    def cancel(self) -> bool:
        """Cancel its task; False if it has ended."""
        return self._task.cancel()


async def _run(
    work: Callable[[AnyInvocation], Awaitable[Outcome]], invocation: AnyInvocation, done: Waiter
) -> None:
    try:
        outcome = await work(invocation)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - also what ends the host: the caller must not wait for ever
        if not done.done():
            done.set_exception(error)
    else:
        if not done.done():
            done.set_result(outcome)
