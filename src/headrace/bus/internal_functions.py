"""Functions of the platform's own, run in the host beside the author's: one more way to invoke.

In: invocations. Out: outcomes, from the platform's handler where there is one, else from the runtime
below. So whatever the platform does for itself is delivered, retried and dead-lettered as any
function's work is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from headrace.delivery.unit import cut
from headrace.environment.clock import Clock
from headrace.model.errors import Corrupt, Unavailable, is_final
from headrace.model.invocation import Invocation
from headrace.model.outcome import Cause, Outcome, Returned, TimedOut
from headrace.runtime.base import Invoker

Handler = Callable[[Invocation], Awaitable[Outcome]]


class InternalInvoker:
    """An `Invoker` in front of another.

    Attributes:
        handlers: The platform's functions, by full name.
    """

    def __init__(self, below: Invoker, *, clock: Clock) -> None:
        self.handlers: dict[str, Handler] = {}
        self._below = below
        self._clock = clock

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Run it to its end and say what came back.

        Raises:
            Unknown: No such function is deployed here.
            Unavailable: There is no room to run it now.
            Corrupt: What was stored cannot be read.
        """
        handler = self.handlers.get(invocation.function)
        if handler is None:
            return await self._below.invoke(invocation)
        if invocation.each:
            # The platform's functions take batch by batch: this is the first, the rest comes again.
            chunks = cut(invocation.chunks, 0, invocation.each)
            outcome = await self.invoke(replace(invocation, chunks=chunks, each=0))
            if not isinstance(outcome, Returned):
                return outcome
            return replace(outcome, untouched=invocation.each)
        try:
            return await self._clock.timeout(handler(invocation), invocation.timeout)
        except TimeoutError:
            late = f"the invocation took longer than {invocation.timeout:g} s"
            return TimedOut(Cause("TimedOut", late))
        except (Corrupt, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - judged like an author's
            final = is_final(error)
            return Returned(error=Cause(type(error).__name__, str(error), retryable=not final))

    async def close(self) -> None:
        """Close the runtime below."""
        await self._below.close()
