"""The owner of the other end of a connection, asked of the real kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace.security.tcp_peers import owner

Ends = tuple[tuple[str, int], tuple[str, int]]


@contextmanager
def connection(
    listening: socket.AddressFamily, at: str, calling: socket.AddressFamily, to: str
) -> Iterator[tuple[socket.socket, Ends]]:
    """A client, and both ends of its connection as the server sees them."""
    with socket.socket(listening) as server, socket.socket(calling) as client:
        if listening == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((at, 0))
        server.listen()
        client.connect((to, server.getsockname()[1]))
        served, far = server.accept()
        with served:
            yield client, (far[:2], served.getsockname()[:2])


V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("listening", "at", "calling", "to"),
    [
        (V4, "127.0.0.1", V4, "127.0.0.1"),
        (V6, "::1", V6, "::1"),
        (V6, "::", V4, "127.0.0.1"),
        (V6, "::", V6, "::ffff:127.0.0.1"),
        (V4, "127.0.0.1", V6, "::ffff:127.0.0.1"),
    ],
)
def test_the_owner_is_known_while_the_socket_is_open(
    listening: socket.AddressFamily, at: str, calling: socket.AddressFamily, to: str
) -> None:
    with connection(listening, at, calling, to) as (client, (far, near)):
        assert owner(far, near) == os.getuid()
        client.close()
        assert owner(far, near) is None


def test_who_only_listens_at_the_far_port_owns_no_connection_of_it() -> None:
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        assert owner(elsewhere.getsockname(), ("127.0.0.1", 9)) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take another uid")
def test_a_process_of_another_user_is_known_as_that_user() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        go, wait = os.pipe()[::-1]
        if (child := os.fork()) == 0:
            os.setuid(12_345)
            client = socket.socket()
            client.connect(server.getsockname())
            os.read(wait, 1)
            client.close()
            os._exit(0)
        served, far = server.accept()
        with served:
            assert owner(far, served.getsockname()) == 12_345
        os.write(go, b".")
        os.waitpid(child, 0)
        os.close(go)
        os.close(wait)
