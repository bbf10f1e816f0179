"""Tokens: what is kept of them, what they open, and when they stop."""

from __future__ import annotations

import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SystemEntropy
from headrace.model.effects import Space
from headrace.model.errors import Misuse, Refused, Unknown
from headrace.security.tokens import REMEMBER_S, Tokens, Unauthenticated
from headrace.storage.kv.keys import pack
from headrace.storage.kv.memory import MemoryStorage


class Hand(SystemClock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.micros = 1_700_000_000_000_000

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / 1e6

    def move(self, seconds: float) -> None:
        self.micros += round(seconds * 1e6)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def storage(clock: Hand) -> MemoryStorage:
    return MemoryStorage(clock)


@pytest.fixture
def tokens(storage: MemoryStorage, clock: Hand) -> Tokens:
    return Tokens(storage, clock, SystemEntropy())


async def test_a_token_opens_what_it_is_for_and_nothing_else(tokens: Tokens) -> None:
    made, text = await tokens.create("till", ["orders:write", "stock:*"])
    for scope in ("orders:write", "stock:read", "stock:write"):
        assert (await tokens.check(f"Bearer {text}", scope)).id == made.id
    for scope in ("orders:read", "orders:write:all", "admin", "stocks:read"):
        with pytest.raises(Refused):
            await tokens.check(f"Bearer {text}", scope)


async def test_an_admin_token_opens_everything(tokens: Tokens) -> None:
    _, text = await tokens.create("root", ["admin"])
    await tokens.check(f"bearer {text}", "anything:at.all")


async def test_what_is_kept_cannot_be_used(tokens: Tokens, storage: MemoryStorage) -> None:
    made, text = await tokens.create("till", ["a"])
    row = await storage.get(Space.META, pack("token", made.id))
    assert row is not None
    secret = text.rpartition("_")[2]
    assert secret.encode() not in row
    assert bytes.fromhex(secret) not in row
    with pytest.raises(Unauthenticated):
        await tokens.check(f"Bearer hr_{made.id}_{made.hash.hex()}", "a")


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer x", "Basic aGk6aGk=", "Bearer hr_0000000000000000_" + "0" * 64],
)
async def test_what_is_no_token_of_ours_opens_nothing(tokens: Tokens, given: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await tokens.check(given, "a")


async def test_a_token_with_another_secret_opens_nothing(tokens: Tokens) -> None:
    made, text = await tokens.create("till", ["a"])
    changed = text[:-1] + ("0" if text[-1] != "0" else "1")
    with pytest.raises(Unauthenticated):
        await tokens.check(f"Bearer {changed}", "a")
    await tokens.check(f"Bearer {text}", "a")
    assert made.id in text


async def test_a_token_ends_when_its_time_is_over(tokens: Tokens, clock: Hand) -> None:
    _, text = await tokens.create("till", ["a"], lifetime=60)
    clock.move(59)
    await tokens.check(f"Bearer {text}", "a")
    clock.move(1)
    with pytest.raises(Unauthenticated):
        await tokens.check(f"Bearer {text}", "a")


async def test_a_revoked_token_stops_at_once_here_and_soon_elsewhere(
    tokens: Tokens, storage: MemoryStorage, clock: Hand
) -> None:
    made, text = await tokens.create("till", ["a"])
    elsewhere = Tokens(storage, clock, SystemEntropy())
    await elsewhere.check(f"Bearer {text}", "a")
    await tokens.check(f"Bearer {text}", "a")
    await tokens.revoke(made.id)
    with pytest.raises(Unauthenticated):
        await tokens.check(f"Bearer {text}", "a")
    clock.move(REMEMBER_S)
    with pytest.raises(Unauthenticated):
        await elsewhere.check(f"Bearer {text}", "a")
    assert [bool(token.revoked) for token in await tokens.all()] == [True]
    with pytest.raises(Unknown):
        await tokens.revoke("nothing")


@pytest.mark.parametrize(
    ("name", "scopes", "lifetime"),
    [
        ("", ["a"], None),
        ("x\n", ["a"], None),
        ("x", [], None),
        ("x", ["*"], None),
        ("x", ["a b"], None),
        ("x", ["a"], 0.0),
        ("x", ["a"], float("nan")),
    ],
)
async def test_what_cannot_be_a_token_is_not_made(
    tokens: Tokens, name: str, scopes: list[str], lifetime: float | None
) -> None:
    with pytest.raises(Misuse):
        await tokens.create(name, scopes, lifetime=lifetime)
    assert await tokens.all() == []
