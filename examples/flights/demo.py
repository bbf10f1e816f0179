"""The main job: a year of flights through the app, while instances and the host are killed.

Starts `headrace serve`, publishes over HTTP from several threads, kills random instances and once the
whole host with SIGKILL, restarts it, waits until nothing is left to do, and compares every figure
with pandas. Ends with status 0 only if nothing differs.

    python examples/flights/demo.py [--quick] [--keep] [--port 4280] [--data DIR]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import collect
import feed
import msgspec
import verify
from host import Death, Door, Gone, Host, Killer
from report import Progress, percentiles, print_dead_letters, print_figures, print_findings

HERE = pathlib.Path(__file__).resolve().parent
STUCK_S = 60.0
REPEAT_EVERY = (
    16  # every so-manieth request is sent twice, as a producer does that missed the answer
)


class Plan(NamedTuple):
    """How big a run is: flights (None: all), how many trickle at the end, threads, pace, faults."""

    flights: int | None
    trickle: int
    trickle_rate: float
    threads: int
    chunk: int
    rate: float
    kill_every: float


FULL = Plan(None, 1_000, 200.0, 3, 1_000, 0.0, 0.4)
QUICK = Plan(8_000, 200, 200.0, 3, 250, 4_000.0, 0.3)


# --- publishing ----------------------------------------------------------------------------------


class Producers:
    """Publishes the feed from several threads; every key keeps to one thread, so order is kept."""

    def __init__(self, host: Host, plan: Plan, rows: Sequence[feed.Raw]) -> None:
        self._plan = plan
        shards: list[list[feed.Raw]] = [[] for _ in range(plan.threads)]
        for row in rows:
            shards[zlib.crc32((row.key or row.id).encode()) % plan.threads].append(row)
        self.total = len(rows)
        self.published = 0
        self.duplicates = 0
        self.repeated = 0
        self.failure: Exception | None = None
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(host, shard), daemon=True) for shard in shards
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether there is more to publish."""
        if self.failure is not None:
            raise self.failure
        return any(thread.is_alive() for thread in self._threads)

    def _run(self, host: Host, rows: list[feed.Raw]) -> None:
        door = Door(host)
        began = time.perf_counter()
        sent = 0
        try:
            for number, start in enumerate(range(0, len(rows), self._plan.chunk)):
                part = rows[start : start + self._plan.chunk]
                known = publish(door, part)
                if number % REPEAT_EVERY == 0:
                    known += publish(door, part)
                sent += len(part)
                with self._lock:
                    self.published += len(part)
                    self.duplicates += known
                if self._plan.rate:
                    due = began + sent * self._plan.threads / self._plan.rate
                    time.sleep(max(due - time.perf_counter(), 0))
        except Exception as error:  # noqa: BLE001  # handed to the main thread, which raises it
            self.failure = error
        finally:
            self.repeated += door.repeated
            door.close()


def publish(door: Door, rows: Sequence[feed.Raw]) -> int:
    """Publish rows of one or both streams; return how many were known already.

    Every event carries its own id, so sending a batch again after the host died is harmless.
    """
    known = 0
    for stream in (feed.WEATHER, feed.FLIGHTS):
        lines = [_envelope(row) for row in rows if row.stream == stream]
        if lines:
            known += door.publish(stream, b"\n".join(lines))
    return known


def _envelope(row: feed.Raw) -> bytes:
    event: dict[str, Any] = {"id": row.id}
    if row.key is not None:
        event["key"] = row.key
    try:
        event["value_text"] = row.value.decode()
    except UnicodeDecodeError:
        event["value_base64"] = base64.b64encode(row.value).decode()
    return msgspec.json.encode(event)


# --- watching ------------------------------------------------------------------------------------


class View(NamedTuple):
    """One look at every function: events finished, events not finished, and where those stand."""

    done: dict[str, int]
    lag: int
    behind: list[str]


def look(door: Door) -> View:
    """Look."""
    done: dict[str, int] = {}
    lag = 0
    behind = []
    for row in door.get("/-/v1/lag")["lag"]:
        name = row["function"].removeprefix("flights.")
        done[name] = done.get(name, 0) + row["position"]
        lag += row["lag"]
        if row["lag"]:
            behind.append(
                f"{name} {row['stream']}/{row['partition']}: {row['lag']:,} from offset"
                f" {row['position']:,} on, {row['state']}"
            )
    return View(done, lag, behind)


def wait_until_idle(door: Door, progress: Progress, producers: Producers, killer: Killer) -> None:
    """Show progress until all is published and two looks in a row find nothing left, nor a change.

    Raises:
        Gone: For a minute nothing moved, though there is something left to do.
    """
    before: View | None = None
    moved = time.monotonic()
    while True:
        publishing = producers.running
        view = look(door)
        progress.show(producers.published, producers.total, view.done, view.lag, killer.kills)
        if not publishing and not view.lag and view == before:
            return
        if view != before:
            before, moved = view, time.monotonic()
        elif not publishing and time.monotonic() - moved > STUCK_S:
            raise Gone(f"nothing moved for {STUCK_S:.0f} s:\n  " + "\n  ".join(view.behind))
        time.sleep(0.1)


# --- the trickle ----------------------------------------------------------------------------------


def trickle(door: Door, plan: Plan, rows: Sequence[feed.Raw]) -> dict[int, float]:
    """Publish rows one by one, evenly; return when each was sent, in seconds since the epoch."""
    sent: dict[int, float] = {}
    began = time.perf_counter()
    for number, row in enumerate(rows):
        due = began + number / plan.trickle_rate
        time.sleep(max(due - time.perf_counter(), 0))
        sent[int(row.id.removeprefix("flight-"))] = time.time()
        publish(door, [row])
    return sent


# --- the run --------------------------------------------------------------------------------------


def split(whole: feed.Feed, plan: Plan) -> tuple[list[feed.Raw], list[feed.Raw]]:
    """What is published at once, weather and flights as they fall in time, and what trickles in."""
    held = whole.flights[-plan.trickle :]
    bulk = sorted([*whole.weather, *whole.flights[: -plan.trickle]], key=lambda row: row.due)
    poison = {row.id for row in whole.poison}
    return (
        bulk + [row for row in held if row.id in poison],
        [row for row in held if row.id not in poison],
    )


def run(plan: Plan, host: Host, *, keep: bool) -> int:
    """The whole job; returns the exit status."""
    chance = random.Random(2013)
    with Progress() as progress:
        ready = host.start()
        progress.say(f"node ready after {ready:.2f} s, log in {host.log_path}")
        progress.say(f"watch it in the console: {console_of(host)}")
        whole = feed.load(plan.flights)
        bulk, held = split(whole, plan)
        progress.say(
            f"publishing {len(whole.flights):,} flights and {len(whole.weather):,} weather hours,"
            f" {len(whole.poison)} of them poison"
        )
        door = Door(host)
        producers = Producers(host, plan, bulk)
        killer = Killer(host, plan.kill_every, chance.choice)
        began = time.perf_counter()
        producers.start()
        killer.start()
        try:
            crash = crash_host(host, door, progress, producers, killer)
            wait_until_idle(door, progress, producers, killer)
        finally:
            killer.stop()
        took = time.perf_counter() - began
        handled = sum(look(door).done.values())
        progress.say(f"all done after {took:.1f} s; now {len(held):,} flights one by one")
        sent = trickle(door, plan, held)
        wait_until_idle(door, progress, producers, killer)
        progress.say("comparing with pandas")
        findings, letters = judge(door, plan, whole)
        committed = collect.committed_at(door, "flights.by_carrier", set(sent))
        latencies = [committed[number] - sent[number] for number in sent if number in committed]
        stored = collect.length(door, feed.FLIGHTS) + collect.length(door, feed.WEATHER)
        starts = collect.cold_starts(door)
    findings += [
        verify.count("raw events in the log", len(bulk) + len(held), stored),
        verify.count("flights trickled and measured", len(held), len(latencies)),
        verify.count("processes that outlived their host", 0, crash.death.left),
    ]
    print_dead_letters([(one.position, one.cause.kind, one.event.raw()) for one in letters])
    print_findings(findings)
    print_figures(
        "The run",
        [
            ("events published", f"{len(bulk):,} in {took:.1f} s, faults included"),
            ("  end to end", f"{len(bulk) / took:,.0f} events/s"),
            ("  handed to functions", f"{handled:,}, {handled / took:,.0f} events/s"),
            ("instances killed", f"{killer.kills}"),
            ("host killed", f"once, at {crash.at:,} events published"),
            (
                "  its other processes",
                f"{crash.death.processes}, gone {1000 * crash.death.took:.0f} ms later",
            ),
            ("  ready again", f"{crash.ready:.2f} s after its start"),
            ("requests repeated after an error", f"{producers.repeated}"),
            ("events published twice and dropped", f"{producers.duplicates:,}"),
            ("publish -> handler -> committed", percentiles(latencies)),
            ("cold starts since the restart", describe(starts)),
        ],
    )
    wrong = [finding for finding in findings if not finding.holds]
    print(
        f"console: {console_of(host)}{'' if keep else ' (closed by now; `make demo ARGS=--keep` leaves it open)'}"
    )
    if keep:
        print("the node is kept running; press Ctrl-C to stop it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    status = host.stop()
    if status:
        print(f"the node ended with status {status}: {host.log_tail()}")
    print("everything agrees" if not wrong else f"{len(wrong)} figures differ")
    return 1 if wrong or status else 0


def console_of(host: Host) -> str:
    """A link to the node's pages, in its present life, that lets one browser in."""
    door = Door(host)
    try:
        path = door.ask("POST", "/-/v1/console/links")["path"]
    finally:
        door.close()
    return f"http://{':'.join(map(str, host.address() or ()))}{path}"


class Crash(NamedTuple):
    """How the host's death went.

    Attributes:
        at: Events published before.
        death: What became of its processes.
        ready: Seconds from its next start until it was ready.
    """

    at: int
    death: Death
    ready: float


def crash_host(
    host: Host, door: Door, progress: Progress, producers: Producers, killer: Killer
) -> Crash:
    """SIGKILL the host once half is published, and start it again."""
    while producers.running and producers.published < producers.total // 2:
        view = look(door)
        progress.show(producers.published, producers.total, view.done, view.lag, killer.kills)
        time.sleep(0.05)
    at = producers.published
    death = host.kill()
    progress.say(
        f"host killed at {at:,} published; of its {death.processes} other processes"
        f" {death.left} are left after {1000 * death.took:.0f} ms"
    )
    ready = host.start()
    progress.say(f"host ready again after {ready:.2f} s")
    return Crash(at, death, ready)


def judge(
    door: Door, plan: Plan, whole: feed.Feed
) -> tuple[list[verify.Finding], list[collect.DeadLetter]]:
    """Compare everything the node answers with what pandas has."""
    expected = verify.compute(plan.flights)
    letters = collect.dead_letters(door)
    dead = [(one.position.rsplit("/", 2)[0], one.event.key, one.event.raw()) for one in letters]
    planted = [(row.stream, row.key, row.value) for row in whole.poison]
    origins = [collect.record_at(door, one.position).raw() for one in letters]
    findings = [
        *verify.tallies("carriers", expected.carriers, collect.tallies(door, "carriers")),
        *verify.tallies("routes", expected.routes, collect.tallies(door, "routes")),
        *verify.rows("joined", expected.joined, collect.rows(door, "joined")),
        *verify.rows("alerts", expected.alerts, collect.rows(door, "alerts")),
        *verify.dead_letters(planted, dead, origins),
    ]
    return findings, letters


def describe(quantiles: dict[str, float]) -> str:
    """Quantiles as the node gives them, in milliseconds."""
    marks = [f"p{float(mark) * 100:g} {1000 * value:.1f}" for mark, value in quantiles.items()]
    return f"{', '.join(marks)} ms" if marks else "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a slice, in under 30 seconds")
    parser.add_argument("--keep", action="store_true", help="keep the node and its data at the end")
    parser.add_argument("--port", type=int, default=0, help="the node's port; 0 picks a free one")
    parser.add_argument(
        "--data", type=pathlib.Path, help="an empty folder; default: a temporary one"
    )
    chosen = parser.parse_args(arguments)
    folder = chosen.data or pathlib.Path(tempfile.mkdtemp(prefix="headrace-flights-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"the folder {folder} is not empty; name another, or empty it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    host = Host(HERE / "function.py", folder / "data", chosen.port)
    try:
        return run(QUICK if chosen.quick else FULL, host, keep=chosen.keep)
    except Gone as error:
        print(f"the run was broken off: {error}\n{host.log_tail()}", file=sys.stderr)
        return 1
    finally:
        host.stop()
        if not chosen.keep and chosen.data is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
