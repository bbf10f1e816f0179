"""Who comes in, and how much at once."""

from __future__ import annotations

import pytest

from headrace.http.admission import Admission, check_origin
from headrace.model.errors import Invalid, Overloaded, Refused


def entered(admission: Admission, *hosts: bytes) -> None:
    """A request with these `Host` headers is let in."""
    fields = [(b"host", host) for host in hosts]
    admission.check_host(fields, dict(fields))


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:4280", "[::1]:4280", "LOCALHOST:1", "server.test"]
)
def test_our_own_names_come_in(host: str) -> None:
    entered(Admission(allowed_hosts=("server.test",)), host.encode())


@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test:4280", "", "[::2]"]
)
def test_a_foreign_host_name_stays_out(host: str) -> None:
    with pytest.raises(Refused, match="allowed_hosts"):
        entered(Admission(), host.encode())


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.test", "localhost"),
        ("https://localhost.evil.test:1", "localhost"),
        ("null", "localhost"),
        ("", "localhost"),
        ("http://localhost:9999", "localhost:4280"),
        ("http://127.0.0.1:4280", "localhost:4280"),
        ("https://localhost:4280", "localhost:4280"),
        ("http://localhost", "localhost:4280"),
        ("http://[::1]:4281", "[::1]:4280"),
        ("ftp://shop.test", "shop.test"),
        ("https://other.shop.test", "shop.test"),
    ],
)
def test_a_page_of_another_origin_stays_out(origin: str, host: str) -> None:
    with pytest.raises(Refused, match="Origin"):
        check_origin(origin.encode(), host.encode(), "http")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:4280", "localhost:4280"),
        ("http://localhost", "LOCALHOST"),
        ("http://[::1]:4280", "[::1]:4280"),
        ("http://10.0.0.1:4280", "10.0.0.1:4280"),
        ("https://shop.test", "shop.test"),
    ],
)
def test_our_own_page_comes_in(origin: str, host: str) -> None:
    check_origin(origin.encode(), host.encode(), "http")


def test_a_node_that_speaks_tls_has_pages_of_https_alone() -> None:
    check_origin(b"https://localhost:4280", b"localhost:4280", "https")
    check_origin(b"https://shop.test", b"shop.test", "https")
    for origin, host in (
        (b"http://localhost:4280", b"localhost:4280"),
        (b"http://shop.test", b"shop.test"),
    ):
        with pytest.raises(Refused, match="Origin"):
            check_origin(origin, host, "https")


def test_a_request_without_a_host_is_refused() -> None:
    with pytest.raises(Invalid, match="Host"):
        entered(Admission())


def test_a_star_lets_every_name_in() -> None:
    entered(Admission(allowed_hosts=("*",)), b"any.test")


def test_the_address_listened_on_is_a_name_of_ours_but_a_wildcard_is_none() -> None:
    admission = Admission()
    admission.listen("10.0.0.1")
    admission.listen("0.0.0.0")
    entered(admission, b"10.0.0.1:4280")
    with pytest.raises(Refused):
        entered(admission, b"0.0.0.0:4280")


def test_requests_beyond_the_bound_are_refused_until_one_leaves() -> None:
    admission = Admission(max_requests=1)
    admission.enter()
    with pytest.raises(Overloaded):
        admission.enter()
    admission.leave(0)
    admission.enter()


def test_bytes_beyond_the_bound_are_refused_until_they_are_given_back() -> None:
    admission = Admission(max_body_bytes=100)
    admission.enter()
    admission.reserve(800)
    with pytest.raises(Overloaded, match="800 bytes"):
        admission.reserve(1)
    admission.leave(800)
    admission.enter()
    admission.reserve(1)


def test_long_polls_are_bounded() -> None:
    admission = Admission(max_waiting=1)
    admission.start_waiting()
    with pytest.raises(Overloaded, match="wait for new records"):
        admission.start_waiting()
    admission.stop_waiting()
    admission.start_waiting()


def test_two_host_headers_are_refused() -> None:
    with pytest.raises(Invalid, match="two `Host`"):
        entered(Admission(), b"localhost", b"evil.test")
