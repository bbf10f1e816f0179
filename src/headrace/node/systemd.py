"""Notify the service manager (systemd, `Type=notify`) that the node is ready, or stops.

In: the address of its socket and a state such as `READY=1`. Out: one datagram. Nothing depends on its
arrival: a manager that does not listen costs the node nothing.
"""

from __future__ import annotations

import logging
import socket

_logger = logging.getLogger("headrace.node")


def notify(address: str, state: str) -> bool:
    """Send a state to the socket; return whether it was sent.

    Args:
        address: A path, or `@` and a name in the abstract namespace; "" without a service manager.
        state: A state of `sd_notify(3)`.
    """
    if not address:
        return False
    # An abstract socket's address starts with a zero byte (unix(7)), which an environment variable
    # cannot hold.
    place = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A manager that does not read must not block the loop when the socket's buffer is full.
            sender.setblocking(False)
            sender.sendto(state.encode(), place)
    except OSError as error:
        _logger.warning("the service manager was not notified of `%s`: %s", state, error.strerror)
        return False
    return True
