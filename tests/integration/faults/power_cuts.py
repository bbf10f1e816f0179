"""The power fails under load: everything stands still, the disk forgets what was never flushed.

What producers were told before the cut must be there after it. kill -9 never shows this, because
the kernel keeps what a dead process had written.
"""

from __future__ import annotations

import signal
import time
from random import Random

from tests.auditor.outside import Finding, check_file
from tests.integration.faults.disks import cuttable
from tests.integration.faults.load import APP, Load
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site


def cut_power(site: Site, times: int, seed: int, *, kind: str = "ext4") -> Result:
    """Cut, restart, go on; at the end nothing acknowledged may be missing or doubled."""
    random = Random(seed)
    site.write(APP)
    damaged: list[Finding] = []
    with cuttable(kind, site.folder, site.data) as disk:
        try:
            site.start()
            # Large enough that checkpoints are cut too.
            load = Load(site, seed, padding=6_000)
            for _ in range(times):
                time.sleep(random.uniform(0.05, 0.7))
                freeze(site)
                disk.cut()
                site.destroy()
                disk.unmount()
                disk.mount()
                # Looking must change nothing, so that the node itself recovers the log.
                copy = site.folder / "copy"
                copy.mkdir(exist_ok=True)
                for file in site.data.glob("headrace.db*"):
                    (copy / file.name).write_bytes(file.read_bytes())
                if (copy / "headrace.db").exists():
                    damaged += check_file(copy / "headrace.db")
                site.start()
            account = load.finish()
            findings = damaged + settle(site, account)
        finally:
            site.close()
    return result(f"power cut, {kind}", times, account, findings, **figures_of(site))


def freeze(site: Site) -> None:
    """Stop every process of the node where it stands."""
    host = site.host
    host.send(signal.SIGSTOP)

    def stopped() -> bool:
        family = [each for each in (host, *site.family()) if each.is_alive()]
        running = [each for each in family if each.state() != "T"]
        for each in running:
            each.send(signal.SIGSTOP)
        return not running

    wait_until(stopped, seconds=5, what="the node is frozen", every=0.001)
