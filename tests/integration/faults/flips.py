"""Bits flipped in files at rest: each is told where it is read, or does no harm; none is believed.

A node is killed at rest, so that its file and its write-ahead log are both there. Copies with one bit
changed are then read whole and compared with what the right one holds: space by space, partition by
partition the same, or `Corrupt`. Some are given to a whole node, which says so and ends, or answers
rightly what it can. What a flip in the log's very last transaction looks like is a write that never
ended: then all but that transaction must be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import shutil
import struct
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.auditor.outside import Finding
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.rounds import at_work
from tests.integration.faults.sites import Site

from headrace.environment.clock import SystemClock
from headrace.environment.tasks import Tasks
from headrace.model.effects import Space
from headrace.model.errors import Corrupt
from headrace.storage.kv.sqlite.storage import SqliteStorage
from headrace.storage.log.embedded.log import EmbeddedBroker

FILE, LOG = "headrace.db", "headrace.db-wal"
FRAME_BYTES = 24 + 4096
DAMAGED = "damaged"
LIVE_EVERY = 25
Contents = dict[str, object]
PATHS = (
    "/-/v1/streams/orders/records?limit=1000",
    "/-/v1/streams/told/records?limit=1000",
    "/-/v1/streams/seen/records?limit=1000",
    "/-/v1/streams/ends/records?limit=1000",
    "/-/v1/state/load/load.tally?prefix=tally&limit=1000",
    "/-/v1/state/load/load.single?prefix=single&limit=1000",
    "/-/v1/dead?function=load.tally&limit=1000",
    "/-/v1/dead?function=load.single&limit=1000",
)


def flip_bits(site: Site, times: int, seed: int) -> Result:
    """Flip one bit, read everything; over and over."""
    random = Random(seed)
    load = at_work(site, seed, padding=3_000, pause=0.01)
    time.sleep(1.5)
    account = load.finish()
    site.wait_drained()
    answers = {path: site.ask(path) for path in PATHS}
    site.hang_up()
    site.kill()
    right = site.folder / "right"
    right.mkdir()
    for name in (FILE, LOG):
        shutil.copy(site.data / name, right / name)
    whole, cut, last = _right(right, site.folder / "read")
    findings: list[Finding] = []
    counts: Counter[str] = Counter()
    for number in range(times):
        name = (FILE, LOG)[number % 2]
        place, bit = random.randrange((right / name).stat().st_size), random.randrange(8)
        flipped = _copy(right, site.folder / "flipped", name, place, bit)
        found = asyncio.run(contents(flipped))
        if name == LOG and place >= last and found == cut:
            counts["torn"] += 1
        elif wrong := [key for key in whole if found.get(key) not in (whole[key], DAMAGED)]:
            findings.append(Finding("I8", f"bit {bit} of byte {place} of {name}: {wrong} is wrong"))
        else:
            counts["told" if DAMAGED in found.values() else "harmless"] += 1
        if number % LIVE_EVERY == 0:
            _copy(right, site.data, FILE, random.randrange((right / FILE).stat().st_size), bit)
            findings += _answered(site, answers, counts)
    for name in (FILE, LOG):
        shutil.copy(right / name, site.data / name)
    site.start()
    findings += settle(site, account)
    return result("bit flips at rest", times, account, findings, **counts, **figures_of(site))


def _right(right: Path, scratch: Path) -> tuple[Contents, Contents, int]:
    """What the right copy holds; without its last transaction; and where that begins in the log."""
    log = (right / LOG).read_bytes()
    salts = log[16:24]
    commits = []
    for number in range((len(log) - 32) // FRAME_BYTES):
        _, size = struct.unpack_from(">II", log, 32 + number * FRAME_BYTES)
        if log[40 + number * FRAME_BYTES :][:8] != salts:
            break
        if size:
            commits.append(number)
    last = 32 + (commits[-2] + 1 if len(commits) > 1 else 0) * FRAME_BYTES
    whole = asyncio.run(contents(_copy(right, scratch)))
    assert DAMAGED not in whole.values()
    copy = _copy(right, scratch)
    (copy / LOG).write_bytes(log[:last])
    return whole, asyncio.run(contents(copy)), last


def _copy(right: Path, where: Path, name: str = "", place: int = 0, bit: int = 0) -> Path:
    """A copy of the files, with one bit of one of them flipped where one is named."""
    where.mkdir(exist_ok=True)
    for old in where.glob(f"{FILE}*"):
        old.unlink()
    for each in (FILE, LOG):
        shutil.copy(right / each, where / each)
    if name:
        with (where / name).open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << bit]))
    return where


async def contents(folder: Path) -> Contents:
    """Every row of every space, every event and every mark in the folder; what cannot be read is damaged."""
    failures: list[BaseException] = []
    try:
        storage = await SqliteStorage.open(folder, clock=SystemClock(), reserve=0)
    except Corrupt:
        return {str(part): DAMAGED for part in (*Space, "log")}
    found: Contents = {}
    tasks = Tasks(lambda _name, error: failures.append(error))
    try:
        for space in Space:
            found[str(space)] = DAMAGED
            with contextlib.suppress(Corrupt):
                found[str(space)] = await _rows(storage, space)
        found["log"] = DAMAGED
        with contextlib.suppress(Corrupt):
            broker = EmbeddedBroker(storage, clock=SystemClock(), tasks=tasks)
            found["log"] = await _log(storage, broker)
    finally:
        await tasks.close()
        await storage.close()
    return found


async def _rows(storage: SqliteStorage, space: Space) -> list[tuple[bytes, bytes]]:
    rows: list[tuple[bytes, bytes]] = []
    low = b""
    while page := await storage.scan(space, low):
        rows += page
        low = page[-1][0] + b"\x00"
    return rows


async def _log(storage: SqliteStorage, broker: EmbeddedBroker) -> list[object]:
    found: list[object] = storage.query("SELECT stream, id FROM dedupe ORDER BY stream, id")  # type: ignore[assignment]  # a list of rows
    for spec in broker.streams():
        for partition in range(spec.partitions):
            extent = await broker.extent(spec.name, partition)
            at = extent.low
            found.append((spec.name, partition, at, extent.high))
            while at < extent.high:
                chunks = await broker.fetch(spec.name, partition, at, events=1_000, size=1 << 20)
                found += [(chunk.start, chunk.body) for chunk in chunks]
                at += sum(chunk.size for chunk in chunks)
    return found


def _answered(site: Site, answers: dict[str, bytes], counts: Counter[str]) -> list[Finding]:
    """A whole node on flipped files: it refuses to start and says why, or answers nothing wrong."""
    written = site.log_path.stat().st_size
    site.launch()

    def up() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return not site.is_alive() or site.once("GET", "/readyz")[0] == 200
        return False

    wait_until(up, seconds=20, what=lambda: f"a node starts on a flipped file {site.said()}")
    if not site.is_alive():
        said = site.log_path.read_bytes()[written:]
        counts["node_refused"] += 1
        return [] if b"damaged" in said or b"corrupt" in said else [Finding("I8", site.said())]
    findings = []
    for path, right in answers.items():
        status, answer = site.once("GET", path)
        if status == 200 and answer != right:
            findings.append(Finding("I8", f"`{path}` is answered otherwise than before the flip"))
        elif status != 200 and b"damaged" not in answer:
            findings.append(Finding("I8", f"`{path}` is answered {status} {answer[:200]!r}"))
        counts["node_told"] += status != 200
    site.hang_up()
    site.kill()
    return findings
