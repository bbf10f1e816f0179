"""Webhooks under attack: forged, repeated, dripping, blown up, smuggled, and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path

from tests.integration.gateway_nodes import memory_gateway, raw

from headrace.http.server.server_state import Timeouts
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.triggers.http import PerClient, Webhook
from headrace.model.webhook_signature import GitHub, StandardWebhooks
from headrace.node.assembly import Node

KEY = b"only the sender knows"
STREAM = "_shop.hook.webhook.0"


@contextlib.asynccontextmanager
async def hooked(
    folder: Path, *, timeouts: Timeouts | None = None, **route: object
) -> AsyncIterator[tuple[str, Node]]:
    """An HTTP server with one webhook whose function is paused, so that what came in can be counted."""
    for name in ("key", "std"):
        (folder / name).touch(mode=0o600)
    (folder / "key").write_bytes(KEY)
    secrets = {"HOOK": f"file:{folder}/key", "STD": f"file:{folder}/std"}
    (folder / "std").write_bytes(b"whsec_b25seSB0aGUgc2VuZGVyIGtub3dz")
    settings = {"secrets": secrets, "max_connections": 2_400, "max_requests": 256}
    async with memory_gateway(folder, timeouts=timeouts, **settings) as (gateway, node):
        scheme = route.pop("signature", GitHub("HOOK"))
        hook = Webhook("/hooks/in", scheme, **route)  # type: ignore[arg-type]
        function = FunctionSpec(name="shop.hook", app="shop", triggers=(hook,))
        node.supervisor._paused.add("shop.hook")
        await node.supervisor.deploy(AppSpec(name="shop", functions=(function,)))
        yield gateway.url, node


def signature(body: bytes) -> bytes:
    return b"sha256=" + hmac.new(KEY, body, hashlib.sha256).hexdigest().encode()


def message(body: bytes, *headers: bytes, sign: bytes | None = None, close: bool = True) -> bytes:
    lines = [
        b"POST /hooks/in HTTP/1.1",
        b"host: localhost",
        b"content-length: %d" % len(body),
        b"x-hub-signature-256: " + (signature(body) if sign is None else sign),
        *headers,
    ]
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


async def kept(node: Node) -> int:
    return (await node.broker.extent(STREAM, 0)).high


async def test_a_signed_message_is_kept_once_however_often_it_comes(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (url, node):
        body = b'{"n": 1}'
        answers = await asyncio.gather(
            *(raw(url, message(body, b"x-github-delivery: %d" % n)) for n in range(50))
        )
        assert {status(answer) for answer in answers} == {202}
        assert sum(b'"duplicate":false' in answer for answer in answers) == 1
        assert await kept(node) == 1


async def test_forged_messages_leave_nothing_behind(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (url, node):
        body = b'{"n": 1}'
        right = signature(body)
        forged = [
            message(body, sign=b"sha256=" + b"0" * 64),
            message(body, sign=right.upper()),
            message(body, sign=right[:-1]),
            message(body, sign=right + b"0"),
            message(body, sign=b""),
            message(body, sign=b"sha1=" + hmac.new(KEY, body, "sha1").hexdigest().encode()),
            message(body + b" ", sign=right),
            message(b"", sign=right),
            # Two signatures: whichever is read, both are not ours.
            message(body, b"x-hub-signature-256: sha256=" + b"1" * 64, sign=b"sha256=" + b"2" * 64),
        ]
        answers = [await raw(url, each) for each in forged]
        assert [status(answer) for answer in answers] == [401] * len(forged)
        assert not any(right[7:] in answer for answer in answers)
        assert await kept(node) == 0


async def test_an_old_message_is_refused_and_a_new_one_cannot_be_repeated(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from standardwebhooks.webhooks import Webhook as Sender

    sender = Sender("whsec_b25seSB0aGUgc2VuZGVyIGtub3dz")
    async with hooked(tmp_path, signature=StandardWebhooks("STD")) as (url, node):

        def signed(name: str, moment: datetime, body: bytes) -> bytes:
            return message(
                body,
                b"webhook-id: " + name.encode(),
                b"webhook-timestamp: %d" % moment.timestamp(),
                b"webhook-signature: " + sender.sign(name, moment, body.decode()).encode(),
            )

        now = datetime.now(UTC)
        assert status(await raw(url, signed("a", now, b"{}"))) == 202
        again = await raw(url, signed("a", now + timedelta(seconds=1), b"{}"))
        assert b'"duplicate":true' in again
        for moment in (now - timedelta(minutes=6), now + timedelta(minutes=6)):
            assert status(await raw(url, signed("b", moment, b"{}"))) == 401
        assert await kept(node) == 1


async def test_bombs_are_put_down_signed_or_not(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (url, node):
        bomb = gzip.compress(bytes(200 << 20), 9)
        answer = await raw(url, message(bomb, b"content-encoding: gzip"))
        assert status(answer) == 413
        assert status(await raw(url, message(bomb, b"content-encoding: gzip", sign=b"x"))) == 401
        assert status(await raw(url, message(b" " * (1 << 20) + b"{}"))) == 413
        packed = gzip.compress(b'{"n": 1}')
        assert status(await raw(url, message(packed, b"content-encoding: gzip"))) == 202
        assert await kept(node) == 1


async def test_what_no_reader_agrees_about_is_refused(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (url, node):
        for body in (b"", b"{", b'{"a": 1, "a": 2}', b"NaN", b"[" * 300 + b"]" * 300, b'"\\ud800"'):
            assert status(await raw(url, message(body))) == 400, body[:20]
        assert await kept(node) == 0


async def test_requests_within_requests_are_not_answered(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (url, node):
        body = b'{"n": 1}'
        inner = message(body, close=True)
        length = b"content-length: %d\r\n" % len(inner)
        head = b"POST /hooks/in HTTP/1.1\r\nhost: localhost\r\n"
        smuggled = [
            head + length + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
            head + b"transfer-encoding: chunked\r\n" + length + b"\r\n0\r\n\r\n" + inner,
            head + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + inner,
            head + b"content-length: 0\r\n" + length + b"\r\n" + inner,
            head + b"content-length: +5\r\n\r\nhello" + inner,
            head + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + inner,
            head + b"x: a\rb\r\ncontent-length: 0\r\n\r\n" + inner,
        ]
        for each in smuggled:
            answer = await raw(url, each, wait_s=2.0)
            assert b"HTTP/1.1 202" not in answer, each[:120]
        assert await kept(node) == 0


async def test_slow_senders_are_cut_off_and_others_do_not_notice(tmp_path: Path) -> None:
    async with hooked(tmp_path, timeouts=Timeouts(headers=0.5, body=0.5)) as (url, node):
        slow = [
            asyncio.create_task(raw(url, *(bytes((b,)) for b in message(b"{}")[:60]), pause=0.03))
            for _ in range(50)
        ]
        good = await asyncio.gather(*(raw(url, message(b"%d" % n)) for n in range(50)))
        assert {status(answer) for answer in good} == {202}
        assert {status(answer) for answer in await asyncio.gather(*slow)} == {408}
        assert await kept(node) == 50


async def test_a_thousand_connections_are_answered_or_told_to_wait(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (url, node):
        answers = await asyncio.gather(
            *(
                raw(url, message(b"%d" % n) if n % 2 else message(b"%d" % n, sign=b"sha256=no"))
                for n in range(1_000)
            )
        )
        found = [status(answer) for answer in answers]
        assert set(found) <= {202, 401, 429}
        assert {status for n, status in enumerate(found) if not n % 2} <= {401, 429}
        assert await kept(node) == found.count(202) > 0
        assert status(await raw(url, message(b'"after"'))) == 202


async def test_a_client_that_guesses_is_slowed_down(tmp_path: Path) -> None:
    async with hooked(tmp_path, rate=PerClient(5, per=60)) as (url, node):
        found = [status(await raw(url, message(b"{}", sign=b"sha256=no"))) for _ in range(8)]
        assert found == [401] * 5 + [429] * 3
        assert await kept(node) == 0


async def test_headers_a_sender_makes_up_do_not_pose_as_ours(tmp_path: Path) -> None:
    async with hooked(tmp_path, headers=("x-github-event",)) as (url, node):
        body = b"{}"
        answer = await raw(
            url,
            message(
                body,
                b"x-github-event: push",
                b"headrace-http-method: GET",
                b"headrace-http-params: {}",
            ),
        )
        assert status(answer) == 202
        (chunk,) = await node.broker.fetch(STREAM, 0, 0, events=1, size=1 << 20)
        headers = chunk.events()[0].headers
        assert headers == {
            "headrace-http-method": "POST",
            "headrace-http-path": "/hooks/in",
            "headrace-http-client": "127.0.0.1",
            "headrace-http-header-x-github-event": "push",
        }


async def test_where_the_secret_is_missing_nothing_comes_in_and_nothing_leaks(
    tmp_path: Path,
) -> None:
    async with hooked(tmp_path, signature=GitHub("NOBODY_SET_IT")) as (url, node):
        answer = await raw(url, message(b"{}"))
        assert status(answer) == 503
        assert KEY not in answer
        assert await kept(node) == 0


async def test_the_address_of_a_kept_message_tells_only_what_became_of_it(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (url, _):
        answer = await raw(url, message(b'{"secret": "x"}'))
        place = json.loads(answer.partition(b"\r\n\r\n")[2])["status"]

        async def ask(path: str) -> bytes:
            return await raw(
                url,
                f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode(),
            )

        found = json.loads((await ask(place)).partition(b"\r\n\r\n")[2])
        assert found["status"] == "waiting"
        assert "secret" not in str(found)
        for other in (
            place[:-1] + ("0" if place[-1] != "0" else "1"),
            place.replace("-0-0-", "-0-1-"),
        ):
            assert status(await ask(other)) == 404
