"""Messages of every sender, signed as they sign them, on a real node."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.testing import serving
from headrace.testing.served import Served

APP = Path(__file__).with_name("function.py")
SECRET = b"known to both sides"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node that runs the example, and knows every sender's secret."""
    secrets = {
        "HEADRACE_SECRET_GITHUB_HOOK": SECRET.decode(),
        "HEADRACE_SECRET_STRIPE_HOOK": SECRET.decode(),
        "HEADRACE_SECRET_SLACK_HOOK": SECRET.decode(),
        "HEADRACE_SECRET_TENANT_HOOK_NEW": "whsec_" + base64.b64encode(b"not used yet").decode(),
        "HEADRACE_SECRET_TENANT_HOOK": "whsec_" + base64.b64encode(SECRET).decode(),
    }
    with serving(APP, tmp_path_factory.mktemp("kept") / "data", environ=secrets) as node:
        yield node


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


def test_every_message_becomes_one_event_however_often_it_is_sent(node: Served) -> None:
    for sender, body in BODIES.items():
        path, headers = signed(sender, body)
        place = f"/hooks/{path}"
        status, got, _ = node.ask("POST", place, body, **headers)
        assert status == 202, sender
        node.wait_for(got["location"])
        assert node.ask("POST", place, body, **headers).body["duplicate"], sender
        assert node.ask("POST", place, body + b" ", **headers).status == 401, sender
    records = node.ask("GET", "/streams/news/records").body["records"]
    assert {(each["value"]["from"], each["value"]["what"]) for each in records} == {
        ("github", "push"),
        ("stripe", "charge.succeeded"),
        ("slack", "message"),
        ("acme", "contact.created"),
    }
    assert len(records) == 4


def test_slacks_challenge_is_answered(node: Served) -> None:
    body = b'{"type": "url_verification", "challenge": "\\"hello\\""}'
    path, headers = signed("slack", body)
    assert node.ask("POST", f"/hooks/{path}", body, **headers).body == b'"hello"'
