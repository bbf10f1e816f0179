"""watchfiles, which tells of changes once they pause: from a file's closing until it is handed out."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from watchfiles import awatch

from bench.dropping import count_of, dropped, samples
from bench.figures import arguments, report, scratch, spread

DEBOUNCE_MS, STEP_MS = 1_600, 50
"""Its defaults."""
SETTLE_S = 0.5


async def listen(
    folder: Path, heard: dict[str, float], stop: asyncio.Event, *, debounce: int, step: int
) -> None:
    """Note when each file was first heard of."""
    async for changes in awatch(folder, debounce=debounce, step=step, stop_event=stop):
        now = time.monotonic()
        for _, path in changes:
            heard.setdefault(Path(path).name, now)


async def measure(folder: Path, count: int, *, debounce: int, step: int) -> list[float]:
    """Seconds from closing to hearing, of every file but the first few."""
    heard: dict[str, float] = {}
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen(folder, heard, stop, debounce=debounce, step=step))
        await asyncio.sleep(SETTLE_S)
        closed = await dropped(str(folder), count)
        await asyncio.sleep(SETTLE_S)
        stop.set()
    return samples(closed, heard)


def main() -> None:
    """Measure one setting."""
    parser = arguments(__doc__)
    parser.add_argument("--debounce", type=int, default=DEBOUNCE_MS)
    parser.add_argument("--step", type=int, default=STEP_MS)
    options = parser.parse_args()
    with scratch("watchfiles") as folder:
        found = asyncio.run(
            measure(
                folder,
                count_of(quick=options.quick),
                debounce=options.debounce,
                step=options.step,
            )
        )
    report(**spread(found, scale=1e3, prefix="heard_ms_"))


if __name__ == "__main__":
    main()
