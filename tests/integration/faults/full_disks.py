"""The disk fills up under load: producers are told, nothing acknowledged is lost, it heals by itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from pathlib import Path

from tests.auditor.outside import Account, Finding, Sent
from tests.integration.faults.disks import small
from tests.integration.faults.load import APP, EVENTS, LISTENERS, Load, envelope
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site

SIZE_BYTES = 64 << 20
LEFT_BYTES = 256 << 10
RESUMED_S = 5.0
BEYOND_PRODUCERS = 100_000_000_000
"""Numbers from here on are of no producer, whatever its seed."""


class Probe:
    """Publishes one event at a time, and remembers which were acknowledged."""

    def __init__(self, site: Site) -> None:
        self.acknowledged: list[Sent] = []
        self._site = site
        self._count = BEYOND_PRODUCERS

    def status(self) -> int:
        """What one publish is answered; 0 where nothing comes."""
        self._count += 1
        value = json.dumps({"n": self._count}).encode()
        event = Sent(f"e{self._count}", self._count, "probe", value)
        try:
            status, _ = self._site.once(
                "POST", "/-/v1/streams/orders", envelope(event), {"content-type": EVENTS}
            )
        except (OSError, http.client.HTTPException):
            return 0
        if status < 300:
            self.acknowledged.append(event)
        return status


def fill_disk(site: Site, times: int, seed: int) -> Result:
    """Fill the disk, see producers refused and consumers finish, make room, see it go on.

    Every second time somebody else takes the node's reserve too, so that nothing at all can be
    written for a while; then even what was taken in has to wait.
    """
    site.write(APP)
    findings: list[Finding] = []
    slowest = 0.0
    with small(site.data, SIZE_BYTES):
        try:
            site.start()
            load = Load(site, seed, pause=0.05, padding=2_000)
            probe = Probe(site)
            filler = site.data / "filler"
            for number in range(times):
                time.sleep(0.3)
                fill(filler)
                wait_until(
                    lambda: probe.status() == 507,
                    seconds=20,
                    every=0.05,
                    what=lambda: f"producers are answered 507 {site.said()}",
                )
                if number % 2:
                    starve(filler, 1.5)
                else:
                    # What was taken in before is finished on the reserve; producers wait.
                    site.wait_drained(20)
                filler.unlink()
                began = time.monotonic()
                wait_until(
                    lambda: 200 <= probe.status() < 300,
                    seconds=30,
                    every=0.02,
                    what=lambda: f"service resumes {site.said()}",
                )
                slowest = max(slowest, time.monotonic() - began)
            account = load.finish()
            account = Account(
                {"orders": [*account.acknowledged["orders"], *probe.acknowledged]},
                LISTENERS,
                account.app,
                account.trace,
            )
            findings += settle(site, account)
        finally:
            site.close()
    if slowest > RESUMED_S:
        findings.append(Finding("I8", f"service resumed only after {slowest:.1f} s"))
    return result(
        "disk full",
        times,
        account,
        findings,
        slowest_resume_s=round(slowest, 3),
        **figures_of(site),
    )


def starve(filler: Path, seconds: float) -> None:
    """Take whatever becomes free, for so long."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        fill(filler)
        time.sleep(0.01)


def fill(filler: Path) -> None:
    """Let a file grow until the disk has next to nothing left."""
    with filler.open("ab", buffering=0) as file:
        found = os.fstatvfs(file.fileno())
        free = found.f_bavail * found.f_frsize - LEFT_BYTES
        if free > 0:
            with contextlib.suppress(OSError):  # the node was quicker
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free)
