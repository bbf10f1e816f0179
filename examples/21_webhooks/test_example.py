"""Messages of every sender, signed as they sign them, on a real node."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
SECRET = b"known to both sides"


def ask(method: str, url: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Ask the node; its status, headers and JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    request = urllib.request.Request(url, data=data, method=method, headers=named)
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        raw = answer.read()
        found = {name.lower(): text for name, text in answer.headers.items()}
        return answer.status, found, json.loads(raw) if raw else None


def wait_for(place: str, status: str) -> None:
    """Wait until a kept request has come as far as `status`."""
    deadline = time.monotonic() + 20
    while ask("GET", place)[2]["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node that runs the example."""
    data = tmp_path_factory.mktemp("data")
    environ = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    shared = "whsec_" + base64.b64encode(SECRET).decode()
    environ |= {
        "HEADRACE_SECRET_GITHUB_HOOK": SECRET.decode(),
        "HEADRACE_SECRET_STRIPE_HOOK": SECRET.decode(),
        "HEADRACE_SECRET_SLACK_HOOK": SECRET.decode(),
        "HEADRACE_SECRET_TENANT_HOOK_NEW": "whsec_" + base64.b64encode(b"not used yet").decode(),
        "HEADRACE_SECRET_TENANT_HOOK": shared,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "serve", str(HERE / "function.py"),
         "--data", str(data), "--port", "0"],
        env=environ, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        note = data / "node.json"
        deadline = time.monotonic() + 20
        while not note.is_file() or not note.read_bytes():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield json.loads(note.read_bytes())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


def digest(content: bytes) -> bytes:
    """What a sender computes."""
    return hmac.new(SECRET, content, hashlib.sha256).digest()


def signed(sender: str, body: bytes) -> tuple[str, dict[str, str]]:
    """The path a sender posts to, and its headers."""
    now = str(int(time.time()))
    match sender:
        case "github":
            signature = "sha256=" + digest(body).hex()
            return "github", {"X-Hub-Signature-256": signature, "X-GitHub-Event": "push"}
        case "stripe":
            signature = digest(now.encode() + b"." + body).hex()
            return "stripe", {"Stripe-Signature": f"t={now},v1={signature}"}
        case "slack":
            signature = "v0=" + digest(b"v0:" + now.encode() + b":" + body).hex()
            return "slack", {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}
    signature = base64.b64encode(digest(b"msg_1." + now.encode() + b"." + body)).decode()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{signature}",
    }
    return "acme/in", headers


BODIES = {
    "github": b'{"ref": "refs/heads/main"}',
    "stripe": b'{"id": "evt_1", "type": "charge.succeeded"}',
    "slack": b'{"event_id": "Ev1", "event": {"type": "message"}}',
    "acme": b'{"type": "contact.created"}',
}


def test_every_message_becomes_one_event_however_often_it_is_sent(url: str) -> None:
    for sender, body in BODIES.items():
        path, headers = signed(sender, body)
        place = f"{url}/hooks/{path}"
        status, got, _ = ask("POST", place, body, **headers)
        assert status == 202, sender
        wait_for(url + got["location"], "committed")
        assert ask("POST", place, body, **headers)[2]["duplicate"], sender
        assert ask("POST", place, body + b" ", **headers)[0] == 401, sender
    records = ask("GET", f"{url}/streams/news/records")[2]["records"]
    assert {(each["value"]["from"], each["value"]["what"]) for each in records} == {
        ("github", "push"),
        ("stripe", "charge.succeeded"),
        ("slack", "message"),
        ("acme", "contact.created"),
    }
    assert len(records) == 4


def test_slacks_challenge_is_answered(url: str) -> None:
    body = b'{"type": "url_verification", "challenge": "\\"hello\\""}'
    path, headers = signed("slack", body)
    assert ask("POST", f"{url}/hooks/{path}", body, **headers)[2] == "hello"
