"""What one fsync costs on the disk under test; durability targets are to be read in this unit."""

from __future__ import annotations

import os
import time

from bench.figures import arguments, report, scratch, spread


def main() -> None:
    """Append 4 KiB and fsync, over and over."""
    options = arguments(__doc__).parse_args()
    page = os.urandom(4096)
    samples: list[float] = []
    with scratch("fsync") as folder:
        file = os.open(folder / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        for _ in range(50 if options.quick else 2_000):
            began = time.perf_counter()
            os.write(file, page)
            os.fsync(file)
            samples.append(time.perf_counter() - began)
        os.close(file)
    report(**spread(samples, scale=1e3, prefix="fsync_ms_"))


if __name__ == "__main__":
    main()
