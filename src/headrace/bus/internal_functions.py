"""Internal functions of the platform, run in the host process.

In: invocations. Out: outcomes, from the platform's handler where there is one, else from the runtime
below. So whatever the platform does for itself is delivered, retried and dead-lettered as any
function's work is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from headrace.delivery.unit import cut
from headrace.environment.clock import Clock
from headrace.environment.tasks import Tasks
from headrace.model.errors import Corrupt, Unavailable, Unknown, is_final
from headrace.model.invocation import BatchInvocation, CoalescedInvocation, Invocation
from headrace.model.outcome import Cause, Outcome, Returned, TimedOut
from headrace.runtime.base import Run, Submit, Waiter
from headrace.runtime.task_run import TaskRun

Handler = Callable[[BatchInvocation], Awaitable[Outcome]]


class InternalFunctions:
    """An interceptor: runs the platform's functions, and passes every other run on.

    Attributes:
        handlers: The platform's functions, by full name.
    """

    def __init__(self, clock: Clock, tasks: Tasks) -> None:
        self.handlers: dict[str, Handler] = {}
        self._clock = clock
        self._tasks = tasks

    def intercept(self, below: Submit) -> Submit:
        """A `runtime.base.Interceptor`. Calls are passed on: internal functions have batches only."""

        def submit(invocation: Invocation, done: Waiter, after: Run | None = None, /) -> Run:
            if invocation.function in self.handlers and isinstance(invocation, BatchInvocation):
                return TaskRun(self._tasks, self._run, invocation, done)
            return below(invocation, done, after)

        return submit

    async def _run(self, invocation: BatchInvocation) -> Outcome:
        """Run it to its end and say what came back.

        Raises:
            Unknown: It is gone meanwhile.
            Unavailable: It cannot run now.
            Corrupt: What was stored cannot be read.
        """
        handler = self.handlers.get(invocation.function)
        # A refresh may have removed it while the batch waited.
        if handler is None:
            raise Unknown(f"there is no function `{invocation.function}` any more")
        # Coalescing saves round trips to an instance, of which there are none here.
        if type(invocation) is CoalescedInvocation:
            # The platform's functions take batch by batch: this is the first, the rest comes again.
            chunks = cut(invocation.chunks, 0, invocation.each)
            outcome = await self._run(invocation.batch(chunks, 0))
            if (returned := outcome.returned) is None:
                return outcome
            return replace(returned, untouched=invocation.each)
        try:
            return await self._clock.timeout(handler(invocation), invocation.timeout)
        except TimeoutError:
            late = f"the invocation took longer than {invocation.timeout:g} s"
            return TimedOut(Cause("TimedOut", late))
        # Errors of the platform, not of the event: the worker handles them as it does those of the
        # runtime.
        except (Corrupt, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - judged like an author's
            final = is_final(error)
            return Returned(error=Cause(type(error).__name__, str(error), retryable=not final))
