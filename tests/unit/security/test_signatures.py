"""Signatures against published vectors, an independent library, and HMAC written out by hand."""

from __future__ import annotations

import base64
import hashlib
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Oracle

from headrace.model.errors import Misuse
from headrace.model.webhook_signature import GitHub, Hmac, Secret, Slack, StandardWebhooks, Stripe
from headrace.security.webhook_signatures import Forged, digest, verify

NOW = 1_700_000_000.0
SHARED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret of some length").decode()


def by_hand(key: bytes, content: bytes) -> bytes:
    """HMAC-SHA256 as RFC 2104 writes it, without the hmac module."""
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + content).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def standard(body: bytes, *, secret: str = SHARED, stamp: float = NOW) -> dict[bytes, bytes]:
    moment = datetime.fromtimestamp(stamp, UTC)
    signature = Oracle(secret).sign("msg_1", moment, body.decode())
    return {
        b"webhook-id": b"msg_1",
        b"webhook-timestamp": str(int(stamp)).encode(),
        b"webhook-signature": signature.encode(),
    }


def test_what_the_reference_library_of_standard_webhooks_signs_is_accepted() -> None:
    body = b'{"type": "contact.created"}'
    scheme = StandardWebhooks("A")
    assert verify(scheme, [SHARED.encode()], standard(body), body, now=NOW) == "msg_1"


def test_the_reference_library_accepts_what_we_would() -> None:
    now = time.time()
    body = b'{"n": 1}'
    headers = standard(body, stamp=now)
    Oracle(SHARED).verify(body, {name.decode(): text.decode() for name, text in headers.items()})
    assert verify(StandardWebhooks("A"), [SHARED.encode()], headers, body, now=now) == "msg_1"


def test_while_a_secret_is_replaced_both_count() -> None:
    body = b"{}"
    both = [OTHER.encode(), SHARED.encode()]
    scheme = StandardWebhooks(("NEW", "OLD"))
    assert verify(scheme, both, standard(body), body, now=NOW) == "msg_1"
    assert verify(scheme, both, standard(body, secret=OTHER), body, now=NOW) == "msg_1"
    with pytest.raises(Forged):
        verify(scheme, [OTHER.encode()], standard(body), body, now=NOW)


def test_one_good_signature_among_several_is_enough() -> None:
    body = b"{}"
    headers = standard(body)
    headers[b"webhook-signature"] = b"v1,bm90IGl0 v9,what " + headers[b"webhook-signature"]
    assert verify(StandardWebhooks("A"), [SHARED.encode()], headers, body, now=NOW) == "msg_1"


@pytest.mark.parametrize("late", [-301, 301, 86_400])
def test_a_message_that_is_too_old_or_too_new_is_refused(late: float) -> None:
    body = b"{}"
    headers = standard(body, stamp=NOW - late)
    with pytest.raises(Forged, match="timestamp"):
        verify(StandardWebhooks("A"), [SHARED.encode()], headers, body, now=NOW)


@given(st.binary(max_size=200), st.integers(0, 10**6), st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_noticed(body: bytes, place: int, bit: int) -> None:
    content = b"msg_1.1700000000." + body
    key = base64.b64decode(SHARED.removeprefix("whsec_"))
    signature = base64.b64encode(by_hand(key, content))
    headers = {
        b"webhook-id": b"msg_1",
        b"webhook-timestamp": b"1700000000",
        b"webhook-signature": b"v1," + signature,
    }
    assert verify(StandardWebhooks("A"), [SHARED.encode()], headers, body, now=NOW) == "msg_1"
    if body:
        changed = bytearray(body)
        changed[place % len(body)] ^= 1 << bit
        with pytest.raises(Forged):
            verify(StandardWebhooks("A"), [SHARED.encode()], headers, bytes(changed), now=NOW)


def test_an_asymmetric_signature_is_checked_with_the_public_key() -> None:
    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = b"whpk_" + base64.b64encode(raw)
    body = b'{"a": 1}'
    signature = base64.b64encode(private.sign(b"msg_2.1700000000." + body))
    headers = {
        b"webhook-id": b"msg_2",
        b"webhook-timestamp": b"1700000000",
        b"webhook-signature": b"v1a," + signature,
    }
    scheme = StandardWebhooks("PUBLIC")
    assert verify(scheme, [key], headers, body, now=NOW) == "msg_2"
    with pytest.raises(Forged):
        verify(scheme, [key], headers, body + b" ", now=NOW)
    # A public key is not a secret: what is signed with it as one must not pass.
    content = b"msg_2.1700000000." + body
    for secret in (key, raw, base64.b64encode(raw)):
        headers[b"webhook-signature"] = b"v1," + base64.b64encode(by_hand(secret, content))
        with pytest.raises(Forged):
            verify(scheme, [key], headers, body, now=NOW)


def test_githubs_published_example_is_accepted() -> None:
    headers = {
        b"x-hub-signature-256": b"sha256="
        b"757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    }
    secret = b"It's a Secret to Everybody"
    assert verify(GitHub("A"), [secret], headers, b"Hello, World!", now=NOW) == digest(
        b"Hello, World!"
    )
    with pytest.raises(Forged):
        verify(GitHub("A"), [secret], headers, b"Hello, World?", now=NOW)


def test_a_delivery_id_that_github_does_not_sign_does_not_make_a_message_new() -> None:
    body = b'{"action": "opened"}'
    signed = {b"x-hub-signature-256": b"sha256=" + by_hand(b"k", body).hex().encode()}
    first = verify(GitHub("A"), [b"k"], {**signed, b"x-github-delivery": b"1"}, body, now=NOW)
    again = verify(GitHub("A"), [b"k"], {**signed, b"x-github-delivery": b"2"}, body, now=NOW)
    assert first == again


def test_slacks_published_example_is_accepted() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
        b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
        b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
        b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        b"x-slack-request-timestamp": b"1531420618",
        b"x-slack-signature": b"v0="
        b"a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    secret = b"8f742231b10e8888abcd99yyyzzz85a5"
    assert verify(Slack("A"), [secret], headers, body, now=1531420700) == digest(body)
    with pytest.raises(Forged, match="timestamp"):
        verify(Slack("A"), [secret], headers, body, now=1531420618 + 301)


def test_slack_repeats_an_event_under_a_new_timestamp_and_it_stays_the_same() -> None:
    body = b'{"event_id": "Ev1", "type": "event_callback"}'
    found = set()
    for stamp in (b"1700000000", b"1700000060"):
        signature = by_hand(b"k", b"v0:" + stamp + b":" + body).hex().encode()
        headers = {b"x-slack-request-timestamp": stamp, b"x-slack-signature": b"v0=" + signature}
        found.add(verify(Slack("A"), [b"k"], headers, body, now=NOW))
    assert found == {"Ev1"}


def test_stripes_scheme_is_checked_over_timestamp_and_body() -> None:
    body = b'{"id": "evt_1", "object": "event"}'
    secret = b"whsec_taken_as_it_stands"
    right = by_hand(secret, b"1700000000." + body).hex().encode()
    wrong = b"0" * 64
    headers = {b"stripe-signature": b"t=1700000000,v1=" + wrong + b",v1=" + right + b",v0=old"}
    assert verify(Stripe("A"), [secret], headers, body, now=NOW + 299) == "evt_1"
    with pytest.raises(Forged, match="timestamp"):
        verify(Stripe("A"), [secret], headers, body, now=NOW + 301)
    # The old scheme `v0` is not taken, and a second timestamp does not make an old message new.
    for text in (
        b"t=1700000000,v0=" + right,
        b"t=1700000000,t=1700000900,v1=" + right,
        b"t=1700000900,v1=" + right,
        b"v1=" + right,
        b"t=1e9,v1=" + right,
    ):
        with pytest.raises(Forged):
            verify(Stripe("A"), [secret], {b"stripe-signature": text}, body, now=NOW + 600)


def test_a_plain_hmac_is_read_in_the_form_the_author_says() -> None:
    body = b"payload"
    hexed = {b"x-sign": b"sha256=" + by_hand(b"k", body).hex().encode()}
    scheme = Hmac("A", header="X-Sign", prefix="sha256=")
    assert verify(scheme, [b"k"], hexed, body, now=NOW) == digest(body)
    based = {b"x-sign": base64.b64encode(by_hand(b"k", body))}
    scheme = Hmac("A", header="X-Sign", encoding="base64")
    assert verify(scheme, [b"k"], based, body, now=NOW) == digest(body)
    with pytest.raises(Forged):
        verify(scheme, [b"k"], hexed, body, now=NOW)


@pytest.mark.parametrize(
    "scheme", [StandardWebhooks("A"), GitHub("A"), Stripe("A"), Slack("A"), Hmac("A")]
)
def test_a_message_without_a_signature_is_refused(scheme: StandardWebhooks) -> None:
    with pytest.raises(Forged, match="missing"):
        verify(scheme, [SHARED.encode()], {}, b"{}", now=NOW)


def test_an_empty_signature_never_matches() -> None:
    for text in (b"", b" ", b"sha256="):
        with pytest.raises(Forged):
            verify(GitHub("A"), [b"k"], {b"x-hub-signature-256": text}, b"", now=NOW)


def test_a_secret_in_the_place_of_its_name_is_refused_without_being_repeated() -> None:
    with pytest.raises(Misuse) as caught:
        GitHub(SHARED)
    assert SHARED not in str(caught.value)
    assert GitHub("NAME").secrets == (Secret("NAME"),)
    assert "NAME" in repr(GitHub("NAME"))


def test_a_secret_that_is_no_base64_is_the_operators_mistake_and_is_not_repeated() -> None:
    with pytest.raises(Misuse) as caught:
        verify(StandardWebhooks("A"), [b"whsec_???"], standard(b"{}"), b"{}", now=NOW)
    assert "???" not in str(caught.value)
