"""FastAPI on uvicorn with uvloop and httptools: the handler runs in the server's own process."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from bench.figures import arguments, cores, pin, report
from bench.wrk import free_port, need_wrk, serve_and_shoot

app = FastAPI()


@app.post("/")
async def echo(event: dict[str, Any]) -> dict[str, Any]:
    """Give back what came."""
    return event


def main() -> None:
    """Serve in a process of its own, and shoot."""
    parser = arguments(__doc__)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    options = parser.parse_args()
    if options.serve:
        pin(cores()[1])
        uvicorn.run(app, port=options.serve, log_level="critical", access_log=False)
        return
    need_wrk()
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = [sys.executable, "-m", "bench.peers.on_fastapi", "--serve", str(port)]
        report(**serve_and_shoot(command, port, Path(name), quick=options.quick))


if __name__ == "__main__":
    main()
