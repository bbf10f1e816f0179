"""One connection, many requests: their order, their ends, and bodies that nobody wants."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from random import Random

import pytest
from tests.integration.gateway_nodes import memory_gateway, raw

from headrace.http.server.http1 import MAX_PIPELINED
from headrace.http.server.server_state import Timeouts

LAST = b"host: localhost\r\nconnection: close\r\n"


def get(path: bytes, *, last: bool = False, method: bytes = b"GET") -> bytes:
    headers = LAST if last else b"host: localhost\r\n"
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, headers)


def post(body: bytes, *, last: bool = False, path: bytes = b"/-/v1/streams/orders") -> bytes:
    headers = LAST if last else b"host: localhost\r\n"
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (path, headers, len(body), body)


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


async def test_requests_sent_at_once_are_answered_in_their_order(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, node):
        sent = [
            get(b"/healthz"),
            post(b"1"),
            get(b"/nothing"),
            post(b"2"),
            get(b"/healthz", last=True),
        ]
        assert statuses(await raw(gateway.url, b"".join(sent))) == [200, 202, 404, 202, 200]
        held = [(await node.broker.extent("orders", number)).high for number in range(2)]
        assert sum(held) == 2


async def test_requests_that_drip_in_behind_each_other_are_answered_as_well(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        whole = post(b"1") + get(b"/healthz") + post(b"[2]", last=True)
        parts = [whole[index : index + 7] for index in range(0, len(whole), 7)]
        assert statuses(await raw(gateway.url, *parts, pause=0.001)) == [202, 200, 202]


async def test_a_client_that_asks_for_leave_is_told_to_go_on(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        head = (
            b"POST /-/v1/streams/orders HTTP/1.1\r\n"
            + LAST
            + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\n"
        )
        assert statuses(await raw(gateway.url, head, b"1", pause=0.1)) == [100, 202]
        refused = head.replace(b"/-/v1/streams/orders", b"/nothing")
        assert statuses(await raw(gateway.url, refused, wait_s=0.5)) == [404]
        large = head.replace(b"content-length: 1", b"content-length: 99999999")
        assert statuses(await raw(gateway.url, large, wait_s=0.5)) == [413]


async def test_what_is_said_between_answers_keeps_its_place_among_them(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        # While another request is being worked on, answers of a turn are written together.
        poll = get(b"/-/v1/streams/orders/records?from=latest&wait=20")
        waiting = asyncio.create_task(raw(gateway.url, poll, wait_s=3.0))
        await asyncio.sleep(0.1)
        asking = (
            b"POST /-/v1/streams/orders HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
            b"content-length: 1\r\n\r\n"
        )
        answer = await raw(gateway.url, get(b"/healthz") + asking, b"1", pause=0.1, wait_s=0.3)
        assert statuses(answer) == [200, 100, 202]
        for _ in range(20):
            answer = await raw(gateway.url, get(b"/healthz") * 3 + b"\x00rubbish\r\n\r\n")
            assert statuses(answer) in ([200, 200, 200], [200, 200, 200, 400])
        waiting.cancel()


async def test_an_answer_to_head_has_no_body(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        answer = await raw(
            gateway.url, get(b"/healthz", method=b"HEAD") + get(b"/healthz", last=True)
        )
        assert statuses(answer) == [200, 200]
        first, _, second = answer.partition(b"\r\n\r\n")
        assert second.startswith(b"HTTP/1.1 200")
        assert b"content-length: 0" not in first


async def test_a_body_nobody_wanted_does_not_hurt_the_request_behind_it(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        body = b"1" * 300_000
        refused = post(body, path=b"/nothing")
        cut = len(refused) - 200_000
        answer = await raw(
            gateway.url, refused[:cut], refused[cut:] + get(b"/healthz", last=True), pause=0.1
        )
        assert statuses(answer) == [404, 200]


async def test_a_body_that_never_ends_though_it_was_answered_is_cut_off(tmp_path: Path) -> None:
    timeouts = Timeouts(headers=0.2, body=0.2)
    async with memory_gateway(tmp_path, timeouts=timeouts) as (gateway, _):
        began = time.monotonic()
        answer = await raw(gateway.url, post(b"1" * 100, path=b"/nothing")[:-50])
        assert statuses(answer) == [404]
        assert time.monotonic() - began < 3


async def test_a_connection_that_rests_too_long_is_closed_without_a_word(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, timeouts=Timeouts(keep_alive=0.2)) as (gateway, _):
        began = time.monotonic()
        assert statuses(await raw(gateway.url, get(b"/healthz"))) == [200]
        assert 0.15 < time.monotonic() - began < 3


async def test_headers_that_drip_on_a_connection_used_before_are_cut_off(tmp_path: Path) -> None:
    timeouts = Timeouts(headers=0.2, body=0.2)
    async with memory_gateway(tmp_path, timeouts=timeouts) as (gateway, _):
        began = time.monotonic()
        drip = [get(b"/healthz")[index : index + 1] for index in range(30)]
        answer = await raw(gateway.url, get(b"/healthz"), *drip, pause=0.03)
        assert statuses(answer) == [200, 408]
        assert time.monotonic() - began < 3


async def test_rubbish_behind_a_request_costs_that_request_nothing(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, node):
        assert statuses(await raw(gateway.url, post(b"1") + b"\x00rubbish\r\n\r\n")) == [202]
        assert statuses(await raw(gateway.url, get(b"/healthz", last=True) + get(b"/healthz"))) == [
            200
        ]
        held = [(await node.broker.extent("orders", number)).high for number in range(2)]
        assert sum(held) == 1


async def test_rubbish_is_called_so(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        answer = await raw(gateway.url, b"\x00\x01\r\n\r\n")
        assert statuses(answer) == [400]
        assert b"cannot be read as HTTP/1.1" in answer
        assert b"connection: close" in answer


async def test_a_client_that_asks_for_another_protocol_is_answered_in_this_one(
    tmp_path: Path,
) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        answer = await raw(gateway.url, head + get(b"/healthz") + b"\x81\x05hello")
        assert statuses(answer)[:2] == [200, 200]


async def test_a_client_of_an_older_protocol_is_answered_and_left(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        answer = await raw(gateway.url, b"GET /healthz HTTP/1.0\r\nhost: localhost\r\n\r\n")
        assert statuses(answer) == [200]
        assert b"connection: close" in answer


async def test_requests_that_wait_on_one_connection_are_bounded(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        flood = get(b"/healthz") * (MAX_PIPELINED * 3)
        answered = statuses(await raw(gateway.url, flood))
        assert 1 <= len(answered) <= MAX_PIPELINED * 3
        assert set(answered) == {200}
        assert statuses(await raw(gateway.url, get(b"/healthz", last=True))) == [200]


@pytest.mark.parametrize("resting", [True, False])
async def test_a_door_that_closes_lets_answers_out_and_keeps_nobody(
    tmp_path: Path, resting: bool
) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        request = (
            get(b"/healthz")
            if resting
            else get(b"/-/v1/streams/orders/records?from=latest&wait=20")
        )
        asking = asyncio.create_task(raw(gateway.url, request))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await gateway.stop(5.0)
        assert time.monotonic() - began < 2
        answer = await asking
        assert statuses(answer) == [200]
        assert resting or b"connection: close" in answer


async def test_a_path_that_was_answered_before_is_guarded_as_at_first(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, access="token") as (gateway, node):
        _, text = await node.tokens.create("reader", ["read"])
        path = b"GET /-/v1/streams HTTP/1.1\r\nhost: localhost\r\n"
        token = b"authorization: Bearer %b\r\n" % text.encode()
        stranger = path + b"\r\n"
        known = path + token + b"\r\n"
        page = path + token + b"origin: http://evil.test\r\n\r\n"
        rebound = known.replace(b"localhost", b"evil.test")
        asked = [stranger, known, stranger, page, rebound, known]
        answered = statuses(await raw(gateway.url, *asked, pause=0.02, wait_s=0.3))
        assert answered == [401, 200, 401, 403, 403, 200]


PIECES = [
    get(b"/healthz"),
    get(b"/healthz", last=True),
    get(b"/-/v1/streams/orders/records?from=latest&wait=0.02"),
    get(b"http://localhost/healthz"),
    get(b"*", method=b"OPTIONS"),
    get(b"a:1", method=b"CONNECT"),
    post(b"[1]"),
    post(b"1" * 100_000, path=b"/nothing"),
    post(b"[1]")
    .replace(b"content-length: 3", b"transfer-encoding: chunked")
    .replace(b"[1]", b"3\r\n[1]\r\n0\r\n\r\n"),
    post(b"[1]").replace(b"content-length", b"expect: 100-continue\r\ncontent-length"),
    b"GET /healthz HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    post(b"[1]").replace(b"host", b"connection: upgrade\r\nupgrade: h2c\r\nhost"),
    b"GET /%ff%fe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"\r\n",
    b"\x00",
]


async def babble(url: str, random: Random) -> None:
    """Send something, whole or cut or spoiled, in pieces, and leave politely or not."""
    sent = bytearray(b"".join(random.choices(PIECES, k=random.randint(1, 5))))
    if random.random() < 0.3:
        sent[random.randrange(len(sent))] = random.randrange(256)
    if random.random() < 0.3:
        del sent[random.randrange(len(sent)) :]
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        while sent:
            size = random.choice([1, 7, 100, 5_000, 200_000])
            writer.write(bytes(sent[:size]))
            await writer.drain()
            del sent[:size]
        if random.random() < 0.5:
            await asyncio.wait_for(reader.read(1_000), 0.05)
    except (OSError, TimeoutError):
        pass
    finally:
        if random.random() < 0.5:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_whatever_is_sent_the_door_holds_nothing_of_it_afterwards(tmp_path: Path) -> None:
    surprises: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: surprises.append(told))
    random = Random(7)
    timeouts = Timeouts(headers=0.2, body=0.2, keep_alive=0.2)
    async with memory_gateway(tmp_path, timeouts=timeouts) as (gateway, _):
        for _ in range(10):
            await asyncio.gather(*(babble(gateway.url, random) for _ in range(30)))
        until = time.monotonic() + 5
        while gateway.busy and time.monotonic() < until:  # noqa: ASYNC110 - seen from outside only
            await asyncio.sleep(0.05)
        assert gateway.busy == {}
        assert statuses(await raw(gateway.url, get(b"/healthz", last=True))) == [200]
    assert surprises == []
