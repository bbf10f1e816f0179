"""Answers as bytes: what stands in every one, what a function can add, and what it can not."""

from __future__ import annotations

import pytest

from headrace.http.response import Response
from headrace.http.response_writer import FRESH_S, Date, closes, written
from headrace.model.errors import Invalid

DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"


def lines_of(
    response: Response, *extra: tuple[bytes, bytes], method: str = "GET", last: bool = False
) -> list[bytes]:
    raw = written(response, extra, date=DATE, method=method, last=last)
    head, _, body = raw.partition(b"\r\n\r\n")
    return [*head.split(b"\r\n"), body]


def test_a_plain_answer_and_one_with_headers_say_the_same() -> None:
    plain = lines_of(Response(200, b"[1]"))
    assert plain == [
        b"HTTP/1.1 200 OK",
        DATE.strip(),
        b"content-type: application/json",
        b"content-length: 3",
        b"x-content-type-options: nosniff",
        b"cache-control: no-store",
        b"[1]",
    ]
    with_more = lines_of(Response(200, b"[1]", headers=((b"x-more", b"1"),)))
    assert sorted(with_more) == sorted([*plain, b"x-more: 1"])


def test_what_an_answer_sets_replaces_what_would_stand_there() -> None:
    lines = lines_of(
        Response(200, b"1", headers=((b"cache-control", b"max-age=60"), (b"vary", b"accept"))),
        (b"vary", b"origin"),
        (b"cache-control", b"never"),
    )
    assert [line for line in lines if line.startswith(b"cache")] == [b"cache-control: max-age=60"]
    assert [line for line in lines if line.startswith(b"vary")] == [
        b"vary: accept",
        b"vary: origin",
    ]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("headers", [(), ((b"x-more", b"1"),)])
def test_the_last_answer_says_that_the_connection_closes(
    last: bool, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    lines = lines_of(Response(200, b"1", headers=headers), last=last)
    assert (b"connection: close" in lines) is last
    assert not closes(Response(200, b"", headers=headers))
    assert closes(Response(413, b"", headers=((b"connection", b"Close"),)))


@pytest.mark.parametrize("headers", [(), ((b"x-more", b"1"),)])
def test_an_answer_to_head_has_the_length_and_no_body(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    lines = lines_of(Response(200, b"[1]", headers=headers), method="HEAD")
    assert b"content-length: 3" in lines
    assert lines[-1] == b""


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_has_no_length_either(status: int) -> None:
    lines = lines_of(Response(status, b"ignored"))
    assert not [line for line in lines if line.startswith(b"content-")]
    assert lines[-1] == b""


@pytest.mark.parametrize(
    "response",
    [
        Response(200, b"", headers=((b"x-a", b"1\r\nset-cookie: b=2"),)),
        Response(200, b"", headers=((b"x a", b"1"),)),
        Response(200, b"", headers=((b"x-a\r\nset-cookie", b"1"),)),
        Response(200, b"", headers=((b"", b"1"),)),
        Response(200, b"", headers=((b"x-a", b"1\x00"),)),
        Response(200, b"", b"text/plain\r\nset-cookie: b=2"),
    ],
)
def test_no_header_can_begin_a_line_of_its_own(response: Response) -> None:
    with pytest.raises(Invalid, match="cannot be sent"):
        written(response, (), date=DATE, method="GET", last=False)


def test_a_status_without_a_name_is_sent_by_its_number() -> None:
    assert lines_of(Response(299, b""))[0] == b"HTTP/1.1 299 "


def test_the_date_is_fresh_and_not_made_for_every_answer() -> None:
    now = iter([999_999, 1_000_000])
    date = Date(lambda: next(now))
    assert date.line(7.0) == DATE
    assert date.line(7.0 + FRESH_S - 0.01) == DATE
    assert date.line(7.0 + FRESH_S) == DATE.replace(b"00:00:00", b"00:00:01")
