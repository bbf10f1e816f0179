"""Memory of its own that a bare forked child has, after it ran a handler and a collection."""

from __future__ import annotations

import gc
import importlib
import json
import socket
from pathlib import Path

from bench.figures import arguments, report
from bench.limits.frames import Child, Pipe, fork_child


def private_bytes(pid: int) -> int:
    """Pages nobody else has."""
    with Path(f"/proc/{pid}/smaps_rollup").open() as rollup:
        return sum(
            int(line.split()[1]) << 10
            for line in rollup
            if line.startswith(("Private_Dirty", "Private_Clean"))
        )


def serve(pipe: Pipe) -> None:
    """Answer JSON with JSON, and collect garbage once."""
    end: socket.socket = pipe.socket
    while message := end.recv(65536):
        answer = json.dumps({"id": json.loads(message)["id"], "ok": True})
        gc.collect()
        end.sendall(answer.encode())


def main() -> None:
    """Fork the children, let each answer once, weigh them."""
    parser = arguments(__doc__)
    parser.add_argument("--app", default="bench.apps.empty")
    options = parser.parse_args()
    importlib.import_module(options.app)
    gc.collect()
    gc.freeze()
    children: list[Child] = [
        fork_child(serve, core=None) for _ in range(5 if options.quick else 50)
    ]
    for child in children:
        child.pipe.socket.sendall(b'{"id": 1}')
        child.pipe.socket.recv(4096)
    weight = sum(private_bytes(child.pid) for child in children) / len(children)
    for child in children:
        child.close()
    report(private_mib=weight / (1 << 20))


if __name__ == "__main__":
    main()
