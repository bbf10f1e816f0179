"""What operators ask of a partition (redrive, reset, empty): done by its one writer, between two units."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from headrace.delivery.partition.wakeup import Wakeup
from headrace.model.errors import Unavailable


class OperatorRequests:
    """Owned by one partition worker, which carries them out; anybody on the loop may ask.

    Attributes:
        is_closed: Whether the partition has been let go, and nothing can be asked any more.
    """

    def __init__(self, function: str, partition: int, wakeup: Wakeup) -> None:
        self.is_closed = False
        self._function = function
        self._partition = partition
        self._wakeup = wakeup
        self._waiting: deque[Callable[[], Awaitable[None]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def ask(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have `work` done while nothing is in flight; returns, or raises, as it does.

        Raises:
            Unavailable: The partition has been let go.
        """
        if self.is_closed:
            raise Unavailable(f"`{self._function}` has let go of partition {self._partition}")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def carry_out() -> None:
            if done.done():
                # Whoever asked has gone.
                return
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        self._waiting.append(carry_out)
        self._wakeup.wake()
        await done

    async def carry_out_next(self) -> None:
        """Do what was asked first."""
        await self._waiting.popleft()()

    async def close(self) -> None:
        """Do all that was asked, and let nothing more be asked."""
        while self._waiting:
            await self.carry_out_next()
        self.is_closed = True
