"""Access to the platform's own paths, places of secrets, and addresses that cannot be guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SeededEntropy
from headrace.model.errors import Misuse
from headrace.model.webhook_signature import Secret
from headrace.security.access import Access, Peer, is_local, needs_proof, scope_of
from headrace.security.secrets import Secrets
from headrace.security.signed_addresses import AddressSigner
from headrace.storage.kv.memory import MemoryStorage


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "healthz", ""),
        ("GET", "readyz", ""),
        ("GET", "-/v1/requests/some-run", ""),
        ("GET", "-/v1/invocations", "read"),
        ("GET", "-/v1/requests/", "read"),
        ("GET", "metrics", "read"),
        ("POST", "-/v1/streams/orders", "publish:orders"),
        ("POST", "-/v1/functions/shop.f", "call:shop.f"),
        ("POST", "-/v1/functions/shop.f/reset", "admin"),
        ("POST", "-/v1/functions/shop.f/flush", "admin"),
        ("POST", "-/v1/dead/shop.f/discard", "admin"),
        ("DELETE", "-/v1/streams/orders", "publish:orders"),
        ("POST", "-/v1/queues/work", "queue:work"),
        ("POST", "-/v1/queues/work/receive", "queue:work"),
        ("POST", "-/v1/queues/work/redrive", "admin"),
        ("GET", "-/v1/tokens", "admin"),
        ("POST", "-/v1/tokens", "admin"),
        ("POST", "whatever/comes", "admin"),
        ("POST", "-/v1/whatever/comes", "admin"),
        ("POST", "-/v2/streams/orders", "admin"),
        ("POST", "streams/orders", "admin"),
        ("GET", "console/enter/0f", ""),
        ("GET", "console/enter", "read"),
        ("POST", "console/enter/0f", ""),
        ("POST", "-/v1/console/links", "admin"),
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


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"])
def test_a_proxy_on_the_nodes_machine_asks_for_others(name: bytes) -> None:
    neighbour, headers = Peer("127.0.0.1", neighbour=True), {name: b"10.0.0.9"}
    assert needs_proof("local", "call:shop.f", neighbour, headers)
    assert needs_proof("local", "read", neighbour, headers)
    assert not needs_proof("local", "", neighbour, headers)
    assert not needs_proof("open", "read", neighbour, headers)
    assert not needs_proof("local", "read", neighbour, {b"host": b"localhost"})


def test_an_address_that_is_none_is_not_local() -> None:
    assert not any(is_local(text) for text in ("", "localhost", "127.0.0.1.evil.test", "127.1"))


def test_a_secret_is_read_where_the_operator_keeps_it_and_again_when_it_changes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "hook"
    file.touch(mode=0o600)
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
    (tmp_path / "hook").touch(mode=0o600)
    (tmp_path / "hook").write_bytes(b"\n")
    with pytest.raises(Misuse, match="empty"):
        Secrets({"HOOK": f"file:{tmp_path}/hook"}, {}).value(Secret("HOOK"))
    with pytest.raises(Misuse, match="not set"):
        Secrets({}, {"HEADRACE_SECRET_HOOK": ""}).value(Secret("HOOK"))


def test_a_secret_nobody_lists_is_looked_for_in_folders_after_the_environment(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "credentials", tmp_path / "keys"
    for folder, value in ((first, "from first"), (second, "from second")):
        folder.mkdir()
        (folder / "HOOK").touch(mode=0o600)
        (folder / "HOOK").write_text(value)
    folders = [first, second]
    assert Secrets({}, {}, folders).value(Secret("HOOK")) == b"from first"
    assert Secrets({}, {"HEADRACE_SECRET_HOOK": "x"}, folders).value(Secret("HOOK")) == b"x"
    listed = {"HOOK": f"file:{second}/HOOK"}
    assert Secrets(listed, {"HEADRACE_SECRET_HOOK": "x"}, folders).value(Secret("HOOK")) == (
        b"from second"
    )
    (first / "HOOK").unlink()
    assert Secrets({}, {}, folders).value(Secret("HOOK")) == b"from second"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o777])
def test_a_file_that_every_user_may_read_or_write_is_refused_with_the_cure(
    tmp_path: Path, mode: int
) -> None:
    file = tmp_path / "hook"
    file.touch(mode=0o600)
    file.write_text("value-of-it")
    secrets = Secrets({"HOOK": f"file:{file}"}, {})
    assert secrets.value(Secret("HOOK")) == b"value-of-it"
    file.chmod(mode)
    with pytest.raises(Misuse, match=f"chmod 600 {file}") as refused:
        secrets.value(Secret("HOOK"))
    assert "value-of-it" not in str(refused.value)


def test_what_was_handed_out_is_blotted_out_also_when_it_has_been_replaced(tmp_path: Path) -> None:
    file = tmp_path / "hook"
    file.touch(mode=0o600)
    secrets = Secrets({"HOOK": f"file:{file}"}, {})
    for value in ("first value", "second value"):
        file.write_text(value)
        secrets.value(Secret("HOOK"))
    assert secrets.blots.blot("first value, second value") == "[secret HOOK], [secret HOOK]"


def test_a_secret_that_is_no_text_or_no_header_is_named() -> None:
    secrets = Secrets({}, {"HEADRACE_SECRET_A": "two\nlines", "HEADRACE_SECRET_B": "\udcff"})
    assert secrets.text(Secret("A")) == "two\nlines"
    with pytest.raises(Misuse, match="`A` is not plain ASCII"):
        secrets.header(Secret("A"))


def test_those_that_are_missing_are_named_with_who_uses_them() -> None:
    secrets = Secrets({}, {"HEADRACE_SECRET_A": "here"})
    (sentence,) = secrets.missing({"A": ["shop"], "B": ["shop.f", "shop.g"]})
    assert sentence.startswith("`shop.f`, `shop.g` cannot run: the secret `B` is not set")
    assert "HEADRACE_SECRET_B" in sentence


async def test_a_mark_is_known_again_by_every_node_of_the_store_and_by_no_other() -> None:
    storage = MemoryStorage(SystemClock())
    here, there = AddressSigner(storage, SeededEntropy(1)), AddressSigner(storage, SeededEntropy(2))
    mark = await here.mark("a/0/1")
    assert await there.is_ours("a/0/1", mark)
    assert not await there.is_ours("a/0/2", mark)
    assert not await here.is_ours("a/0/1", mark[:-1])
    stranger = AddressSigner(MemoryStorage(SystemClock()), SeededEntropy(3))
    assert not await stranger.is_ours("a/0/1", mark)
