"""Messages of every sender, signed as they sign them, on a real node."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.model.webhook_signature import Signature
from headrace.testing import serving, signed
from headrace.testing.served import Served
from headrace.webhooks import GitHub, Slack, StandardWebhooks, Stripe

APP = Path(__file__).with_name("function.py")
SECRETS = {
    "GITHUB_HOOK": "known to both sides",
    "STRIPE_HOOK": "known to both sides",
    "SLACK_HOOK": "known to both sides",
    "TENANT_HOOK_NEW": "whsec_" + base64.b64encode(b"not used yet").decode(),
    "TENANT_HOOK": "whsec_" + base64.b64encode(b"known to both sides").decode(),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node that runs the example, and knows every sender's secret."""
    secrets = {f"HEADRACE_SECRET_{name}": value for name, value in SECRETS.items()}
    with serving(APP, tmp_path_factory.mktemp("kept") / "data", environ=secrets) as node:
        yield node


# Where each sender posts to, how it signs, and what it says.
MESSAGES: list[tuple[str, Signature, bytes]] = [
    ("github", GitHub("GITHUB_HOOK"), b'{"ref": "refs/heads/main"}'),
    ("stripe", Stripe("STRIPE_HOOK"), b'{"id": "evt_1", "type": "charge.succeeded"}'),
    ("slack", Slack("SLACK_HOOK"), b'{"event_id": "Ev1", "event": {"type": "message"}}'),
    ("acme/in", StandardWebhooks("TENANT_HOOK"), b'{"type": "contact.created"}'),
]


def test_every_message_becomes_one_event_however_often_it_is_sent(node: Served) -> None:
    for path, scheme, body in MESSAGES:
        headers = {**signed(scheme, body, SECRETS), "X-GitHub-Event": "push"}
        place = f"/hooks/{path}"
        status, got, _ = node.ask("POST", place, body, **headers)
        assert status == 202, path
        node.wait_for(got["location"])
        assert node.ask("POST", place, body, **headers).body["duplicate"], path
        assert node.ask("POST", place, body + b" ", **headers).status == 401, path
    records = node.ask("GET", "/-/v1/streams/news/records").body["records"]
    assert {(each["value"]["from"], each["value"]["what"]) for each in records} == {
        ("github", "push"),
        ("stripe", "charge.succeeded"),
        ("slack", "message"),
        ("acme", "contact.created"),
    }
    assert len(records) == 4


def test_slacks_challenge_is_answered(node: Served) -> None:
    body = b'{"type": "url_verification", "challenge": "\\"hello\\""}'
    headers = signed(Slack("SLACK_HOOK"), body, SECRETS)
    assert node.ask("POST", "/hooks/slack", body, **headers).body == b'"hello"'
