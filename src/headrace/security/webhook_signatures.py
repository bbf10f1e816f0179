"""Verification of webhooks: each scheme's check over the raw body. Pure.

In: headers, body, the valid secrets, and the time. Out: the message's id, taken only from signed content, so that a repetition
is recognised whatever its unsigned headers say. Every secret is tried and every comparison takes the same time; errors do not
reveal how close a forgery was.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec

from headrace.model.errors import Misuse, Refused
from headrace.model.webhook_signature import (
    GitHub,
    Hmac,
    Signature,
    Slack,
    StandardWebhooks,
    Stripe,
)

MAX_SIGNATURES = 16
MAX_ID = 512
Headers = Mapping[bytes, bytes]


class Forged(Refused):
    """A message is not signed by its sender, or its timestamp is too old or too new."""

    code: ClassVar[str] = "forged"


class _Id(msgspec.Struct):
    id: str = ""
    event_id: str = ""


_ids = msgspec.json.Decoder(_Id)


def verify(
    scheme: Signature, secrets: Sequence[bytes], headers: Headers, body: bytes, *, now: float
) -> str:
    """Verify a message; return its id.

    Args:
        scheme: The sender's scheme.
        secrets: The values of its secrets.
        headers: The request's headers, with lower-case names.
        body: The raw body.
        now: Seconds since the epoch.

    Raises:
        Forged: The signature is not valid.
        Misuse: A secret does not have the scheme's form, or a library is missing.
    """
    match scheme:
        case StandardWebhooks():
            return _standard(scheme, secrets, headers, body, now)
        # GitHub signs no timestamp: a replay is only recognised by the body's hash.
        case GitHub():
            _github(secrets, headers, body)
        case Stripe():
            # The id is taken from the signed body, as no header is signed.
            _stripe(scheme, secrets, headers, body, now)
            return _said(body).id or digest(body)
        case Slack():
            _slack(scheme, secrets, headers, body, now)
            return _said(body).event_id or digest(body)
        case Hmac():
            _hmac(scheme, secrets, headers, body)
    return digest(body)


def digest(body: bytes) -> str:
    """Return the id of a message without a signed one: a hash of its content."""
    return hashlib.sha256(body).hexdigest()


def _standard(
    scheme: StandardWebhooks, secrets: Sequence[bytes], headers: Headers, body: bytes, now: float
) -> str:
    name = _header(headers, b"webhook-id")
    stamp = _header(headers, b"webhook-timestamp")
    # Senders rotate keys by sending several signatures; each costs a verification, so
    # `MAX_SIGNATURES` bounds them.
    given = _header(headers, b"webhook-signature").split(b" ")
    # A dot in the id could move the border between id and timestamp in the signed content.
    if not name or len(name) > MAX_ID or b"." in name or not name.isascii():
        raise Forged("the header `webhook-id` is not an id")
    _fresh(stamp, scheme.tolerance, now)
    content = b".".join((name, stamp, body))
    shared = [each for each in secrets if not each.startswith(b"whpk_")]
    public = [each for each in secrets if each.startswith(b"whpk_")]
    wanted = [
        base64.b64encode(hmac.digest(_base64_secret(each), content, "sha256")) for each in shared
    ]
    matched = _any_equal(
        [each[3:] for each in given[:MAX_SIGNATURES] if each[:3] == b"v1,"], wanted
    )
    for signature in given[:MAX_SIGNATURES]:
        if signature[:4] == b"v1a,":
            for key in public:
                # No early end: the response time must not reveal which key matched.
                matched |= _ed25519(key, signature[4:], content)
    if not matched:
        raise Forged("the header `webhook-signature` holds no signature of this endpoint's secrets")
    return name.decode()


def _base64_secret(secret: bytes) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except binascii.Error as error:
        raise Misuse(
            "a secret of `StandardWebhooks` is not `whsec_` and base64; copy it whole from the sender"
        ) from error


def _ed25519(key: bytes, signature: bytes, content: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise Misuse(
            "signatures `v1a` need a library that is not installed; `pip install headrace[webhooks]`"
        ) from error
    try:
        public = Ed25519PublicKey.from_public_bytes(
            base64.b64decode(key.removeprefix(b"whpk_"), validate=True)
        )
    except ValueError as error:
        raise Misuse("a `whpk_` key of `StandardWebhooks` is not an ed25519 public key") from error
    try:
        public.verify(base64.b64decode(signature, validate=True), content)
    # ValueError: a signature that is not base64 is a forgery like any other.
    except (InvalidSignature, ValueError):
        return False
    return True


def _github(secrets: Sequence[bytes], headers: Headers, body: bytes) -> None:
    given = _header(headers, b"x-hub-signature-256")
    wanted = [b"sha256=" + _hex(each, body) for each in secrets]
    if not _any_equal([given], wanted):
        raise Forged(
            "the header `X-Hub-Signature-256` is not this endpoint's signature of the body"
        )


def _stripe(
    scheme: Stripe, secrets: Sequence[bytes], headers: Headers, body: bytes, now: float
) -> None:
    stamps: list[bytes] = []
    given: list[bytes] = []
    for part in _header(headers, b"stripe-signature").split(b","):
        name, _, value = part.strip().partition(b"=")
        if name == b"t":
            stamps.append(value)
        elif name == b"v1":
            given.append(value)
    # With two timestamps the signed one and the checked one might differ.
    if len(stamps) != 1:
        raise Forged("the header `Stripe-Signature` has not one timestamp")
    _fresh(stamps[0], scheme.tolerance, now)
    wanted = [_hex(each, stamps[0] + b"." + body) for each in secrets]
    if not _any_equal(given[:MAX_SIGNATURES], wanted):
        raise Forged("the header `Stripe-Signature` is not this endpoint's signature of the body")


def _slack(
    scheme: Slack, secrets: Sequence[bytes], headers: Headers, body: bytes, now: float
) -> None:
    stamp = _header(headers, b"x-slack-request-timestamp")
    _fresh(stamp, scheme.tolerance, now)
    given = _header(headers, b"x-slack-signature")
    wanted = [b"v0=" + _hex(each, b"v0:" + stamp + b":" + body) for each in secrets]
    if not _any_equal([given], wanted):
        raise Forged("the header `X-Slack-Signature` is not this app's signature of the body")


def _hmac(scheme: Hmac, secrets: Sequence[bytes], headers: Headers, body: bytes) -> None:
    given = _header(headers, scheme.header.lower().encode())
    digests = [hmac.digest(each, body, scheme.algorithm) for each in secrets]
    hexed = scheme.encoding == "hex"
    written = [each.hex().encode() if hexed else base64.b64encode(each) for each in digests]
    if not _any_equal([given], [scheme.prefix.encode() + each for each in written]):
        raise Forged(f"the header `{scheme.header}` is not this endpoint's signature of the body")


def _hex(secret: bytes, content: bytes) -> bytes:
    return hmac.digest(secret, content, "sha256").hex().encode()


def _any_equal(given: Iterable[bytes], wanted: Sequence[bytes]) -> bool:
    """Return whether one of `given` is one of `wanted`; all are compared, so that time reveals nothing."""
    matched = False
    for signature in given:
        for right in wanted:
            matched |= hmac.compare_digest(signature, right)
    return matched


def _header(headers: Headers, name: bytes) -> bytes:
    found = headers.get(name, b"").strip()
    if not found:
        raise Forged(f"the header `{name.decode()}` is missing")
    return found


def _fresh(stamp: bytes, tolerance: float, now: float) -> None:
    # Bounded before `int`, which takes quadratic time for long digits.
    if not stamp.isdigit() or len(stamp) > 12:
        raise Forged("the signature's timestamp is not a time in seconds")
    if abs(now - int(stamp)) > tolerance:
        raise Forged(
            f"the signature's timestamp is more than {tolerance:g} s away from this node's clock; "
            "an old message was sent again, or a clock is wrong"
        )


def _said(body: bytes) -> _Id:
    """Return the id of the message in its signed body."""
    try:
        found = _ids.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Id()
    return found if len(found.id) <= MAX_ID and len(found.event_id) <= MAX_ID else _Id()
