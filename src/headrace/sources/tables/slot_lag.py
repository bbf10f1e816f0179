"""Lag of a table's replication slot, as the PostgreSQL server reports it.

The server is queried, since it keeps its log for the slot whether or not this node is well:
what is kept for a reader that does not come fills the server's disk.
"""

from __future__ import annotations

import asyncio
from typing import Final

from headrace.environment.clock import Clock
from headrace.model.errors import HeadraceError, Misuse, Unavailable
from headrace.model.replication_slot import Slot
from headrace.model.triggers.tables import SqlTable
from headrace.sources.tables.postgres_connection import (
    Replica,
    about_table,
    not_streamed,
    unpublished,
)
from headrace.sources.tables.row_events import slot_of

TIMEOUT_S: Final = 3.0
QUERY: Final = (
    "SELECT active, coalesce(wal_status, ''), safe_wal_size::bigint, "
    "pg_wal_lsn_diff(here, confirmed_flush_lsn)::bigint, pg_wal_lsn_diff(here, restart_lsn)::bigint "
    "FROM pg_replication_slots, (SELECT CASE WHEN pg_is_in_recovery() "
    "THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS here) AS server "
    "WHERE slot_name = %s"
)
"""`wal_status` is there since PostgreSQL 13."""


async def slot_state(trigger: SqlTable, stream: str, clock: Clock) -> Slot:
    """The slot of the `SqlTable` that feeds `stream`; an error of the database is in it, not raised."""
    name = slot_of(trigger, stream)
    replica = Replica(trigger.url, clock)
    try:
        # A page for operators waits for this: a server that is away must not hold it up.
        async with asyncio.timeout(TIMEOUT_S):
            await replica.connect(replication=False)
            rows = await replica.ask(QUERY, name)
            trouble = await _trouble(replica, trigger, name) if rows else ""
    except TimeoutError:
        return Slot(name, error=f"the database did not answer within {TIMEOUT_S:g} s")
    except HeadraceError as error:
        return Slot(name, error=str(error))
    finally:
        # A separate connection for the query: the source's is in COPY BOTH mode and can run none.
        await replica.close()
    if not rows:
        return Slot(name, error=f"the database has no slot `{name}`")
    active, status, safe, behind, kept = rows[0]
    return Slot(name, active, status, behind, kept, safe, error=trouble)


async def _trouble(replica: Replica, trigger: SqlTable, slot: str) -> str:
    """The reason why changes of the table are not streamed, or its owner's own ones fail; else empty."""
    try:
        about = await about_table(replica, trigger.table, trigger.keys)
    except (Misuse, Unavailable) as error:
        return str(error)
    lacking = await unpublished(replica, slot, about)
    return not_streamed(lacking, slot) if lacking else ""
