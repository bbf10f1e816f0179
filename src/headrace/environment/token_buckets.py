"""Token buckets by name, bounded in number: how often each of many may do something.

Pure but for what it remembers; the time is given. One that is forgotten begins with a full bucket,
which costs no more than one burst.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class TokenBuckets:
    """Touched by one thread at a time.

    Args:
        bound: How many are remembered; then the one that was used longest ago is forgotten.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, of: Hashable, *, speed: float, depth: float, now: float) -> float:
        """Take a token out of a bucket that `speed` tokens a second fill up to `depth`.

        Returns:
            0 where there was one, else the seconds until there is.
        """
        level, seen = self._buckets.pop(of, (depth, now))
        level = min(depth, level + max(now - seen, 0.0) * speed)
        passes = level >= 1.0
        self._buckets[of] = (level - 1.0 if passes else level, now)
        if len(self._buckets) > self._bound:
            self._buckets.popitem(last=False)
        return 0.0 if passes else (1.0 - level) / speed
