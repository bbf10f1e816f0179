"""A disk that fails under a live node: a call that breaks it, and one that only refuses for a while.

The failing calls are made below SQLite and below the checksums, in the node's own process. A write or
an fsync that breaks ends the node with status 70 (what the disk holds is unknown, so it is read
anew by the next life). A store that is full for a while ends nothing: producers are told, dead
letters wait, and all goes on when it is over.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

from tests.auditor.outside import Finding
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result
from tests.integration.faults.rounds import at_work, judged, pauses
from tests.integration.faults.sites import Site

EXIT_DISK_FAILED = 70
BROKEN_S = 20.0
RESUMED_S = 5.0
MOST_CALLS = {"write": 5_000, "sync": 600, "read": 400}
"""Up to which call the disk holds: as many as a few seconds of load make."""
READS_FAIL_S = 1.0
"""Reads that fail need not end a node, which then says so and asks again; so long it may."""

PRELUDE = """
import os, apsw

class _File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        super().__init__("unix", name, flags)
        self.disk = disk
    def xWrite(self, data, offset):
        self.disk.pass_("write")
        super().xWrite(data, offset)
    def xSync(self, flags):
        self.disk.pass_("sync")
        super().xSync(flags)
    def xRead(self, amount, offset):
        self.disk.pass_("read")
        return super().xRead(amount, offset)

class _Disk(apsw.VFS):
    def __init__(self, flag):
        self.flag, self.count, self.fail_at = flag, {"write": 0, "sync": 0, "read": 0}, {}
        super().__init__("failing", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return _File(self, name, flags)
    def pass_(self, call):
        self.count[call] += 1
        if self.count[call] >= self.fail_at.get(call, 1 << 60):
            raise apsw.IOError(f"planted: {call} number {self.count[call]} fails")
        if call == "write" and os.path.exists(self.flag):
            raise apsw.FullError("planted: full")

_disk = _Disk("FLAG")
_disk.fail_at = FAIL_AT
"""


def plant(site: Site, fail_at: dict[str, int]) -> None:
    """Give the next lives a disk whose calls fail from these numbers on, and that is full at will."""
    site.prelude = PRELUDE.replace("FLAG", str(flag(site))).replace("FAIL_AT", repr(fail_at))


def flag(site: Site) -> Path:
    """The disk is full for as long as this file is there."""
    return site.folder / "full"


def break_disks(site: Site, times: int, seed: int) -> Result:
    """The Nth call fails, and every later one: the node ends, the next one reads anew."""
    random = Random(seed)
    load = at_work(site, seed, padding=4_000, pause=0.01)
    for number in range(times):
        site.kill()
        call = ("write", "sync", "read")[number % 3]
        # As often early, where a node recovers, as late.
        plant(site, {call: round(MOST_CALLS[call] ** random.random())})
        site.launch()
        if call == "read":
            time.sleep(READS_FAIL_S)
        else:
            site.wait_death(BROKEN_S, status=EXIT_DISK_FAILED)
        plant(site, {})
        if site.is_alive():
            site.kill()
        site.start()
    return judged("a write, an fsync or a read fails", load, times)


def refuse(site: Site, times: int, seed: int) -> Result:
    """For a while the store takes no write, while poison comes in."""
    random = Random(seed)
    plant(site, {})
    load = at_work(site, seed, poison=0.05, padding=1_000)
    findings: list[Finding] = []
    slowest = 0.0
    for pause in pauses(random, times, 0.2, 0.5):
        time.sleep(pause)
        flag(site).touch()
        time.sleep(random.uniform(0.3, 1.5))
        flag(site).unlink()
        began, before = time.monotonic(), load.acknowledged
        wait_until(
            lambda old=before: load.acknowledged > old,  # type: ignore[misc]
            seconds=20,
            what=lambda: f"producers are answered again {site.said()}",
            every=0.005,
        )
        slowest = max(slowest, time.monotonic() - began)
    if slowest > RESUMED_S:
        findings.append(Finding("I9", f"service resumed only after {slowest:.1f} s"))
    return judged(
        "store unavailable while poison comes",
        load,
        times,
        findings=findings,
        slowest_resume_s=round(slowest, 3),
    )
