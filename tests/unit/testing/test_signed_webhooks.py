"""The server accepts what `signed` writes, for every scheme; without the secret it does not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from headrace import Webhook
from headrace.model.errors import Misuse
from headrace.model.webhook_signature import Signature
from headrace.security.webhook_signatures import Forged, verify
from headrace.testing import signed
from headrace.webhooks import GitHub, Hmac, Slack, StandardWebhooks, Stripe

AT = datetime(2026, 3, 1, tzinfo=UTC)
SECRETS = {"HOOK": "whsec_" + base64.b64encode(b"known to both sides").decode()}
SCHEMES: list[Signature] = [
    StandardWebhooks("HOOK"),
    GitHub("HOOK"),
    Stripe("HOOK"),
    Slack("HOOK"),
    Hmac("HOOK"),
    Hmac("HOOK", header="X-Proof", prefix="sig=", algorithm="sha512", encoding="base64"),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_the_server_accepts_what_was_signed_and_nothing_else(scheme: Signature) -> None:
    proof = signed(Webhook("/hook", scheme), {"id": "evt_1"}, SECRETS, at=AT)
    headers = {name.lower().encode(): text.encode() for name, text in proof.items()}
    secret = SECRETS["HOOK"].encode()
    now = AT.timestamp()
    assert verify(scheme, [secret], headers, b'{"id": "evt_1"}', now=now)
    with pytest.raises(Forged):
        verify(scheme, [secret], headers, b'{"id": "evt_2"}', now=now)
    with pytest.raises(Forged):
        verify(scheme, [b"b3RoZXI="], headers, b'{"id": "evt_1"}', now=now)


def test_the_first_secret_that_is_known_signs() -> None:
    scheme = GitHub(("NEW", "OLD"))
    assert signed(scheme, b"x", {"OLD": "a"}) == signed(GitHub("OLD"), b"x", {"OLD": "a"})
    assert signed(scheme, b"x", {"OLD": "a", "NEW": "b"}) != signed(scheme, b"x", {"OLD": "a"})


def test_what_cannot_sign_is_refused_by_name() -> None:
    with pytest.raises(Misuse, match="no value of `NEW` or `OLD`"):
        signed(GitHub(("NEW", "OLD")), b"x", {"OTHER": "a"})
    with pytest.raises(Misuse, match="public key"):
        signed(StandardWebhooks("HOOK"), b"x", {"HOOK": "whpk_AAAA"})
