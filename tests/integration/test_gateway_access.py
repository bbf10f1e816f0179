"""The platform's own paths, where the node says that nobody comes in without a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.gateway_nodes import memory_gateway, raw, wait_for

from headrace.client.address import read_key
from headrace.client.http import Client
from headrace.model.errors import HeadraceError, Unavailable
from headrace.testing.served import ask


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: localhost", "connection: close", *headers]
    return "\r\n".join((*lines, "", "")).encode()


async def test_with_access_token_nobody_comes_in_without_one_but_to_ask_for_health(
    tmp_path: Path,
) -> None:
    async with memory_gateway(tmp_path, access="token") as (gateway, node):
        for path in (
            "/",
            "/-/v1/streams",
            "/metrics",
            "/-/v1/tokens",
            "/openapi.json",
            "/-/v1/invocations",
            "/console",
        ):
            answer = await raw(gateway.url, get(path))
            assert answer.startswith(b"HTTP/1.1 401"), path
            assert b"www-authenticate: Bearer" in answer
        assert (await raw(gateway.url, get("/healthz"))).startswith(b"HTTP/1.1 200")
        _, reader = await node.tokens.create("reader", ["read"])
        _, root = await node.tokens.create("root", ["admin"])
        for path, text, status in (
            ("/-/v1/streams", reader, b"200"),
            ("/-/v1/tokens", reader, b"403"),
            ("/-/v1/tokens", root, b"200"),
            ("/-/v1/streams", reader[:-1], b"401"),
        ):
            answer = await raw(gateway.url, get(path, f"authorization: Bearer {text}"))
            assert answer.startswith(b"HTTP/1.1 " + status), (path, answer[:200])


@pytest.mark.parametrize(("command", "status"), [("serve", 401), ("dev", 202)])
def test_a_process_of_this_machine_publishes_without_a_token_to_a_node_in_development_only(
    tmp_path: Path, command: str, status: int
) -> None:
    (tmp_path / "app.py").write_text(
        "from headrace import App\napp = App('shop')\napp.stream('orders')\n"
    )
    environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    note = tmp_path / "data" / "node.json"
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "headrace.cli.main",
            command,
            "app.py",
            "--data",
            "data",
            "--port",
            "0",
        ],
        cwd=tmp_path,
        env=environ,
    ) as process:
        try:
            wait_for(lambda: note.is_file() or process.poll() is not None)
            url = json.loads(note.read_bytes())["url"]
            assert ask("POST", f"{url}/-/v1/streams/orders", {}).status == status
            shown = f"Bearer {read_key(note.parent)}"
            assert ask("POST", f"{url}/-/v1/streams/orders", {}, authorization=shown).status == 202
        finally:
            process.terminate()


async def test_publishing_needs_a_token_for_the_very_stream(tmp_path: Path) -> None:
    async with memory_gateway(tmp_path, access="token") as (gateway, node):
        _, text = await node.tokens.create("till", ["publish:orders"])
        head = f"authorization: Bearer {text}\r\nhost: localhost\r\nconnection: close"
        for stream, status in (("orders", b"202"), ("others", b"403"), ("%6frders", b"202")):
            request = (
                f"POST /-/v1/streams/{stream} HTTP/1.1\r\n{head}\r\ncontent-length: 2\r\n\r\n{{}}"
            )
            answer = await raw(gateway.url, request.encode())
            assert answer.startswith(b"HTTP/1.1 " + status), (stream, answer[:200])


async def test_commands_and_clients_bring_the_token_they_are_given(tmp_path: Path) -> None:
    import asyncio

    async with memory_gateway(tmp_path, access="token") as (gateway, node):
        _, text = await node.tokens.create("reader", ["read"])

        def streams(token: str) -> list[str]:
            with Client(gateway.url, token=token) as client:
                return [row["name"] for row in client.get("streams")["streams"]]

        assert await asyncio.to_thread(streams, text) == ["orders"]
        with pytest.raises(HeadraceError, match="token") as caught:
            await asyncio.to_thread(streams, "")
        assert not isinstance(caught.value, Unavailable)
        run = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "headrace.cli.main", "list", "--url", gateway.url],
            env=os.environ | {"HEADRACE_TOKEN": text},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
