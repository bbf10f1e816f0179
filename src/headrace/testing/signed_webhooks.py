"""A webhook's message as its sender signs it, for tests of the function that takes it. Pure.

In: the webhook (or its scheme), a body, the secrets by name. Out: the headers that prove it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headrace.model.errors import Misuse
from headrace.model.triggers.http import Webhook
from headrace.model.webhook_signature import (
    GitHub,
    Hmac,
    Signature,
    Slack,
    StandardWebhooks,
    Stripe,
)


def signed(
    webhook: Webhook | Signature,
    body: Any,
    secrets: Mapping[str, str],
    *,
    at: datetime | None = None,
    id: str = "msg_1",
) -> dict[str, str]:
    """Return the headers that a sender adds to a body; pass them on as `**headers`.

    Args:
        webhook: The function's trigger, or its scheme alone.
        body: Bytes as they are, anything else as JSON, as `World.ask` and `Served.ask` write it.
        secrets: Values by name, as `World(secrets=...)` takes them; the first that the scheme names
            and that is here signs.
        at: When it is signed, an aware datetime: `world.now` in a world; else the present.
        id: The message's id, which only Standard Webhooks sends.

    Raises:
        Misuse: None of the scheme's secrets is here, or one cannot sign.
    """
    scheme = webhook.signature if isinstance(webhook, Webhook) else webhook
    secret = _secret_of(scheme, secrets)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    stamp = str(int((at or datetime.now(UTC)).timestamp()))
    timed = stamp.encode()
    match scheme:
        case StandardWebhooks():
            content = b".".join((id.encode(), timed, data))
            digest = hmac.digest(_key_of(secret), content, "sha256")
            return {
                "webhook-id": id,
                "webhook-timestamp": stamp,
                "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
            }
        case GitHub():
            return {"X-Hub-Signature-256": "sha256=" + _hex(secret, data)}
        case Stripe():
            return {"Stripe-Signature": f"t={stamp},v1={_hex(secret, timed + b'.' + data)}"}
        case Slack():
            signature = "v0=" + _hex(secret, b"v0:" + timed + b":" + data)
            return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}
        case Hmac():
            digest = hmac.digest(secret.encode(), data, scheme.algorithm)
            hexed = scheme.encoding == "hex"
            written = digest.hex() if hexed else base64.b64encode(digest).decode()
            return {scheme.header: scheme.prefix + written}


def _secret_of(scheme: Signature, secrets: Mapping[str, str]) -> str:
    names = [secret.name for secret in scheme.secrets]
    for name in names:
        if name in secrets:
            return secrets[name]
    raise Misuse(
        f"`signed` was given no value of {' or '.join(f'`{name}`' for name in names)}; pass "
        f'`{{"{names[0]}": "..."}}`, as to `World(secrets=...)`'
    )


def _key_of(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise Misuse(
            "`signed` signs Standard Webhooks with a shared secret, `whsec_` and base64; a public "
            "key (`whpk_`) cannot sign"
        ) from error


def _hex(secret: str, content: bytes) -> str:
    return hmac.digest(secret.encode(), content, "sha256").hex()
