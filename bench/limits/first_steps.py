"""The least that `headrace dev` can be: a bare process that keeps one event and runs it in another process.

It imports what is needed for that and nothing of ours: an event loop, SQLite, msgspec, watchfiles. It opens a
database in WAL mode, starts an interpreter that imports the app's module, and listens. An event is a row,
synced, then a line to that interpreter and back, then a row again. A saved file starts another interpreter.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import arguments, percentile, report, scratch

NODE = """
import asyncio, sqlite3, subprocess, sys, threading
import click, msgspec, uvloop
folder, port = sys.argv[1], int(sys.argv[2])
store = sqlite3.connect(folder + "/data.db", isolation_level=None, check_same_thread=False)
store.execute("PRAGMA journal_mode=WAL")
store.execute("PRAGMA synchronous=FULL")
store.execute("CREATE TABLE events (value)")
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); import app\\nfor line in sys.stdin: print(app.VERSION, flush=True)"
def start():
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder + "/app"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    run(child)
    return child
def run(child):
    child.stdin.write(b"{}\\n"); child.stdin.flush()
    return child.stdout.readline()
child = start()
def watch():
    global child
    from watchfiles import watch
    for _ in watch(folder + "/app", debounce=50, step=10):
        old, child = child, start()
        old.kill()
async def serve(reader, writer):
    while line := await reader.readline():
        store.execute("INSERT INTO events VALUES (?)", (line,))
        answer = run(child)
        store.execute("INSERT INTO events VALUES (?)", (answer,))
        writer.write(answer)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    threading.Thread(target=watch, daemon=True).start()
    await server.serve_forever()
uvloop.run(main())
"""
PATIENCE_S = 30.0
POLL_S = 0.002


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def connected(port: int) -> socket.socket:
    """A connection, as soon as somebody listens."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(POLL_S)


def asked(line: socket.socket) -> bytes:
    """The version that an event was run by."""
    line.sendall(b"{}\n")
    return line.recv(100).strip()


def steps() -> tuple[float, float, float]:
    """Seconds until it listens, until the first event is kept, and from a save to the new code."""
    with scratch("steps") as folder:
        app = folder / "app" / "app.py"
        app.parent.mkdir()
        app.write_text("import msgspec\nVERSION = 1\n")
        port = free_port()
        began = time.perf_counter()
        node = subprocess.Popen([sys.executable, "-c", NODE, str(folder), str(port)])
        try:
            with connected(port) as line:
                ready = time.perf_counter() - began
                asked(line)
                first = time.perf_counter() - began
                saved = saved_to(line, app)
        finally:
            node.kill()
            node.wait()
        return ready, first, saved


def saved_to(line: socket.socket, app: Path) -> float:
    """Seconds until an event is run by what was saved."""
    # It watches by then.
    time.sleep(0.3)
    began = time.perf_counter()
    app.write_text("import msgspec\nVERSION = 2\n")
    while asked(line) != b"2":
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError("the edit was not loaded")
        time.sleep(POLL_S)
    return time.perf_counter() - began


def main() -> None:
    """Take each step several times."""
    times = 1 if arguments(__doc__).parse_args().quick else 5
    found = [steps() for _ in range(times)]
    ready, first, saved = zip(*found, strict=True)
    report(
        ready_ms=percentile(ready, 0.5) * 1e3,
        first_event_ms=percentile(first, 0.5) * 1e3,
        saved_ms=percentile(saved, 0.5) * 1e3,
    )


if __name__ == "__main__":
    main()
