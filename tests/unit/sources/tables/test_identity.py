"""Checks of PostgreSQL tables: does every change identify its row, and what to do where it does not."""

from __future__ import annotations

import pytest

from headrace.sources.tables.replica_identity import Relation, refusal, streamed


def relation(
    name: str = "t",
    *,
    kind: str = "r",
    part: bool = False,
    identity: str = "d",
    logged: bool = True,
    primary: tuple[str, ...] = ("id",),
) -> Relation:
    return Relation(name, "public", name, kind, part, identity, "p" if logged else "u", primary)


PARTED = relation("parted", kind="p")


@pytest.mark.parametrize(
    ("relations", "says"),
    [
        ([relation()], None),
        ([relation(primary=(), identity="f")], None),
        ([relation(primary=())], "ALTER TABLE t REPLICA IDENTITY FULL"),
        ([relation(primary=("other",))], "or leave out `key_columns=`"),
        ([relation(identity="n")], "does not say which row"),
        ([relation(identity="i")], "does not say which row"),
        ([relation(kind="v")], "is a view"),
        ([relation(kind="f")], "is a foreign table"),
        ([relation(logged=False)], "SET LOGGED"),
        ([PARTED, relation("a", part=True)], None),
        ([PARTED, relation("a", part=True, identity="f")], None),
        ([PARTED, relation("a", part=True, identity="n")], "TABLE a REPLICA"),
        ([PARTED, relation("a", part=True, kind="f")], "belongs to `parted`"),
        ([PARTED, relation("a", part=True, logged=False)], "TABLE a SET LOGGED"),
        # The server would send null for what such a partition does not keep.
        ([PARTED._replace(identity="f"), relation("a", part=True)], "TABLE a REPLICA"),
        ([PARTED._replace(identity="f"), relation("a", part=True, kind="p")], None),
        ([relation(), relation("child", primary=())], "TABLE child REPLICA"),
        ([relation(), relation("child")], None),
    ],
)
def test_a_table_is_refused_with_the_cure_where_its_owners_changes_would_fail(
    relations: list[Relation], says: str | None
) -> None:
    found = refusal(relations, ("id",))
    assert found is None if says is None else says in (found or "")


def test_of_many_partitions_a_few_are_shown_and_the_others_counted() -> None:
    parts = [relation(f"p{number}", part=True, identity="n") for number in range(8)]
    found = refusal([PARTED, *parts], ("id",)) or ""
    assert found.count("ALTER TABLE") == 5
    assert "(and 3 more)" in found


def test_partitions_are_streamed_as_their_root_and_heirs_as_their_own() -> None:
    assert streamed([PARTED, relation("a", part=True)]) == (PARTED,)
    assert streamed([relation(), relation("child")]) == (relation(), relation("child"))
