"""The machine's clock jumps by an hour or a day, both ways, under the second load.

`libfaketime` (Debian's `faketime`) lies to the host about the date, and leaves its monotonic clock alone,
as an operator's `date` does. Times of the schedule come once and never early, by the clock as it is;
what is leased stays its holder's for as long as it was given.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from random import Random

from tests.integration.faults.results import Result
from tests.integration.faults.sites import Site
from tests.integration.faults.works import Works

HOUR_S, DAY_S = 3_600, 86_400
JUMPS = (HOUR_S, -HOUR_S, DAY_S, -DAY_S)
FARTHEST_S = 30 * DAY_S


def library() -> Path | None:
    """Where `libfaketime` is, if it is installed."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def why_no_jumps() -> str:
    """Why this machine's clock cannot be made to jump; "" where it can."""
    found = library() is not None or shutil.which("faketime") is not None
    return "" if found else "libfaketime is not installed (Debian: `apt-get install faketime`)"


def jump_clocks(site: Site, times: int, seed: int) -> Result:
    """Set the host's clock forward and back while messages are leased, delayed and due."""
    random = Random(seed)
    works = Works(site, seed, forgets=0.3)
    dial = site.folder / "clock"
    dial.write_text("+0")
    site.environ = {
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(dial),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    works.start()
    wrong = farthest = 0
    for _ in range(times):
        time.sleep(random.uniform(0.3, 1.2))
        jump = random.choice(JUMPS)
        wrong += jump if abs(wrong + jump) < FARTHEST_S else -jump
        farthest = max(farthest, wrong)
        set_clock(dial, wrong, works)
    time.sleep(random.uniform(0.3, 1.2))
    # What is due by the farthest date that was ever shown would otherwise wait until it comes again.
    set_clock(dial, farthest + HOUR_S, works)
    return works.finish("clock jumps of an hour, a day", times)


def set_clock(dial: Path, wrong: int, works: Works) -> None:
    """Let the host's clock be wrong by so many seconds."""
    works.clock.append((time.time(), float(wrong)))
    new = dial.with_suffix(".new")
    new.write_text(f"{wrong:+d}")
    new.rename(dial)
