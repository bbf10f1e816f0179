"""How many connections there may be, in all and of one client."""

from __future__ import annotations

import pytest

from headrace.http.server.connection_limits import ALL, ConnectionLimits, client_of


def test_one_client_holds_half_of_all_and_others_come_in_until_all_are_taken() -> None:
    connection_limits = ConnectionLimits(4)
    assert [connection_limits.enter("10.0.0.1") for _ in range(2)] == ["", ""]
    assert "max_connections_per_client" in connection_limits.enter("10.0.0.1")
    connection_limits.leave("10.0.0.1")
    assert [connection_limits.enter("10.0.0.2"), connection_limits.enter("10.0.0.3")] == ["", ""]
    assert connection_limits.enter("10.0.0.4") == ALL
    for address in ("10.0.0.4", "10.0.0.1"):
        connection_limits.leave(address)
    assert connection_limits.enter("10.0.0.1") == ""


def test_a_single_connection_is_somebodys() -> None:
    assert ConnectionLimits(1).enter("10.0.0.1") == ""
    assert ConnectionLimits(8, 8).enter("::1") == ""


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("", ""),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::2:0:0:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(address: str, client: str) -> None:
    assert client_of(address) == client
