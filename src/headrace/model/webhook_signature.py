"""Signatures of webhooks, as plain values: the schemes, and secrets by reference.

A secret's value never stands here: specs travel, are shown and are logged. What stands here is its
name, which the host looks up in its own settings. Something that looks like the value is refused.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from msgspec.structs import force_setattr

from headrace.model.durations import Seconds, keep_seconds
from headrace.model.errors import Misuse
from headrace.model.policy_struct import PolicyStruct, default

MAX_SECRETS: Final = 8
MAX_SECRETS_NAMED: Final = 100
"""Those that one function or app may ask for."""
TOLERANCE_S: Final = 300.0
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


class Secret(PolicyStruct, frozen=True, order=True):
    """A secret's name; the node knows its value (`[secrets]` in headrace.toml, or the environment).

    Attributes:
        name: Capital letters, digits and underscores.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse what may be the secret itself.

        Raises:
            Misuse: It is not a name; the message does not repeat it.
        """
        name: Any = self.name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Misuse(
                "`Secret(...)` takes a name of capital letters, digits and underscores such as "
                '`Secret("GITHUB_HOOK")`, never the secret itself; put its value in '
                "`[secrets]` of headrace.toml (docs/reference/settings.md)"
            )

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"


Secrets = Secret | str | tuple[Secret | str, ...]
"""What an author may write: one, its bare name, or several while one replaces the other."""


class _Scheme(PolicyStruct, frozen=True):
    secret: Secrets

    def __post_init__(self) -> None:
        given: Any = self.secret
        many = given if isinstance(given, (tuple, list)) else (given,)
        secrets = tuple(each if isinstance(each, Secret) else Secret(each) for each in many)
        if not 1 <= len(secrets) <= MAX_SECRETS:
            raise Misuse(
                f"`{type(self).__name__}` has {len(secrets)} secrets; name 1 to {MAX_SECRETS}, "
                "the newest first"
            )
        force_setattr(self, "secret", secrets)
        if hasattr(self, "tolerance"):
            keep_seconds(self, "tolerance", low=1, high=86_400)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every secret that counts; any of them will do."""
        found: Any = self.secret
        return tuple(found)


class StandardWebhooks(_Scheme, frozen=True, tag="standard-webhooks"):
    """Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.

    Attributes:
        secret: Of `v1` (HMAC-SHA256) the secret, as `whsec_...` or its base64; of `v1a` (ed25519)
            the public key, as `whpk_...`. Several while one replaces the other.
        tolerance: How far the timestamp may lie in the past or the future.
    """

    tolerance: Seconds = default(TOLERANCE_S)


class GitHub(_Scheme, frozen=True, tag="github"):
    """GitHub: `X-Hub-Signature-256`. It signs no time, so its repetitions are known by content."""


class Stripe(_Scheme, frozen=True, tag="stripe"):
    """Stripe: `Stripe-Signature: t=...,v1=...`.

    Attributes:
        secret: The endpoint's secret, `whsec_...`, taken as it stands.
        tolerance: How far the timestamp may lie in the past or the future.
    """

    tolerance: Seconds = default(TOLERANCE_S)


class Slack(_Scheme, frozen=True, tag="slack"):
    """Slack: `X-Slack-Signature: v0=...`; its `url_verification` challenge is answered as well.

    Attributes:
        secret: The app's signing secret.
        tolerance: How far the timestamp may lie in the past or the future.
    """

    tolerance: Seconds = default(TOLERANCE_S)


class Hmac(_Scheme, frozen=True, tag="hmac"):
    """An HMAC over the raw body in one header, as many smaller senders do it.

    Attributes:
        header: The header.
        prefix: What stands before the digest in it, such as `sha256=`.
        algorithm: The hash.
        encoding: How the digest is written.
    """

    header: str = "X-Signature"
    prefix: str = ""
    algorithm: Literal["sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"

    def __post_init__(self) -> None:
        """Refuse what is not a header, and what hashes too weakly.

        Raises:
            Misuse: Naming the setting and the fix.
        """
        super().__post_init__()
        header: Any = self.header
        if not isinstance(header, str) or not _HEADER.fullmatch(header):
            raise Misuse(
                f'`Hmac(header={header!r})` is not a header\'s name; write `"X-Signature"`'
            )
        if self.algorithm not in {"sha256", "sha384", "sha512"}:
            raise Misuse(f"`Hmac(algorithm={self.algorithm!r})`: use sha256, sha384 or sha512")
        if self.encoding not in {"hex", "base64"}:
            raise Misuse(f"`Hmac(encoding={self.encoding!r})`: use hex or base64")


Signature = StandardWebhooks | GitHub | Stripe | Slack | Hmac
