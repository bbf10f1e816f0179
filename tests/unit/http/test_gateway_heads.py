"""Which heads are known again, and which are read each time."""

from __future__ import annotations

import pytest

from headrace.http.pipeline.head_cache import HeadCache, RequestHead

LINE = b"POST /x HTTP/1.1\r\n"


def head_of(raw: bytes) -> RequestHead:
    fields = [
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(b":") for line in raw.split(b"\n")[1:])
        if name.strip()
    ]
    return RequestHead("POST", "/x", b"", fields, dict(fields))


def is_known(raw: bytes, length: int) -> bool:
    heads = HeadCache()
    heads.keep(raw, head_of(raw), length)
    return heads.find(raw) is not None


def test_a_head_is_known_with_the_length_of_its_body() -> None:
    heads = HeadCache()
    raw = LINE + b"host: a\r\ncontent-length: 12\r\n\r\n"
    head = head_of(raw)
    heads.keep(raw, head, 12)
    assert heads.find(raw) is head
    assert head.length == 12
    assert heads.find(raw.replace(b"12", b"13")) is None


def test_a_head_without_a_body_is_known() -> None:
    assert is_known(LINE + b"host: a\r\n\r\n", 0)


def test_what_a_person_is_known_by_is_not_kept() -> None:
    for line in (b"authorization: Bearer t", b"cookie: s=1"):
        assert not is_known(LINE + line + b"\r\n\r\n", 0)


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (LINE + b"host: a\r\n\r\n", 1),
        (LINE + b"content-length: 12\r\n\r\n", 13),
        (LINE + b"content-length: 012\r\n\r\n", 12),
        (LINE + b"transfer-encoding: chunked\r\n\r\n", 0),
        (LINE + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n", 2),
        (b"POST /x HTTP/1.1\ncontent-length: 2\n\nab\r\n\r\n", 2),
        (LINE + b"x: \n\r\ncontent-length: 2\r\n\r\n", 2),
        (b"\r\n" + LINE + b"content-length: 2\r\n\r\n", 2),
        (b"", 0),
    ],
)
def test_a_head_whose_end_could_be_disputed_is_read_each_time(raw: bytes, length: int) -> None:
    assert not is_known(raw, length)


def test_no_more_heads_are_known_than_the_bound_allows() -> None:
    heads = HeadCache(bound=3)
    for number in range(10):
        raw = LINE + b"x: %d\r\n\r\n" % number
        heads.keep(raw, head_of(raw), 0)
        assert heads.find(raw) is not None
        assert len(heads) <= 3
