"""Start, run, drain and stop a node as a process. Parts stop in the order in which an event passes them.

`run` is what `headrace serve` and `headrace dev` call. The address is written to `node.json` in the
data folder once the HTTP server is open, and removed when it closes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

import uvloop

from headrace.client.address import NodeFile, write_note
from headrace.environment.clock import SystemClock
from headrace.environment.failpoints import kill_at
from headrace.environment.restart_backoff import Backoff
from headrace.environment.supervised_task import Supervised
from headrace.http.server.server import Gateway
from headrace.model.errors import HeadraceError, Misuse, denied
from headrace.node.assembly import Node, make_gateway, running
from headrace.node.config import (
    Settings,
    refuses_color,
    reread,
    service_manager,
)
from headrace.node.dev_output import DevOutput, OutputSelection
from headrace.node.failure_log import FailureLog
from headrace.node.systemd import notify
from headrace.node.watcher import Watcher, names_of
from headrace.runtime.child.code_version import watched_by
from headrace.runtime.kernel import keep_memory_private
from headrace.security.operator_key import write_key

_logger = logging.getLogger("headrace.node")
MAX_NAMED = 12
"""Functions that are named when the node says what it serves."""
SETTLED_S = 2.0
"""By then a thousand partition workers have read their positions."""
ANSWER_S = 1.0
"""Time for clients to read the answer that the node stops."""
CLOSE_S = 15.0
"""Limit of closing after the drain: a few seconds for stop hooks and processes."""
EXIT_CUT = 75
"""The exit status of a node that did not close in time (`EX_TEMPFAIL` of sysexits.h)."""


def run(settings: Settings, selection: OutputSelection | None = None) -> int:
    """Run a node until SIGTERM or SIGINT; return the exit status.

    Selected output is printed as it happens. 0 is a drained end, 1 an error that the operator must correct (printed
    to stderr), 70 a failed disk, 75 an end that took too long and was cut off.
    """
    output = None
    if selection is not None:
        color = sys.stderr.isatty() and not refuses_color()
        output = DevOutput(sys.stderr.fileno(), SystemClock(), selection, color=color)
        output.start()
    speak(settings.log_level.upper(), output)
    keep_memory_private()
    if settings.failpoint:
        label, _, passes = settings.failpoint.rpartition(":")
        kill_at(label, int(passes))
    try:
        uvloop.run(_serve(settings, output or FailureLog(SystemClock())))
    except HeadraceError as error:
        if output is not None:
            output.flush()
        print(f"headrace: {error}", file=sys.stderr)  # noqa: T201 - this is the process's last word
        return 1
    return 0


def _key(settings: Settings, node: Node) -> Path:
    try:
        return write_key(settings.data, node.operator.key)
    except OSError as error:
        raise denied(f"the operator's key cannot be written to `{settings.data}`", error) from error


def _note(settings: Settings, gateway: Gateway) -> Path:
    certificate = settings.tls_certificate
    shown = "" if certificate is None else str(certificate.absolute())
    api_url = "" if gateway.api_url == gateway.url else gateway.api_url
    try:
        return write_note(settings.data, NodeFile(gateway.url, os.getpid(), shown, api_url))
    except OSError as error:
        raise denied(f"the address cannot be written to `{settings.data}`", error) from error


def speak(level: str, handler: logging.Handler | None = None) -> None:
    """Log the node's messages to stderr, or to `handler`, and only warnings of its libraries.

    `debug` shows all their messages.
    """
    whole = level == "DEBUG"
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=None if handler is None else [handler],
    )
    logging.getLogger().setLevel(level if whole or level == "ERROR" else "WARNING")
    logging.getLogger("headrace").setLevel(level)
    # Headrace reports failed connections itself, with the trigger's name.
    if not whole:
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class Stopping:
    """Handler of the signals that end a node: the first drains it, another Ctrl-C ends it at once.

    Attributes:
        requested: Set by the first signal.
        starting: The task that starts the node, until it has; the first signal cancels it.
        written: Files that exist only while the node serves: its operator's key, its address.
    """

    def __init__(self, drain: float, starting: asyncio.Task[None] | None) -> None:
        self._drain = drain
        self.requested = asyncio.Event()
        self.starting = starting
        self.written: list[Path] = []

    def receive(self, number: int) -> None:
        """Drain, or end at once where that was requested before."""
        if not self.requested.is_set():
            _logger.info(
                "stopping: runs get %g s to end; another Ctrl-C ends them at once", self._drain
            )
            self.requested.set()
            # A thread: neither a blocked loop nor a driver's blocked thread may delay it.
            last = threading.Timer(self._drain + CLOSE_S, self._cut_off)
            # The interpreter joins threads that are not daemons: a node that has closed in time
            # would still wait for this one.
            last.daemon = True
            last.start()
            if self.starting is not None:
                self.starting.cancel()
        elif number == signal.SIGINT:
            self._end("ended at once; what was not committed is delivered again", 130)

    def erase(self) -> None:
        """Remove the files that show that this node serves."""
        for place in self.written:
            place.unlink(missing_ok=True)

    def _cut_off(self) -> None:
        seconds = self._drain + CLOSE_S
        self._end(f"did not close within {seconds:g} s and was cut off; nothing is lost", EXIT_CUT)

    def _end(self, why: str, status: int) -> None:
        """End as if killed, which costs at most repeated runs."""
        self.erase()
        _logger.warning("%s", why)
        # `os._exit` runs no exit handlers, so the log is flushed here. `sys.exit` would raise in the
        # timer's thread only, or wait for the very threads that block.
        logging.shutdown()
        os._exit(status)


async def _serve(settings: Settings, observer: DevOutput | FailureLog) -> None:
    stopping = Stopping(settings.drain, asyncio.current_task())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.receive, number)
    try:
        await _serve_until(stopping, settings, observer)
    except asyncio.CancelledError:
        # Only a cancellation by `receive` is an orderly end.
        if not stopping.requested.is_set():
            raise
        _logger.info("stopped before everything was up")
    finally:
        observer.flush()


async def _serve_until(
    stopping: Stopping, settings: Settings, observer: DevOutput | FailureLog
) -> None:
    stop = stopping.requested
    async with running(settings, observer) as node:
        gateway = make_gateway(node)
        await gateway.start(settings.host, settings.port)
        # From here on a signal drains: a cancellation would cut off requests.
        stopping.starting = None
        reloads: list[Supervised] = []
        try:
            if settings.reload:
                watcher = Watcher(settings, partial(_watched, node), stop)
                reloads = [
                    node.tasks.supervise(work, name=name, backoff=Backoff(node.clock))
                    for name, work in (
                        ("watch code", watcher.watch_code),
                        ("watch settings", watcher.watch_settings),
                        ("reload", partial(_reload, node, watcher, set())),
                    )
                ]
                # Lets the watchers start: an edit must be seen once the node reports that it serves.
                await node.clock.sleep(0)
            # The key first: clients that find the address read the key next.
            stopping.written.append(_key(settings, node))
            stopping.written.append(_note(settings, gateway))
            keep_for_good()
            node.tasks.start(settle(node), name="settle")
            _announce(node, gateway)
            if isinstance(observer, DevOutput):
                observer.align(node.supervisor.functions)
                for name in observer.selection.unknown(node.supervisor.functions):
                    _logger.warning("`--only %s` names no function or app that runs here", name)
            notify(service_manager(), "READY=1")
            await stop.wait()
        finally:
            notify(service_manager(), "STOPPING=1")
            stopping.erase()
            # Before the drain: a reload now would start instances that are stopped at once.
            for each in reversed(reloads):
                await each.stop()
            await _drain(node, gateway)


async def _drain(node: Node, gateway: Gateway) -> None:
    """Let requests and runs end concurrently within `drain` seconds; then end those that remain."""
    grace = node.settings.drain
    # Concurrently: requests wait for runs, and one grace period covers both.
    await asyncio.gather(gateway.drain(grace), node.drain(grace))
    # The server still answers while instances end: calls whose runs are cut off get 503, so their
    # clients know to repeat them.
    await asyncio.gather(gateway.stop(ANSWER_S), node.fleet.close(0.0))


def keep_for_good() -> None:
    """Exclude the present objects from garbage collection; again after reloads, to collect what those left."""
    # A node of a thousand functions holds a few hundred thousand objects for good. Each full
    # collection of them stops the loop for 50 to 80 ms.
    gc.unfreeze()
    # Before the freeze: frozen garbage stays until the next reload.
    gc.collect()
    gc.freeze()


async def settle(node: Node) -> None:
    """Exclude objects from collection again once a start or a reload has settled."""
    await node.clock.sleep(SETTLED_S)
    keep_for_good()


def _announce(node: Node, gateway: Gateway) -> None:
    found = sorted(name for name in node.supervisor.functions if name[0] != "_")
    names = ", ".join(f"`{name}`" for name in found[:MAX_NAMED]) or "no function"
    link = f"/console/enter/{node.operator.link(node.services().entropy)}"
    if len(found) > MAX_NAMED:
        names += f" and {len(found) - MAX_NAMED:,} more"
    where = f"{gateway.url} (console, once: {gateway.api_url}{link})"
    print(f"headrace: serving {names} at {where}", flush=True)  # noqa: T201 - reports where the HTTP server is


async def _reload(node: Node, watcher: Watcher, stale: set[str]) -> None:
    """Load the apps again whenever a file of theirs, or the settings file, changes.

    A broken edit keeps the old version.

    Args:
        node: The node of the apps.
        watcher: Reports changed files.
        stale: Apps that have changed and are not loaded yet; outlives a failure of this.
    """
    await load_again(node, stale)
    settling: asyncio.Task[None] | None = None
    while True:
        changed = await watcher.changes()
        stale.update(node.settings.targets)
        await load_again(node, stale, names_of(changed))
        if settling is not None:
            # A full collection stops the loop: not at every save, but once there is a pause.
            settling.cancel()
        settling = node.tasks.start(settle(node), name="settle")


def _watched(node: Node) -> frozenset[Path]:
    """Return the files and folders that the triggers of the node's apps watch."""
    return frozenset[Path]().union(
        *(watched_by(app.functions) for app in node.supervisor.apps.values())
    )


async def load_again(node: Node, stale: set[str], why: str = "") -> None:
    """Load what is stale, with the settings as they are now; it is not stale once it is loaded or broken.

    Args:
        node: The node of the apps.
        stale: Targets to load.
        why: Names of files that changed.

    Raises:
        Unavailable: The process of one of them does not come up; it stays stale.
    """
    try:
        node.adopt(reread(node.settings))
    except Misuse as error:
        _logger.warning("kept the old settings, which go on: %s", error)
    because = f" ({why} changed)" if why else ""
    for target in sorted(stale):
        began = node.clock.monotonic()
        try:
            app = await node.deploy(target)
        except Misuse as error:
            _logger.warning(
                "kept the old version of `%s`, which goes on%s: %s", target, because, error
            )
        else:
            ms = (node.clock.monotonic() - began) * 1_000
            _logger.info(
                "reloaded `%s` in %.0f ms, now version %s%s", app.name, ms, app.version, because
            )
        stale.discard(target)
