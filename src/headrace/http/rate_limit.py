"""How often one client may come: a token bucket for each client of each route. The time is given."""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache
from typing import ClassVar

from headrace.environment.token_buckets import TokenBuckets
from headrace.model.errors import Overloaded
from headrace.model.triggers.http import PerClient

MAX_BUCKETS = 16_384


class TooOften(Overloaded):
    """A client asked more often than its route allows.

    Attributes:
        retry_after: Seconds until it may again.
    """

    code: ClassVar[str] = "too-often"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimiter:
    """The buckets of an HTTP server. Touched only on its loop."""

    def __init__(self, bound: int = MAX_BUCKETS) -> None:
        self._buckets = TokenBuckets(bound)

    def take(self, route: str, client: str, rate: PerClient, now: float) -> None:
        """Let one request of `client` pass.

        Raises:
            TooOften: Its bucket is empty.
        """
        short = self._buckets.take((route, client), speed=rate.speed, depth=rate.depth, now=now)
        if short:
            wait = max(math.ceil(short), 1)
            raise TooOften(
                f"this client may ask {rate.requests:g} times in {float(rate.per):g} s; "
                f"try again in {wait} s",
                wait,
            )


@lru_cache(maxsize=4_096)
def client_name(address: str) -> str:
    """The client behind an address: an IPv6 network is one client, whatever its low bits."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
