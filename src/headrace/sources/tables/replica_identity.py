"""Checks whether PostgreSQL identifies the row of every change of a table; pure.

In: what the catalog says of the table and of all that belongs to it. A table that is published without
saying so makes its owner's own UPDATE and DELETE fail, so it must be refused before. Partitions do
not inherit the `REPLICA IDENTITY` of their root; tables that inherit are published as their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

FULL, DEFAULT = "f", "d"
TABLE, PARTITIONED = "r", "p"
FOREIGN: Final = "f"
PERMANENT: Final = "p"
OTHER_KINDS: Final = {
    "v": ("a view", "watch the tables it is made of"),
    "m": ("a materialized view", "watch the tables it is made of"),
    FOREIGN: ("a foreign table", "watch it in the database where it is"),
    "S": ("a sequence", "name a table"),
}


class Relation(NamedTuple):
    """A table as the catalog has it.

    Attributes:
        name: As it is written in a statement.
        schema, table: Its name in two parts.
        kind: `relkind`.
        is_partition: Whether it is a partition of another.
        identity: `relreplident`.
        persistence: `relpersistence`.
        primary: The columns of its primary key, in order.
    """

    name: str
    schema: str
    table: str
    kind: str
    is_partition: bool
    identity: str
    persistence: str
    primary: tuple[str, ...]


def refusal(relations: Sequence[Relation], key: Sequence[str]) -> str | None:
    """The reason why changes of `relations`, the watched table first, cannot be read; None where they can."""
    root = relations[0]
    for each in relations:
        if each.kind in OTHER_KINDS:
            kind, cure = OTHER_KINDS[each.kind]
            whose = "" if each is root else f" and belongs to `{root.name}`"
            return f"`{each.name}` is {kind}{whose}: its changes are not streamed; {cure}"
        # Unlogged tables write nothing to the write-ahead log, from which changes are decoded.
        if each.persistence != PERMANENT:
            return f"`{each.name}` is not logged, so its changes are not streamed: `ALTER TABLE {each.name} SET LOGGED`"
    unfit = [each for each in relations if not _is_identified(each, root, key)]
    if not unfit:
        return None
    cure = "; ".join(f"ALTER TABLE {each.name} REPLICA IDENTITY FULL" for each in unfit[:SHOWN])
    more = f" (and {len(unfit) - SHOWN} more)" if len(unfit) > SHOWN else ""
    # The primary key needs no FULL: its columns are in every change by default.
    hint = ", or leave out `key_columns=`" if root in unfit and root.primary else ""
    return f"`{unfit[0].name}` does not say which row was changed: `{cure}`{more}{hint}"


SHOWN: Final = 5
"""Statements that an error shows, at most."""


def streamed(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """Those that a publication names: partitions come under their root's name."""
    return tuple(each for each in relations if not each.is_partition or each is relations[0])


def _is_identified(each: Relation, root: Relation, key: Sequence[str]) -> bool:
    if each is not root and each.is_partition and root.kind == PARTITIONED:
        # Nothing is stored in one that is parted again. The server writes what the partition keeps
        # of the old row, under the name of what the root says it keeps.
        return (
            each.kind == PARTITIONED
            or each.identity == FULL
            or (root.identity == DEFAULT and each.identity == DEFAULT)
        )
    return each.identity == FULL or (each.identity == DEFAULT and not set(key) - set(each.primary))
