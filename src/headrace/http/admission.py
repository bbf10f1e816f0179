"""Who may come in, and how much at once: host names, origins, requests and bytes in flight.

Comes in: a request's headers and sizes. Refuses a foreign `Host` (DNS rebinding), a foreign `Origin`
(another site's page posting from a visitor's browser), and work beyond the bounds, at once and with
Retry-After: there is no hidden queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace.model.errors import Invalid, Overloaded, Refused

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - names to leave out, not to bind
_BODIES_IN_FLIGHT = 8


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
        self._seen: set[bytes] = set()
        self.max_body_bytes = max_body_bytes
        self.max_bytes = max_body_bytes * _BODIES_IN_FLIGHT
        self.max_requests = max_requests
        self.max_waiting = max_waiting
        self.requests = 0
        self.waiting = 0
        self.bytes = 0

    def listen(self, host: str) -> None:
        """Answer to the address the HTTP server listens on as well."""
        if host not in _WILDCARDS:
            self._hosts = self._hosts | {host.lower().strip("[]")}

    def check_host(
        self, fields: Sequence[tuple[bytes, bytes]], by_name: Mapping[bytes, bytes]
    ) -> None:
        """Refuse a name that is not ours.

        Args:
            fields: The headers in their order.
            by_name: The same by name; fewer, where one is repeated.

        Raises:
            Invalid: There is not exactly one `Host`.
            Refused: It is foreign.
        """
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
        if len(self._seen) < 64:
            self._seen.add(raw)

    def enter(self) -> None:
        """Begin a request; pair with `leave`.

        Raises:
            Overloaded: Too many are being worked on.
        """
        if self.requests >= self.max_requests:
            raise Overloaded(
                f"{self.requests} requests are being worked on, as many as this node takes at once; "
                "slow down and try again"
            )
        self.requests += 1

    def take(self, size: int) -> bool:
        """Begin a request whose body of `size` bytes is here, if it fits; pair with `leave`."""
        if self.requests >= self.max_requests or self.bytes + size > self.max_bytes:
            return False
        self.requests += 1
        self.bytes += size
        return True

    def leave(self, reserved: int) -> None:
        """End a request and give its bytes back."""
        self.requests -= 1
        self.bytes -= reserved

    def reserve(self, size: int) -> None:
        """Take bytes out of the budget until the request leaves.

        Raises:
            Overloaded: The bodies of all requests together are too large.
        """
        if self.bytes + size > self.max_bytes:
            raise Overloaded(
                f"{self.bytes:,} bytes of request bodies are being worked on, as many as this node "
                "takes at once; slow down and try again"
            )
        self.bytes += size

    def start_waiting(self) -> None:
        """Begin a long poll; pair with `stop_waiting`.

        Raises:
            Overloaded: Too many wait already.
        """
        if self.waiting >= self.max_waiting:
            raise Overloaded(
                f"{self.waiting} requests wait for new records already; "
                "ask without `wait`, or try again"
            )
        self.waiting += 1

    def stop_waiting(self) -> None:
        """End a long poll."""
        self.waiting -= 1


def check_origin(origin: bytes, host: bytes, scheme: str) -> None:
    """Refuse a page of another origin: scheme, host and port must be those that were asked.

    Another port of this machine is another origin. A node that speaks plain HTTP
    may stand behind a proxy that speaks TLS: then it is asked by `https`, under a name that is not
    this machine's own.

    Args:
        origin: Of the page that asks.
        host: The `Host` it asks, which was checked before.
        scheme: What the node speaks: `http` or `https`.

    Raises:
        Refused: It is foreign.
    """
    is_behind = scheme == "http" and _host_name(host.decode("latin-1")) not in LOOPBACK
    schemes = ("http", "https") if is_behind else (scheme,)
    asked = origin.decode("latin-1").lower()
    if asked not in {f"{each}://{host.decode('latin-1').lower()}" for each in schemes}:
        raise Refused(
            f"`Origin: {asked:.200}` is another page's than the node that it asks; let its own server ask, or "
            "declare a route with `cors=` for it (docs/reference/triggers.md#http)"
        )


def _host_name(text: str) -> str:
    # An IPv6 address stands in brackets where a port may follow.
    if text.startswith("["):
        return text[1:].partition("]")[0].lower()
    return text.partition(":")[0].lower().rstrip(".")
