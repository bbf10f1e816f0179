"""Rate limits of clients: a token bucket for each client of each route. The caller passes the time."""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache
from typing import ClassVar

from headrace.environment.token_buckets import TokenBuckets
from headrace.model.errors import Overloaded
from headrace.model.triggers.http import PerClient

MAX_BUCKETS = 16_384
"""Clients choose their addresses (IPv6), so the number of buckets needs a bound."""


class TooOften(Overloaded):
    """A client exceeded its route's rate.

    Attributes:
        retry_after: Seconds until the next request is allowed.
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
        """Count one request of `client`.

        Raises:
            TooOften: Its bucket is empty.
        """
        short = self._buckets.take((route, client), speed=rate.speed, depth=rate.depth, now=now)
        if short:
            # `Retry-After` has whole seconds (RFC 9110, section 10.2.3); rounding down would make
            # the client come too early.
            wait = max(math.ceil(short), 1)
            raise TooOften(
                f"this client may send {rate.requests:g} requests in {float(rate.per):g} s; "
                f"try again in {wait} s",
                wait,
            )


@lru_cache(maxsize=4_096)
def client_name(address: str) -> str:
    """Return the client of an address: a /64 of IPv6 is one client, since a machine chooses its lower bits."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
