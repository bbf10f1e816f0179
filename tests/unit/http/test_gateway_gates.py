"""What stands before a route: buckets, packed bodies, other origins, and headers of one hop."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from headrace.client.http_pool import end_to_end
from headrace.http.cors import answer_headers, preflight
from headrace.http.pipeline.content_encoding import unpack
from headrace.http.pipeline.proxy import takes_share
from headrace.http.problem_details import Unsupported, answer_error
from headrace.http.rate_limit import RateLimiter, TooOften, client_name
from headrace.model.errors import Invalid, Refused, TooLarge
from headrace.model.triggers.http import Cors, Legacy, PerClient

MIB = 1 << 20


def test_a_client_may_come_as_often_as_its_route_says_and_then_must_wait() -> None:
    buckets, rate = RateLimiter(), PerClient(2, per=10)
    buckets.take("/a", "one", rate, 0.0)
    buckets.take("/a", "one", rate, 0.0)
    with pytest.raises(TooOften) as caught:
        buckets.take("/a", "one", rate, 1.0)
    assert caught.value.retry_after == 4
    assert (b"retry-after", b"4") in answer_error(caught.value).headers
    buckets.take("/a", "two", rate, 1.0)
    buckets.take("/b", "one", rate, 1.0)
    buckets.take("/a", "one", rate, 5.0)
    with pytest.raises(TooOften):
        buckets.take("/a", "one", rate, 5.1)


def test_refused_requests_do_not_make_the_wait_longer() -> None:
    buckets, rate = RateLimiter(), PerClient(1, per=1)
    buckets.take("/a", "one", rate, 0.0)
    for _ in range(100):
        with pytest.raises(TooOften):
            buckets.take("/a", "one", rate, 0.5)
    buckets.take("/a", "one", rate, 1.0)


def test_clients_without_number_do_not_fill_the_memory() -> None:
    buckets, rate = RateLimiter(bound=100), PerClient(1, per=60)
    for number in range(1_000):
        buckets.take("/a", str(number), rate, 0.0)
    assert len(buckets._buckets) == 100


def test_an_ipv6_network_is_one_client() -> None:
    assert client_name("2001:db8::1") == client_name("2001:db8::ffff:2")
    assert client_name("2001:db8:0:1::1") != client_name("2001:db8::1")
    assert client_name("::ffff:10.0.0.1") == "10.0.0.1"


def test_a_packed_body_is_unpacked() -> None:
    assert unpack("gzip", gzip.compress(b"hello"), MIB) == b"hello"
    assert unpack("", b"plain", MIB) == b"plain"


def test_a_bomb_is_put_down_before_it_is_big() -> None:
    bomb = gzip.compress(bytes(16 * MIB), 9)
    assert len(bomb) < MIB
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            unpack("gzip", bomb, MIB)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_small_bomb_is_bounded_by_what_was_sent() -> None:
    small = gzip.compress(bytes(MIB // 2), 9)
    assert len(small) * 100 < MIB // 2
    with pytest.raises(TooLarge, match="hundred"):
        unpack("gzip", small, MIB)


def test_a_packed_body_that_is_damaged_cut_short_or_followed_by_more_is_refused() -> None:
    whole = gzip.compress(b"hello")
    for body in (b"", b"hello", whole[:-3], whole + b"x", whole + whole, zlib.compress(b"hello")):
        with pytest.raises(Invalid):
            unpack("gzip", body, MIB)
    for encoding in ("br", "gzip, gzip", "deflate"):
        with pytest.raises(Unsupported):
            unpack(encoding, whole, MIB)


def test_pages_of_named_origins_may_ask_and_others_may_not() -> None:
    cors = Cors("https://a.test", credentials=True, expose="x-next")
    headers = dict(answer_headers(cors, "https://a.test"))
    assert headers[b"access-control-allow-origin"] == b"https://a.test"
    assert headers[b"access-control-allow-credentials"] == b"true"
    assert headers[b"access-control-expose-headers"] == b"x-next"
    assert answer_headers(cors, "https://a.test.evil.test") == ((b"vary", b"origin"),)
    assert answer_headers(None, "https://a.test") == ()
    assert dict(preflight(cors, "https://a.test", ["GET"]).headers)[
        b"access-control-allow-methods"
    ] == (b"GET")
    for origin in ("null", "https://b.test", None):
        with pytest.raises(Refused):
            preflight(cors, origin, ["GET"])


def test_a_share_grows_without_giving_anybody_back() -> None:
    customers = [str(number) for number in range(2_000)]

    def moved(share: float) -> set[str]:
        legacy = Legacy("http://old", share=share)
        return {name for name in customers if takes_share(legacy, "/a", name, 0.0)}

    tenth, half = moved(0.1), moved(0.5)
    assert 140 < len(tenth) < 260
    assert 900 < len(half) < 1_100
    assert tenth < half
    assert moved(0) == set()
    assert moved(1) == set(customers)
    # Without anything sticky, chance decides.
    assert takes_share(Legacy("http://old", share=0.3), "/a", None, 0.29)
    assert not takes_share(Legacy("http://old", share=0.3), "/a", None, 0.3)


def test_headers_of_one_hop_stay_there_also_those_that_are_named() -> None:
    given = [
        (b"Connection", b"close, X-Private"),
        (b"X-Private", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"h2c"),
        (b"X-Public", b"2"),
    ]
    assert end_to_end(given) == ((b"x-public", b"2"),)
