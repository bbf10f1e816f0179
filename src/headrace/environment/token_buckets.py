"""Token buckets by name, bounded in number: rate limits for many clients.

Pure but for its state; the caller passes the time. A bucket that was evicted starts full again,
which allows at most one additional burst.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class TokenBuckets:
    """Used by one thread at a time.

    Args:
        bound: The maximum number of buckets; beyond it the least recently used one is evicted.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, of: Hashable, *, speed: float, depth: float, now: float) -> float:
        """Take a token from a bucket that `speed` tokens a second fill up to `depth`.

        Returns:
            0 if there was one, otherwise the seconds until there is one.
        """
        # Removed and added again, so that the order of the dictionary is that of the last use.
        level, seen = self._buckets.pop(of, (depth, now))
        # Filled when it is used: a timer per bucket would cost more than this.
        level = min(depth, level + max(now - seen, 0.0) * speed)
        passes = level >= 1.0
        self._buckets[of] = (level - 1.0 if passes else level, now)
        if len(self._buckets) > self._bound:
            self._buckets.popitem(last=False)
        return 0.0 if passes else (1.0 - level) / speed
