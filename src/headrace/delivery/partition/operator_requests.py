"""Operators' requests to a partition (redrive, reset, empty): executed by its only writer, between two units."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from headrace.delivery.partition.wakeup import Wakeup
from headrace.model.errors import Unavailable


class OperatorRequests:
    """Owned by one partition worker, which executes them; any task on the loop may add one.

    Attributes:
        is_closed: Whether the partition was released, and requests are refused.
    """

    def __init__(self, function: str, partition: int, wakeup: Wakeup) -> None:
        self.is_closed = False
        self._function = function
        self._partition = partition
        self._wakeup = wakeup
        self._waiting: deque[Callable[[], Awaitable[None]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def request(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have `work` executed while nothing is in flight; return or raise as it does.

        Raises:
            Unavailable: The partition was released.
        """
        if self.is_closed:
            raise Unavailable(f"`{self._function}` has released partition {self._partition}")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def carry_out() -> None:
            if done.done():
                # The requester was cancelled.
                return
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - raised in the requester
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        self._waiting.append(carry_out)
        self._wakeup.wake()
        await done

    async def carry_out_next(self) -> None:
        """Execute the oldest request."""
        await self._waiting.popleft()()

    async def close(self) -> None:
        """Execute the waiting requests, then refuse later ones."""
        while self._waiting:
            await self.carry_out_next()
        self.is_closed = True
