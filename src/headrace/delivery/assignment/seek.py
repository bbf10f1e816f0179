"""Move of a function's position in its streams, by one change per partition.

In: the rows of a partition whose only writer is paused (see `PartitionSupervisor.with_owner`). Out: a change that is
fenced like every commit. The state of the former position, such as failed ranges and the order of a merge, is deleted
in the same change.
"""

from __future__ import annotations

from headrace.delivery.intake.merge.order_store import copy_order, forget_order
from headrace.delivery.parked import parked_offsets
from headrace.delivery.partition.watermark import Watermark
from headrace.delivery.positions import encode_position, position_key, stored
from headrace.model.effects import Change, Check, Delete, Progress, Put, Space
from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.stores import WINDOWS, StoreAddress
from headrace.model.triggers.base import StreamTrigger
from headrace.model.windows import windows_place
from headrace.storage.kv.base import Commit, Storage, scan_pages
from headrace.storage.log.base import Broker
from headrace.storage.log.queue_leases import lease_keys
from headrace.storage.state.rows import StoreRows, rows_of

PAGE = 1_000


def must_merge_alike(function: FunctionSpec, other: FunctionSpec) -> None:
    """Check that one function may merge in the order of the other.

    Raises:
        Misuse: They do not merge the same streams.
    """
    merges = [
        [t.streams for t in each.triggers if isinstance(t, StreamTrigger)]
        for each in (function, other)
    ]
    if merges[0] != merges[1] or not any(len(streams) > 1 for streams in merges[0]):
        raise Misuse(
            f"`{function.name}` cannot take the order of `{other.name}`: both have to merge the "
            "same streams, listed in the same order"
        )


async def move(
    storage: Storage,
    commit: Commit,
    function: str,
    partition: int,
    offsets: dict[str, int],
    order_of: str | None = None,
    app: str = "",
) -> None:
    """Let the function continue at these offsets of its streams, one for each stream.

    Merged streams move together: if only one moved, their order would change. If `app` is given,
    the function's windows there are deleted and start again with the next events.
    """
    # Before the positions move: if this is interrupted, the operator's next request repeats it.
    if order_of is not None and order_of != function:
        await copy_order(storage, order_of, function, tuple(offsets), partition)
    checks: list[Check] = []
    puts: list[Put] = []
    deletes: list[Delete] = list(forget_order(function, tuple(offsets), partition))
    for stream, offset in offsets.items():
        key = position_key(function, stream, partition)
        row, found = await stored(storage, function, stream, partition)
        # Byte for byte: a commit of the owner in between must not be overwritten.
        checks.append(Check(Space.POSITIONS, key, row, fence=True))
        # Parked events stay parked and count as finished at the new position: otherwise they would
        # be delivered a second time.
        mark = Watermark(Progress(offset))
        for parked in sorted(await parked_offsets(storage, function, stream, partition)):
            mark.finish(parked)
        moved = encode_position(found.epoch, mark.progress())
        puts.append(Put(Space.POSITIONS, key, moved))
        # Failed ranges are offsets of the former position.
        deletes.append(Delete(Space.TROUBLE, key))
        # Leases belong to the former delivery: an acknowledged message that comes again must be
        # offered.
        leases = await lease_keys(storage, function, stream, partition)
        deletes += (Delete(Space.META, key) for key in leases)
        if app:
            windows = rows_of(StoreAddress(app, function, WINDOWS))
            deletes += await _all_under(storage, windows, windows_place(stream, partition))
    await commit(Change(checks=tuple(checks), puts=tuple(puts), deletes=tuple(deletes)))


async def _all_under(storage: Storage, store: StoreRows, prefix: str) -> list[Delete]:
    """Return deletions of the rows of a store whose keys start with `prefix`."""
    low, high = store.range(prefix)
    found: list[Delete] = []
    async for page in scan_pages(storage, store.space, low, high, limit=PAGE):
        found += (Delete(store.space, key) for key, _ in page)
    return found


async def move_to_end(
    storage: Storage, broker: Broker, commit: Commit, function: str, stream: str, partition: int
) -> int:
    """Move the function to the end of the partition; return how many events it skips."""
    extent = await broker.extent(stream, partition)
    _, found = await stored(storage, function, stream, partition)
    await move(storage, commit, function, partition, {stream: extent.high})
    return found.progress.unfinished(extent.low, extent.high)
