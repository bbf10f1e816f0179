"""Clients that drip, flood, lie and leave: the server bears them, and others do not notice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.integration.gateway_nodes import memory_gateway, raw

from headrace.environment.time_slices import Slices
from headrace.http.api.records import read_page
from headrace.http.server.server_state import Timeouts
from headrace.model.event import Event

HURRIED = Timeouts(headers=0.3, body=0.3)
HEAD = b"POST /-/v1/streams/orders HTTP/1.1\r\nhost: localhost\r\n"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


async def healthy(url: str) -> bool:
    request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    return status(await raw(url, request)) == 200


async def test_headers_that_drip_are_cut_off_at_their_deadline(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, timeouts=HURRIED) as (gateway, _):
        began = time.monotonic()
        answer = await raw(
            gateway.url, *(HEAD[index : index + 1] for index in range(40)), pause=0.02
        )
        assert status(answer) == 408
        assert b"application/problem+json" in answer
        assert time.monotonic() - began < 3
        assert await healthy(gateway.url)


async def test_a_connection_that_says_nothing_is_cut_off(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, timeouts=HURRIED) as (gateway, _):
        assert status(await raw(gateway.url)) == 408


async def test_a_body_that_drips_is_cut_off_at_its_deadline(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, timeouts=HURRIED) as (gateway, node):
        answer = await raw(
            gateway.url, HEAD + b"content-length: 100\r\n\r\n", *([b"1"] * 40), pause=0.02
        )
        assert status(answer) == 408
        assert (await node.broker.extent("orders", 0)).high == 0
        assert await healthy(gateway.url)


async def test_a_keep_alive_connection_may_rest_between_requests(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, timeouts=HURRIED) as (gateway, _):
        request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
        answer = await raw(
            gateway.url, request + b"\r\n", request + b"connection: close\r\n\r\n", pause=0.6
        )
        assert answer.count(b"HTTP/1.1 200") == 2


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, node):
        host, _, port = gateway.url.removeprefix("http://").rpartition(":")
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(HEAD + b'content-length: 100\r\n\r\n{"half":')
            await writer.drain()
            writer.close()
        await asyncio.sleep(0.1)
        assert (await node.broker.extent("orders", 0)).high == 0
        metrics = await raw(
            gateway.url, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        assert status(metrics) == 200


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 60_000,
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 300_000,
        HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 300_000,
        HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n" + b"x: y\r\n" * 60_000,
    ],
    ids=["path", "headers", "header", "chunk-extension", "trailers"],
)
async def test_what_never_becomes_a_body_is_bounded(tmp_path: Path, flood: bytes) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        parts = [flood[index : index + 16_384] for index in range(0, len(flood), 16_384)]
        answer = await raw(gateway.url, *parts)
        assert status(answer) in {0, 400, 413}
        assert await healthy(gateway.url)


async def test_an_endless_body_is_refused_before_it_is_kept(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, max_body_bytes=100_000) as (gateway, _):
        chunk = b"4000\r\n" + b"1" * 0x4000 + b"\r\n"
        answer = await raw(
            gateway.url, HEAD + b"transfer-encoding: chunked\r\n\r\n", *([chunk] * 60)
        )
        assert status(answer) in {0, 413}
        answer = await raw(gateway.url, HEAD + b"content-length: 100001\r\n\r\n" + b"1" * 100_001)
        assert status(answer) == 413
        assert b"100,000" in answer
        assert await healthy(gateway.url)


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n",
        b"POST /-/v1/streams/orders HTTP/1.1\r\nhost : localhost\r\n\r\n",
        b"POST /-/v1/streams/orders HTTP/1.1\r\nhost: localhost\r\nhost: evil.test\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n\r\n",
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, request_: bytes
) -> None:
    async with memory_gateway(tmp_path, timeouts=HURRIED) as (gateway, node):
        answer = await raw(gateway.url, request_, wait_s=0.5)
        assert status(answer) in {0, 400, 403, 404, 408}
        assert (await node.broker.extent("orders", 0)).high == 0
        assert await healthy(gateway.url)


@pytest.mark.parametrize(
    "headers",
    [b"host: evil.test\r\n", b"host: localhost\r\norigin: http://evil.test\r\n"],
    ids=["rebound name", "page of another site"],
)
async def test_a_strangers_request_is_refused(tmp_path: Path, headers: bytes) -> None:
    async with memory_gateway(tmp_path) as (gateway, node):
        answer = await raw(
            gateway.url,
            b"POST /-/v1/streams/orders HTTP/1.1\r\n"
            + headers
            + b"connection: close\r\ncontent-length: 1\r\n\r\n1",
        )
        assert status(answer) == 403
        assert (await node.broker.extent("orders", 0)).high == 0


async def test_a_compressed_body_is_refused(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        answer = await raw(
            gateway.url,
            HEAD + b"content-encoding: gzip\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1",
        )
        assert status(answer) == 415


async def test_connections_beyond_the_bound_are_turned_away_at_once(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, max_connections=3, max_connections_per_client=3) as (
        gateway,
        _,
    ):
        host, _, port = gateway.url.removeprefix("http://").rpartition(":")
        open_ = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert status(await raw(gateway.url)) == 429
        for _, writer in open_:
            writer.close()
        await asyncio.sleep(0.05)
        assert await healthy(gateway.url)


async def test_a_client_that_holds_many_connections_keeps_no_other_one_out(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, max_connections=8) as (gateway, _):
        host, _, port = gateway.url.removeprefix("http://").rpartition(":")
        open_ = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert status(await raw(gateway.url)) == 429
        other, writer = await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert status(await other.read()) == 200
        writer.close()
        for _, held in open_:
            held.close()
        await asyncio.sleep(0.05)
        assert await healthy(gateway.url)


async def test_long_polls_end_when_the_door_closes(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        waiting = asyncio.create_task(
            raw(
                gateway.url,
                b"GET /-/v1/streams/orders/records?from=latest&wait=30 HTTP/1.1\r\nhost: localhost\r\n\r\n",
            )
        )
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await gateway.stop(5.0)
        assert status(await waiting) == 200
        assert time.monotonic() - began < 3


async def test_long_polls_whose_clients_left_make_room(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        request = (
            b"GET /-/v1/streams/orders/records?from=latest&wait=30 HTTP/1.1\r\nhost: localhost\r\n"
            b"connection: close\r\n\r\n"
        )
        await asyncio.gather(*(raw(gateway.url, request, wait_s=0.2) for _ in range(64)))
        await asyncio.sleep(0.4)
        began = time.monotonic()
        answer = await raw(gateway.url, request.replace(b"wait=30", b"wait=0.1"))
        assert status(answer) == 200
        assert time.monotonic() - began < 5


async def test_a_page_is_bounded_in_bytes_and_nothing_is_left_out(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (_, node):
        large = [Event(b'"%b"' % (b"x" * 900_000), key=str(number)) for number in range(8)]
        for event in large:
            await node.publisher.publish("orders", [event])
        spec = node.broker.stream("orders")
        seen: list[str] = []
        page = await read_page(node.broker, spec, {0: 0, 1: 0}, 100, Slices(node.clock))
        while page.records:
            assert sum(len(bytes(record["value"])) for record in page.records) < 4 << 20
            seen += [record["position"] for record in page.records]
            page = await read_page(node.broker, spec, page.cursor, 100, Slices(node.clock))
        assert len(seen) == len(set(seen)) == 8


async def test_long_polls_beyond_the_bound_are_told_to_come_again(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, _):
        request = (
            b"GET /-/v1/streams/orders/records?from=latest&wait=1 HTTP/1.1\r\nhost: localhost\r\n"
            b"connection: close\r\n\r\n"
        )
        answers = await asyncio.gather(*(raw(gateway.url, request) for _ in range(70)))
        assert sorted({status(answer) for answer in answers}) == [200, 429]
        refused = next(answer for answer in answers if status(answer) == 429)
        assert b"retry-after: 1" in refused


async def test_many_producers_at_once_are_all_answered_and_nothing_is_lost(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path) as (gateway, node):
        request = HEAD + b"connection: close\r\ncontent-length: 3\r\n\r\n[1]"
        answers = await asyncio.gather(*(raw(gateway.url, request) for _ in range(300)))
        taken = sum(status(answer) == 202 for answer in answers)
        assert {status(answer) for answer in answers} <= {202, 429}
        held = 0
        for number in range(2):
            held += (await node.broker.extent("orders", number)).high
        assert held == taken


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    from headrace.http.server.server import Gateway
    from headrace.model.errors import Misuse

    async with memory_gateway(tmp_path) as (gateway, node):
        port = int(gateway.url.rpartition(":")[2])
        with pytest.raises(Misuse, match=rf"cannot listen on `127\.0\.0\.1:{port}`.*--port"):
            await Gateway(node.services(), node.settings).start("127.0.0.1", port)
