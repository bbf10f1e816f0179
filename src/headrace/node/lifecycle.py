"""Start, run, drain and stop a node as a process. Doors close in the order of an event's walk.

`run` is what `headrace serve` and `headrace dev` call. The address is written to `node.json` in the
data folder once the door is open, and taken away when it closes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from headrace.model.errors import HeadraceError
from headrace.node.assembly import Node, door, running
from headrace.node.config import Settings, write_note
from headrace.world.failpoints import kill_at

_logger = logging.getLogger("headrace.node")
MAX_NAMED = 12
"""Functions that are named when the node says what it serves."""
SETTLED_S = 2.0
"""By then a thousand pumps have read where they stand."""


def run(settings: Settings) -> int:
    """Run a node until SIGTERM or SIGINT; the exit status.

    0 is a drained end, 1 something the operator must change (said on stderr), 70 a failed disk.
    """
    speak(settings.log_level.upper())
    if settings.failpoint:
        label, _, passes = settings.failpoint.rpartition(":")
        kill_at(label, int(passes))
    try:
        uvloop.run(_serve(settings))
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)  # noqa: T201 - this is the process's last word
        return 1
    return 0


def speak(level: str) -> None:
    """Write what the node has to say to stderr; of what its libraries say only what alarms them.

    `debug` lets them tell all. Of connections that fail we tell ourselves, with the trigger's name.
    """
    whole = level == "DEBUG"
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(level if whole or level == "ERROR" else "WARNING")
    logging.getLogger("headrace").setLevel(level)
    if not whole:
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class Stopping:
    """Heeds the signals that end a node: the first drains it, another Ctrl-C ends it at once.

    Attributes:
        asked: Set by the first signal.
        note: Where this node has written down its address, once it has.
    """

    def __init__(self, drain: float) -> None:
        self._drain = drain
        self.asked = asyncio.Event()
        self.note: Path | None = None

    def heed(self, number: int) -> None:
        """A signal has come."""
        if not self.asked.is_set():
            _logger.info(
                "stopping: runs get %g s to end; another Ctrl-C ends them at once", self._drain
            )
            self.asked.set()
        elif number == signal.SIGINT:
            # As if it were killed, which costs nobody more than a repeated run.
            if self.note is not None:
                self.note.unlink(missing_ok=True)
            _logger.warning("ended at once; what was not committed is delivered again")
            os._exit(130)


async def _serve(settings: Settings) -> None:
    stopping = Stopping(settings.drain)
    stop = stopping.asked
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.heed, number)
    async with running(settings) as node:
        gateway = door(node)
        url = await gateway.start(settings.host, settings.port)
        note = stopping.note = write_note(settings.data, url)
        keep_for_good()
        node.tasks.start(settle(node), name="settle")
        _announce(node, url)
        try:
            if settings.reload:
                node.tasks.start(_reload(node, stop), name="reload")
            await stop.wait()
        finally:
            note.unlink(missing_ok=True)
            await gateway.stop(node.settings.drain)


def keep_for_good() -> None:
    """Let the collector pass by what there is now; again after a reload, to find what that left.

    A node of a thousand functions holds a few hundred thousand objects for as long as it lives; to
    look at each of them again stops everything for 50 to 80 ms, now and then.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def settle(node: Node) -> None:
    """Once a node that has started is at work, let the collector pass by its pumps as well."""
    await node.clock.sleep(SETTLED_S)
    keep_for_good()


def _announce(node: Node, url: str) -> None:
    found = sorted(name for name in node.dispatcher.functions if name[0] != "_")
    names = ", ".join(f"`{name}`" for name in found[:MAX_NAMED]) or "no function"
    if len(found) > MAX_NAMED:
        names += f" and {len(found) - MAX_NAMED:,} more"
    print(f"headrace: serving {names} at {url} (console: {url}/console)", flush=True)  # noqa: T201 - tells where the door is


async def _reload(node: Node, stop: asyncio.Event) -> None:
    """Load the apps again whenever a file of theirs changes; a broken edit keeps the old version."""
    from watchfiles import PythonFilter, awatch

    folders = {folder_of(target): target for target in node.settings.targets}
    async for _ in awatch(*folders, watch_filter=PythonFilter(), stop_event=stop):
        for target in node.settings.targets:
            try:
                app = await node.redeploy(target)
            except HeadraceError as error:
                _logger.warning("kept the old version of `%s`: %s", target, error)
            else:
                _logger.info("reloaded `%s` (version %s)", app.name, app.version)
                keep_for_good()


def folder_of(target: str) -> Path:
    """The folder whose files are watched for a target: a file's, itself, or where we stand for a module."""
    path = Path(target.partition(":")[0]).expanduser().resolve()
    if path.suffix == ".py":
        return path.parent
    return path if path.is_dir() else Path()
