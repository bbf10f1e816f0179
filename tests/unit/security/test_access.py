"""Who may use the platform's own paths, where secrets are read, and addresses nobody can guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.keepers.storage.memory import MemoryStorage
from headrace.model.errors import Misuse
from headrace.model.signing import Secret
from headrace.security.access import Access, Peer, is_local, needs_proof, scope_of
from headrace.security.marks import Marks
from headrace.security.secrets import Secrets
from headrace.world.clock import SystemClock
from headrace.world.entropy import SeededEntropy


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "healthz", ""),
        ("GET", "readyz", ""),
        ("GET", "runs/some-run", ""),
        ("GET", "runs", "read"),
        ("GET", "runs/", "read"),
        ("GET", "metrics", "read"),
        ("POST", "streams/orders", "publish:orders"),
        ("POST", "functions/shop.f", "call:shop.f"),
        ("POST", "groups/shop.f/reset", "admin"),
        ("POST", "dead/shop.f/discard", "admin"),
        ("DELETE", "streams/orders", "publish:orders"),
        ("POST", "queues/work", "queue:work"),
        ("POST", "queues/work/receive", "queue:work"),
        ("POST", "queues/work/redrive", "admin"),
        ("GET", "tokens", "admin"),
        ("POST", "tokens", "admin"),
        ("POST", "whatever/comes", "admin"),
        ("GET", "console/enter/0f", ""),
        ("GET", "console/enter", "read"),
        ("POST", "console/enter/0f", ""),
        ("POST", "console/links", "admin"),
    ],
)
def test_every_path_of_the_platform_has_a_scope(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path.split("/")) == scope


@pytest.mark.parametrize(
    ("access", "scope", "peer", "needed"),
    [
        ("open", "read", Peer("10.0.0.9"), False),
        ("open", "admin", Peer("10.0.0.9"), True),
        ("open", "admin", Peer("127.0.0.1", neighbour=True), True),
        ("local", "read", Peer("10.0.0.9"), True),
        ("local", "read", Peer("127.0.0.1"), True),
        ("local", "call:shop.f", Peer("127.0.0.1"), True),
        ("local", "call:shop.f", Peer("127.0.0.1", neighbour=True), False),
        ("local", "admin", Peer("::1", neighbour=True), True),
        ("token", "read", Peer("127.0.0.1", neighbour=True), True),
        ("token", "", Peer("10.0.0.9"), False),
    ],
)
def test_the_setting_and_the_peer_decide_who_must_prove_himself(
    access: Access, scope: str, peer: Peer, needed: bool
) -> None:
    assert needs_proof(access, scope, peer) is needed


def test_an_address_that_is_none_is_not_local() -> None:
    assert not any(is_local(text) for text in ("", "localhost", "127.0.0.1.evil.test", "127.1"))


def test_a_secret_is_read_where_the_operator_keeps_it_and_again_when_it_changes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "hook"
    file.write_bytes(b"first\n")
    secrets = Secrets({"HOOK": f"file:{file}", "OTHER": "env:ELSEWHERE"}, {"ELSEWHERE": "second"})
    assert secrets.value(Secret("HOOK")) == b"first"
    assert secrets.value(Secret("OTHER")) == b"second"
    file.write_bytes(b"replaced\n")
    assert secrets.value(Secret("HOOK")) == b"replaced"


def test_a_secret_nobody_lists_comes_from_the_environment() -> None:
    assert Secrets({}, {"HEADRACE_SECRET_HOOK": "value"}).value(Secret("HOOK")) == b"value"


@pytest.mark.parametrize("reference", ["file:/nowhere/at/all", "env:UNSET", "plain text"])
def test_a_secret_that_cannot_be_read_is_named_with_the_fix(reference: str) -> None:
    with pytest.raises(Misuse, match="HOOK"):
        Secrets({"HOOK": reference}, {}).value(Secret("HOOK"))


def test_an_empty_secret_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "hook").write_bytes(b"\n")
    with pytest.raises(Misuse, match="empty"):
        Secrets({"HOOK": f"file:{tmp_path}/hook"}, {}).value(Secret("HOOK"))
    with pytest.raises(Misuse, match="not set"):
        Secrets({}, {"HEADRACE_SECRET_HOOK": ""}).value(Secret("HOOK"))


async def test_a_mark_is_known_again_by_every_node_of_the_store_and_by_no_other() -> None:
    storage = MemoryStorage(SystemClock())
    here, there = Marks(storage, SeededEntropy(1)), Marks(storage, SeededEntropy(2))
    mark = await here.mark("a/0/1")
    assert await there.is_ours("a/0/1", mark)
    assert not await there.is_ours("a/0/2", mark)
    assert not await here.is_ours("a/0/1", mark[:-1])
    stranger = Marks(MemoryStorage(SystemClock()), SeededEntropy(3))
    assert not await stranger.is_ours("a/0/1", mark)
