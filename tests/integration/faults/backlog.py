"""A backlog outlives its host, which is back within five seconds and works it off in order."""

from __future__ import annotations

import time
from random import Random

from tests.auditor.outside import Sent
from tests.integration.faults.load import APP, EVENTS, account, envelope
from tests.integration.faults.processes import wait_until
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site

EVENTS_EACH = 4_000


def keep_backlog(site: Site, times: int, seed: int) -> Result:
    """Publish much at once, kill the host amid it, and time its way back to the first event."""
    random = Random(seed)
    site.write(APP)
    site.start()
    sent: list[Sent] = []
    first = 0.0
    for _ in range(times):
        for _ in range(EVENTS_EACH // 500):
            start = len(sent)
            batch = [
                Sent(f"e{n}", n, f"k{random.randrange(400)}", b'{"n": %d}' % n)
                for n in range(start, start + 500)
            ]
            site.ask("/-/v1/streams/orders", body=b"".join(map(envelope, batch)), media=EVENTS)
            sent += batch
        site.kill()
        traced = site.trace_path.stat().st_size
        began = time.monotonic()
        site.start()
        wait_until(
            lambda old=traced: site.trace_path.stat().st_size > old,  # type: ignore[misc]
            seconds=20,
            what=lambda: f"the first event is begun {site.said()}",
            every=0.002,
        )
        first = max(first, time.monotonic() - began)
    judged = account(site, sent)
    drained = site.wait_drained(120)
    findings = settle(site, judged)
    return result(
        "host killed amid a backlog",
        times,
        judged,
        findings,
        slowest_first_event_s=round(first, 3),
        drained_s=round(drained, 1),
        **figures_of(site),
    )
