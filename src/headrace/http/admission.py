"""Admission of requests: host names, origins, requests and bytes in flight.

In: a request's headers and sizes. Refuses a foreign `Host` (DNS rebinding), a foreign `Origin`
(another site's page posting from a visitor's browser), and work beyond the bounds, at once and with
`Retry-After`: nothing is queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace.model.errors import Invalid, Overloaded, Refused

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - names to leave out, not to bind
_BODIES_IN_FLIGHT = 8
"""Bodies of the largest size that all requests together may hold."""


class Admission:
    """Counts what is in flight. Owned by the HTTP server; touched only on its loop."""

    def __init__(
        self,
        *,
        allowed_hosts: Iterable[str] = (),
        max_body_bytes: int = 8 << 20,
        max_requests: int = 512,
        max_waiting: int = 64,
    ) -> None:
        names = {name.lower().strip("[]") for name in allowed_hosts}
        self._any_host = "*" in names
        self._hosts = names | LOOPBACK
        # `Host` values that have passed, as bytes: saves decoding and splitting the same few values
        # for each request.
        self._seen: set[bytes] = set()
        self.max_body_bytes = max_body_bytes
        self.max_bytes = max_body_bytes * _BODIES_IN_FLIGHT
        self.max_requests = max_requests
        self.max_waiting = max_waiting
        self.requests = 0
        self.waiting = 0
        self.bytes = 0

    def listen(self, host: str) -> None:
        """Accept the address that the HTTP server listens on as a host name."""
        if host not in _WILDCARDS:
            self._hosts = self._hosts | {host.lower().strip("[]")}

    def check_host(
        self, fields: Sequence[tuple[bytes, bytes]], by_name: Mapping[bytes, bytes]
    ) -> None:
        """Refuse a host name that is not this node's.

        Args:
            fields: The headers in their order.
            by_name: The headers by name; fewer, where one is repeated.

        Raises:
            Invalid: There is not exactly one `Host`.
            Refused: The name is foreign.
        """
        # RFC 9112, section 3.2: exactly one `Host`, else 400. With no header repeated, the one in
        # the table is the only one.
        if len(by_name) == len(fields) and (sole := by_name.get(b"host")) is not None:
            if not (self._any_host or sole in self._seen):
                self._check_name(sole)
            return
        host = None
        for name, value in fields:
            if name == b"host":
                if host is not None:
                    raise Invalid("the request has two `Host` headers; send one")
                host = value
        if host is None:
            raise Invalid("the request has no `Host` header; HTTP/1.1 requires one")
        self._check_name(host)

    def _check_name(self, raw: bytes) -> None:
        if self._any_host or raw in self._seen:
            return
        name = _host_name(raw.decode("latin-1"))
        if name not in self._hosts:
            raise Refused(
                f"`Host: {raw.decode('latin-1')}` is not a name this node answers to; "
                "add it to `allowed_hosts` (docs/reference/settings.md)"
            )
        # With `*` among the hosts, or through ports, a client could otherwise fill the set.
        if len(self._seen) < 64:
            self._seen.add(raw)

    def enter(self) -> None:
        """Count a request; pair with `leave`.

        Raises:
            Overloaded: Too many are in flight.
        """
        if self.requests >= self.max_requests:
            raise Overloaded(
                f"{self.requests} requests are in flight, as many as this node takes at once; "
                "slow down and try again"
            )
        self.requests += 1

    def take(self, size: int) -> bool:
        """Count a request and its body of `size` bytes, if they fit; pair with `leave`."""
        if self.requests >= self.max_requests or self.bytes + size > self.max_bytes:
            return False
        self.requests += 1
        self.bytes += size
        return True

    def leave(self, reserved: int) -> None:
        """Uncount a request and its reserved bytes."""
        self.requests -= 1
        self.bytes -= reserved

    def reserve(self, size: int) -> None:
        """Reserve bytes of the budget until the request leaves.

        Raises:
            Overloaded: The bodies of all requests together are too large.
        """
        if self.bytes + size > self.max_bytes:
            raise Overloaded(
                f"{self.bytes:,} bytes of request bodies are in flight, as many as this node "
                "takes at once; slow down and try again"
            )
        self.bytes += size

    def start_waiting(self) -> None:
        """Count a long poll; pair with `stop_waiting`.

        Raises:
            Overloaded: Too many wait already.
        """
        # Bounded apart from requests: long polls do nothing for most of their time, and would use
        # up the slots of requests that work.
        if self.waiting >= self.max_waiting:
            raise Overloaded(
                f"{self.waiting} requests wait for new records already; "
                "send the request without `wait`, or try again"
            )
        self.waiting += 1

    def stop_waiting(self) -> None:
        """Uncount a long poll."""
        self.waiting -= 1


def check_origin(origin: bytes, host: bytes, scheme: str) -> None:
    """Refuse a page of another origin: scheme, host and port must be the node's (RFC 6454, section 5).

    Args:
        origin: The origin of the page.
        host: The request's `Host`, which was checked before.
        scheme: The node's scheme: `http` or `https`.

    Raises:
        Refused: The origin is foreign.
    """
    # A node that speaks plain HTTP may be behind a proxy that terminates TLS. Then pages have the
    # scheme `https`, and the node a name other than this machine's own.
    is_behind = scheme == "http" and _host_name(host.decode("latin-1")) not in LOOPBACK
    schemes = ("http", "https") if is_behind else (scheme,)
    named = origin.decode("latin-1").lower()
    if named not in {f"{each}://{host.decode('latin-1').lower()}" for each in schemes}:
        raise Refused(
            f"`Origin: {named:.200}` is not the origin of this node; let the page's own server send the request, or "
            "declare a route with `cors=` for it (docs/reference/triggers.md#http)"
        )


def _host_name(text: str) -> str:
    # An IPv6 address is in brackets where a port may follow (RFC 3986, section 3.2.2).
    if text.startswith("["):
        return text[1:].partition("]")[0].lower()
    # A fully qualified name may end in a dot; it is the same host.
    return text.partition(":")[0].lower().rstrip(".")
