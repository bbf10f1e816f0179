"""The gateway: listening sockets, their connections, and the application behind each.

There is one socket for everything, or one for authors' routes and one for the platform's own paths (`api_port`).

Installs no signal handlers: the node's lifecycle says when to stop. Stopping closes the sockets first,
lets requests end within the grace given, then answers what is left with 503.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from headrace.environment.tasks import Tasks
from headrace.http.admission import Admission
from headrace.http.context import ApiContext
from headrace.http.dependencies import Dependencies
from headrace.http.metrics import Metrics
from headrace.http.server.application import Application
from headrace.http.server.connection_limits import ConnectionLimits
from headrace.http.server.http1 import Connection
from headrace.http.server.route_resolver import PathSet
from headrace.http.server.server_state import (
    DEFAULT_TIMEOUTS,
    ClosableConnection,
    ServerState,
    Timeouts,
)
from headrace.http.server.tls import HANDSHAKE_S, LOOK_S, Certificate
from headrace.model.errors import Misuse
from headrace.runtime.id_ranges import INSTANCE_UIDS
from headrace.security.access import Peer, is_local
from headrace.security.tcp_peers import owner

_log = logging.getLogger("headrace.http")
_BACKLOG = 512


class Limits(Protocol):
    """Settings of the HTTP server; the node's settings implement it."""

    @property
    def api_port(self) -> int | None:
        """The port of the platform's own paths; None where they share the routes' port."""
        ...

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Host names that it accepts besides its own."""
        ...

    @property
    def max_body_bytes(self) -> int:
        """The largest request body."""
        ...

    @property
    def max_requests(self) -> int:
        """Requests processed at once."""
        ...

    @property
    def max_connections(self) -> int:
        """Open connections."""
        ...

    @property
    def max_connections_per_client(self) -> int:
        """Those of one address; 0 for half of all."""
        ...

    @property
    def tls_certificate(self) -> Path | None:
        """The TLS certificate; None for plain HTTP."""
        ...

    @property
    def tls_key(self) -> Path | None:
        """The certificate's private key."""
        ...


class Gateway:
    """The HTTP server of a node: closed -> open -> closed. Owned by assembly."""

    def __init__(
        self, services: Dependencies, limits: Limits, timeouts: Timeouts = DEFAULT_TIMEOUTS
    ) -> None:
        self._admission = Admission(
            allowed_hosts=limits.allowed_hosts,
            max_body_bytes=limits.max_body_bytes,
            max_requests=limits.max_requests,
        )
        self._tasks = Tasks(_log_broken_task)
        self._certificate = (
            Certificate(limits.tls_certificate, limits.tls_key)
            if limits.tls_certificate is not None and limits.tls_key is not None
            else None
        )
        apart = limits.api_port is not None
        self._context = ApiContext(
            services=services,
            admission=self._admission,
            metrics=Metrics(),
            tasks=self._tasks,
            scheme="http" if self._certificate is None else "https",
            api_apart=apart,
        )
        # Each listener has limits of its own: clients of the routes cannot keep the operator out.
        self._states = [
            ServerState(
                Application(self._context, served),
                admission=self._admission,
                tasks=self._tasks,
                clock=services.clock,
                timeouts=timeouts,
                connection_limits=ConnectionLimits(
                    limits.max_connections, limits.max_connections_per_client
                ),
                identify=self._identify,
            )
            for served in ((PathSet.ROUTES, PathSet.API) if apart else (PathSet.ALL,))
        ]
        self._api_port = limits.api_port
        self._servers: list[asyncio.Server] = []
        self.url = ""
        self.api_url = ""

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the URL of the routes once connections are taken.

        Raises:
            Misuse: An address is taken or not this machine's.
        """
        sockets = [listen(host, port)]
        if self._api_port is not None:
            try:
                sockets.append(listen(host, self._api_port, "api-port"))
            except Misuse:
                sockets[0].close()
                raise
        self._admission.listen(host)
        urls = []
        for state, listener in zip(self._states, sockets, strict=True):
            urls.append(
                f"{self._context.scheme}://{reachable_name(host)}:{listener.getsockname()[1]}"
            )
            server = await asyncio.get_running_loop().create_server(
                partial(Connection, state), sock=listener, backlog=_BACKLOG, **self._tls()
            )
            self._servers.append(server)
        self.url, self.api_url = urls[0], urls[-1]
        if self._certificate is not None:
            self._tasks.start(self._renew(self._certificate), name="certificate")
        return self.url

    @property
    def _connections(self) -> list[ClosableConnection]:
        """Those of all listeners."""
        return [each for state in self._states for each in state.connections]

    def _identify(self, transport: asyncio.BaseTransport) -> Peer:
        """Return the peer of a connection."""
        far = transport.get_extra_info("peername")
        # A client that is gone already has no name; it may do what a stranger may.
        if not isinstance(far, tuple) or not far:
            return Peer("")
        # Only `local` distinguishes processes of this machine, and the look-up costs a netlink
        # request for each connection.
        if self._context.services.access != "local" or not is_local(far[0]):
            return Peer(far[0])
        uid = owner(far[:2], transport.get_extra_info("sockname")[:2])
        # Instances connect over loopback too, so an address proves nothing (ADR 0029). A socket
        # that its process has closed has no owner, and counts as a stranger's.
        return Peer(far[0], neighbour=uid is not None and uid not in INSTANCE_UIDS)

    def _tls(self) -> dict[str, Any]:
        if self._certificate is None:
            return {}
        # asyncio's own limit is 60 s, during which a silent client holds a connection.
        return {"ssl": self._certificate.context, "ssl_handshake_timeout": HANDSHAKE_S}

    async def _renew(self, certificate: Certificate) -> None:
        while not self._context.closing.is_set():
            await self._context.services.clock.sleep(LOOK_S)
            try:
                if certificate.renew():
                    _log.info("the renewed certificate is in use")
            except Misuse as error:
                # The old certificate stays in use: a renewal that is half written must not end
                # TLS.
                _log.warning("the certificate was not renewed: %s", error)

    @property
    def busy(self) -> dict[str, int]:
        """Counts of open connections, tasks and requests; counts of 0 are left out."""
        held = {
            "connections": len(self._connections),
            "tasks": len(self._tasks),
            "requests": self._admission.requests,
            "bytes": self._admission.bytes,
            "waiting": self._admission.waiting,
        }
        return {what: count for what, count in held.items() if count}

    async def drain(self, grace: float) -> None:
        """Take no more connections, and let running requests end within `grace` seconds."""
        servers, self._servers = self._servers, []
        if servers:
            self._context.closing.set()
            for server in servers:
                server.close()
            for connection in self._connections:
                connection.finish()
        clock = self._context.services.clock
        deadline = clock.monotonic() + grace
        while self._connections and clock.monotonic() < deadline:
            await clock.sleep(0.01)

    async def stop(self, grace: float = 10.0) -> None:
        """Drain, then answer 503 to the requests that are left."""
        await self.drain(grace)
        for connection in self._connections:
            connection.cut()
        await self._tasks.close()


def _log_broken_task(name: str, error: BaseException) -> None:
    _log.error("task `%s` of the HTTP server failed: %s", name, error, exc_info=error)


def reachable_name(host: str) -> str:
    """Return the host part of a URL by which this machine reaches an HTTP server listening on `host`."""
    if ipaddress_is_any(host):
        return "127.0.0.1" if ":" not in host else "[::1]"
    return f"[{host}]" if ":" in host else host


def ipaddress_is_any(host: str) -> bool:
    """Return whether `host` means every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _remedy(error: OSError, option: str) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "name an address of this machine with `--host` (`127.0.0.1`; `0.0.0.0` for all)"
    if error.errno == errno.EACCES:
        return f"choose a port from 1024 on with `--{option}`, or let this user open lower ones"
    return f"stop what listens there, or choose another port with `--{option}` (0: any free one)"


def listen(host: str, port: int, option: str = "port") -> socket.socket:
    """A listening TCP socket.

    Args:
        host: The address.
        port: 0 takes a free one.
        option: What sets the port, for the error.

    Raises:
        Misuse: The address is in use, does not belong to this machine, or is not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Else a restarted node could not bind while connections of the last run are in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Misuse(
            f"cannot listen on `{host}:{port}`: {error.strerror or error}; {_remedy(error, option)}"
        ) from error
    return listener
