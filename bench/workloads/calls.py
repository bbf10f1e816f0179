"""HTTP calls of a function in a process of its own, through a whole node: `POST /-/v1/functions/NAME`.

Every request passes the door's checks, is counted, and is answered once what it did is committed;
this function keeps nothing, so there is nothing to commit. `route` is the same at a path that the
author declared.
"""

from __future__ import annotations

from pathlib import Path

from bench.figures import arguments, report, scratch
from bench.workloads.serving import serving
from bench.wrk import CONNECTIONS, need_wrk, shoot

CROWD = 256
"""Connections of which most wait for an instance."""
PATHS = {"function": "/-/v1/functions/calls.echo", "route": "/echo"}


def measure(folder: Path, *, path: str, quick: bool) -> dict[str, float]:
    """Shoot at a node that is ready; its processor time comes along."""
    with serving("calls", folder / "data") as node:
        return shoot(
            node.url + path,
            folder,
            quick=quick,
            connections=(*CONNECTIONS, CROWD),
            processor_s=node.processor_s,
        )


def main() -> None:
    """Measure one kind of path."""
    parser = arguments(__doc__)
    parser.add_argument("--at", choices=list(PATHS), default="function")
    options = parser.parse_args()
    need_wrk()
    with scratch("calls") as folder:
        report(**measure(folder, path=PATHS[options.at], quick=options.quick))


if __name__ == "__main__":
    main()
