"""An application under uvicorn, in a process of its own on one core, shot at with wrk."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import uvicorn

from bench.figures import arguments, cores, pin, report
from bench.wrk import free_port, need_wrk, serve_and_shoot


def serve_or_shoot(
    module: str,
    description: str | None,
    app: Any,
    *,
    lifespan: Literal["auto", "off"] = "auto",
) -> None:
    """Be the server where `--serve PORT` says so; else run `module` as that, and shoot at it."""
    parser = arguments(description)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    options = parser.parse_args()
    if options.serve:
        pin(cores()[1])
        uvicorn.run(
            app, port=options.serve, lifespan=lifespan, log_level="critical", access_log=False
        )
        return
    need_wrk()
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = [sys.executable, "-m", module, "--serve", str(port)]
        report(**serve_and_shoot(command, port, Path(name), quick=options.quick))
