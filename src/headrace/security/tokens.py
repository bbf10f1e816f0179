"""Bearer tokens: created and shown once, stored as a hash with their scopes and expiry.

A token has the form `hr_<id>_<secret>`: the id finds the row, the secret (256 bits) is compared in
constant time with its SHA-256. The store holds nothing that could be used as a token. Rows are
cached for two seconds, after which a token that was revoked on another node is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from headrace.environment.clock import Clock
from headrace.environment.randomness import Entropy
from headrace.model.effects import Change, Check, Put, Space
from headrace.model.errors import Conflict, Misuse, Refused, Unknown
from headrace.model.triggers.http import check_scope
from headrace.storage.kv.base import Storage
from headrace.storage.kv.keys import after, pack

MAX_TOKENS = 10_000
MAX_SCOPES = 32
MAX_REMEMBERED = 4_096
REMEMBER_S = 2.0
ADMIN = "admin"
_FORM = re.compile(r"hr_([0-9a-f]{16})_([0-9a-f]{64})")
_NAME = re.compile(r"[ -~]{1,100}")


_OURS = re.compile(rb"\bhro?_[0-9a-f]{16}", re.I)


def is_ours(authorization: bytes) -> bool:
    """Return whether an `Authorization` header holds a credential of this platform, which no other service may see."""
    return _OURS.search(authorization) is not None


class Unauthenticated(Refused):
    """A token is missing, unknown, revoked or expired; get one with `headrace token create`."""

    code: ClassVar[str] = "unauthenticated"


class Token(msgspec.Struct, frozen=True):
    """A stored token.

    Attributes:
        id: Its row's id; not secret.
        name: Its purpose, in words.
        scopes: Its permissions; `admin` permits everything, `orders:*` every scope that starts with `orders:`.
        hash: SHA-256 of its secret.
        created: Microseconds since the epoch.
        expires: The same; 0 means never.
        revoked: The same; 0 means not.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    hash: bytes
    created: int
    expires: int = 0
    revoked: int = 0

    def allows(self, scope: str) -> bool:
        """Return whether it permits `scope`."""
        return any(
            own in {ADMIN, scope} or (own.endswith("*") and scope.startswith(own[:-1]))
            for own in self.scopes
        )


_decoder = msgspec.msgpack.Decoder(Token)


class Tokens:
    """The node's tokens. Owned by assembly."""

    def __init__(self, storage: Storage, clock: Clock, entropy: Entropy) -> None:
        self._storage = storage
        self._clock = clock
        self._entropy = entropy
        self._seen: dict[str, tuple[float, Token | None]] = {}

    async def create(
        self, name: str, scopes: Iterable[str], *, lifetime: float | None = None
    ) -> tuple[Token, str]:
        """Create a token; return it with its text, which is not stored.

        Args:
            name: Its purpose.
            scopes: Its permissions.
            lifetime: Seconds; None means until it is revoked.

        Raises:
            Misuse: A setting is invalid, or there are too many tokens.
        """
        asked = tuple(dict.fromkeys(scopes))
        if not _NAME.fullmatch(name):
            raise Misuse("a token needs a name of 1 to 100 plain characters: what is it for?")
        if not 1 <= len(asked) <= MAX_SCOPES:
            raise Misuse(f"a token has 1 to {MAX_SCOPES} scopes, this one {len(asked)}")
        for scope in asked:
            if scope != "*":
                check_scope(scope.removesuffix("*") or scope)
            else:
                raise Misuse("`*` is not a scope; write `admin` for a token that may do everything")
        if lifetime is not None and not 1 <= lifetime <= 10 * 366 * 86_400:
            raise Misuse(f"a token cannot live {lifetime:g} s; use 1 s to 10 years")
        # `all` reads every row, so their number is bounded.
        if len(await self.all()) >= MAX_TOKENS:
            raise Misuse(f"there are {MAX_TOKENS:,} tokens already; revoke what is not needed")
        now = self._clock.now()
        secret = self._entropy.token(32)
        token = Token(
            self._entropy.token(8),
            name,
            asked,
            _hash(secret),
            now,
            0 if lifetime is None else now + round(lifetime * 1e6),
        )
        row = msgspec.msgpack.encode(token)
        key = _key(token.id)
        await self._storage.apply(
            Change((Check(Space.META, key, None),), (Put(Space.META, key, row),))
        )
        return token, f"hr_{token.id}_{secret}"

    async def all(self) -> list[Token]:
        """Return every token, also expired and revoked ones, oldest first."""
        low = _key("")[:-1]
        rows = await self._storage.scan(Space.META, low, after(low), limit=MAX_TOKENS)
        return sorted((_decoder.decode(row) for _, row in rows), key=lambda token: token.created)

    async def revoke(self, name: str) -> Token:
        """Revoke the token with this id.

        Raises:
            Unknown: There is none.
        """
        key = _key(name)
        while True:
            row = await self._storage.get(Space.META, key)
            if row is None:
                raise Unknown(f"there is no token `{name:.40}`; `headrace token list` shows all")
            token = _decoder.decode(row)
            if token.revoked:
                return token
            # The row stays: the list shows who had access, and the id is never given to another
            # token.
            token = replace(token, revoked=self._clock.now())
            put = Put(Space.META, key, msgspec.msgpack.encode(token))
            try:
                await self._storage.apply(Change((Check(Space.META, key, row),), (put,)))
            except Conflict:
                continue
            # This node refuses the token at once, others once their cached row expires.
            self._seen.pop(name, None)
            return token

    async def check(self, authorization: str | None, scope: str) -> Token:
        """Return the token of an `Authorization` header, if it permits `scope`.

        Raises:
            Unauthenticated: There is no valid one; the message does not say why.
            Refused: It is valid, but does not permit the scope.
        """
        token = await self.shown(authorization)
        if not token.allows(scope):
            raise Refused(
                f"this token is not good for `{scope}`; it is for {', '.join(token.scopes)}"
            )
        return token

    async def shown(self, authorization: str | None) -> Token:
        """Return the token of an `Authorization` header, whatever its scopes.

        Raises:
            Unauthenticated: There is no valid one; the message does not say why.
        """
        kind, _, text = (authorization or "").partition(" ")
        # Anything in another form is refused without a read of the store.
        form = _FORM.fullmatch(text.strip()) if kind.lower() == "bearer" else None
        if form is None:
            raise Unauthenticated(
                "a token is needed; send `Authorization: Bearer hr_...` (commands: `HEADRACE_TOKEN`). "
                "Commands on the node's machine need none: name its data folder with `--data`; "
                "`headrace token create` makes one for others"
            )
        token = await self._find(form.group(1))
        # Compared even without a row, so that the response time does not reveal which ids exist.
        matches = hmac.compare_digest(
            _hash(form.group(2)), bytes(32) if token is None else token.hash
        )
        now = self._clock.now()
        if (
            token is None
            or not matches
            or token.revoked
            or (token.expires and token.expires <= now)
        ):
            raise Unauthenticated("this token is unknown, revoked or over; get a new one")
        return token

    async def _find(self, name: str) -> Token | None:
        now = self._clock.monotonic()
        seen = self._seen.get(name)
        if seen is not None and seen[0] > now:
            return seen[1]
        row = await self._storage.get(Space.META, _key(name))
        token = None if row is None else _decoder.decode(row)
        # Cleared as a whole: entries are valid for two seconds anyway.
        if len(self._seen) >= MAX_REMEMBERED:
            self._seen.clear()
        # Unknown ids are cached too, so that guesses do not read the store each time.
        self._seen[name] = (now + REMEMBER_S, token)
        return token


def _key(name: str) -> bytes:
    return pack("token", name)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
