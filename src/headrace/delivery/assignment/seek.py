"""A function is sent elsewhere in what it reads: its rows are moved, in one change per partition.

In come the rows of a partition whose one writer stands still (see `Dispatcher.with_owner`); out goes
a change that is fenced like every commit. What had been remembered of the place that is left, such as
ranges that failed and the order of a merge, is forgotten with it.
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
    """Pass, where one may merge in the order of the other.

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
    """Let the function go on at these offsets of its streams, one for each stream.

    Streams that are merged move together: from halfway, their order would be another one. Where `app` is
    given, the function's windows there are forgotten: they begin anew with what comes next.
    """
    if order_of is not None and order_of != function:
        await copy_order(storage, order_of, function, tuple(offsets), partition)
    checks: list[Check] = []
    puts: list[Put] = []
    deletes: list[Delete] = list(forget_order(function, tuple(offsets), partition))
    for stream, offset in offsets.items():
        key = position_key(function, stream, partition)
        row, standing = await stored(storage, function, stream, partition)
        checks.append(Check(Space.POSITIONS, key, row, fence=True))
        # What is parked stays so, with what is known of it: it does not come a second time.
        mark = Watermark(Progress(offset))
        for parked in sorted(await parked_offsets(storage, function, stream, partition)):
            mark.finish(parked)
        moved = encode_position(standing.epoch, mark.progress())
        puts.append(Put(Space.POSITIONS, key, moved))
        deletes.append(Delete(Space.TROUBLE, key))
        # What a queue's consumers said of messages does not count when they come again.
        leases = await lease_keys(storage, function, stream, partition)
        deletes += (Delete(Space.META, key) for key in leases)
        if app:
            windows = rows_of(StoreAddress(app, function, WINDOWS))
            deletes += await _all_under(storage, windows, windows_place(stream, partition))
    await commit(Change(checks=tuple(checks), puts=tuple(puts), deletes=tuple(deletes)))


async def _all_under(storage: Storage, store: StoreRows, prefix: str) -> list[Delete]:
    """What deletes the rows of a store whose keys start with `prefix`."""
    low, high = store.range(prefix)
    found: list[Delete] = []
    async for page in scan_pages(storage, store.space, low, high, limit=PAGE):
        found += (Delete(store.space, key) for key, _ in page)
    return found


async def move_to_end(
    storage: Storage, broker: Broker, commit: Commit, function: str, stream: str, partition: int
) -> int:
    """Let the function go on behind everything that is there; how many events it passes over."""
    extent = await broker.extent(stream, partition)
    _, standing = await stored(storage, function, stream, partition)
    await move(storage, commit, function, partition, {stream: extent.high})
    return standing.progress.unfinished(extent.low, extent.high)
