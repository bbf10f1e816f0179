"""The trigger that lets a function consume by itself where a stream's lag is high enough: `Lag`.

It is a value; `delivery/assignment/lag_scaler` serves it. Bad settings are refused when written.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.model.durations import Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy_struct import PolicyStruct, default
from headrace.model.triggers.field_types import StreamName, keep_name

MAX_INSTANCES: Final = 1_000
MAX_LIFESPAN_S: Final = 43_200.0


class Lag(PolicyStruct, frozen=True, tag="lag"):
    """A stream's lag decides how many instances run; each fetches and commits by a `Consumer`.

    Attributes:
        stream: The stream, or its name. The function's group is its own, and this is its only trigger.
        thresholds: From which lag (events not finished, all partitions together) how many instances
            run; below the lowest none does. Never more than there are partitions.
        lifespan: The time (such as `"5m"`) after which an instance is given no more
            events; it then has the function's `timeout` to come to its end.
        every: The time between two looks at the lag, at least.
        slack: By which share of a threshold the lag must have fallen below it before fewer run.
        start: Where the group begins, as for a stream: `earliest`, `latest`, an offset, `@micros`.
    """

    stream: StreamName
    thresholds: dict[int, int] = msgspec.field(default_factory=lambda: {0: 0, 1: 1})
    lifespan: Seconds = default(60.0)
    every: Seconds = default(0.5)
    slack: float = 0.2
    start: str = "earliest"

    def __post_init__(self) -> None:
        """Refuse what cannot work; spans become seconds.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        keep_name(self, "stream")
        stream: Any = self.stream
        if not isinstance(stream, str) or not stream:
            raise Misuse(
                f'`Lag(...)`: `stream={stream!r}` is not a stream; write the stream itself, or its name such as `"orders"`'
            )
        what = f"Lag({stream!r})"
        table: Any = self.thresholds
        if not isinstance(table, dict) or not table:
            raise Misuse(f"`{what}`: `thresholds=` says nothing; write `{{0: 0, 1_000: 1}}`")
        for lag, count in table.items():
            if not _is_whole(lag, 1 << 62) or not _is_whole(count, MAX_INSTANCES):
                raise Misuse(
                    f"`{what}`: `thresholds=` has {lag!r}: {count!r}; write a lag from 0 and a "
                    f"number of instances up to {MAX_INSTANCES:,}"
                )
        counts = [table[lag] for lag in sorted(table)]
        if counts != sorted(counts) or not counts[-1]:
            raise Misuse(
                f"`{what}`: with more lag at least as many instances must run, in the end one"
            )
        slack: Any = self.slack
        if not isinstance(slack, (int, float)) or isinstance(slack, bool) or not 0 <= slack < 1:
            raise Misuse(f"`{what}`: `slack={slack!r}` is not a share; use 0 up to less than 1")
        limit = f"`lifespan=` of `{what}`"
        keep_seconds(self, "lifespan", low=0.1, high=MAX_LIFESPAN_S, what=limit)
        keep_seconds(self, "every", low=0.05, high=3_600, what=f"`every=` of `{what}`")

    @property
    def lifespan_s(self) -> float:
        """Seconds."""
        return self.lifespan

    @property
    def every_s(self) -> float:
        """Seconds."""
        return self.every

    def instances(self, lag: int, now: int) -> int:
        """Number of instances that are to run at this lag, while `now` of them do."""
        up = self._step(lag)
        # Fewer only when a little more lag than there is would not ask for as many again.
        return up if up >= now else min(now, self._step(int(lag / (1 - self.slack))))

    def _step(self, lag: int) -> int:
        return max((count for least, count in self.thresholds.items() if lag >= least), default=0)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
