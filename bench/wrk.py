"""wrk, an HTTP client fast enough to measure servers with: one thread, posting the same JSON.

It comes as a system package (`wrk`). Where it is missing the programs that need it say so and are
skipped: a slower client would measure itself.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.figures import cores, skip

BODY = b'{"id":"order-0012345","shop":"berlin","total":129.95,"items":["A-100","B-7"],"note":"by the door"}'
"""About 100 bytes."""
CONNECTIONS = (1, 32)
SECONDS = 2
QUICK_SECONDS = 1
PATIENCE_S = 10.0
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


class WrkWentWrong(Exception):
    """It did not run, or not every answer was a 2xx: a figure would be meaningless."""


def need_wrk() -> None:
    """Skip the program where wrk is not installed."""
    if shutil.which("wrk") is None:
        skip("`wrk` is not installed; run `apt-get install wrk`")


def wait_open(port: int) -> None:
    """Return once somebody listens.

    Raises:
        WrkWentWrong: Nobody does within 10 s.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise WrkWentWrong(f"nobody listens on port {port} after {PATIENCE_S:.0f} s")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def shoot(
    url: str,
    folder: Path,
    *,
    quick: bool,
    connections: Sequence[int] = CONNECTIONS,
    processor_s: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Requests per second and latency in microseconds at each number of connections.

    With `processor_s`, which tells what the server has had of the processor in seconds, that as well, in
    microseconds a request.
    """
    script = folder / "post.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f"wrk.body = [[{BODY.decode()}]]\n"
    )
    seconds = QUICK_SECONDS if quick else SECONDS
    figures: dict[str, float] = {}
    _run(url, script, 32, QUICK_SECONDS)
    for count in connections:
        before = 0.0 if processor_s is None else processor_s()
        told = _run(url, script, count, seconds)
        if processor_s is not None:
            told["host_us"] = (processor_s() - before) * 1e6 / (told["per_s"] * seconds)
        figures |= {f"{name}_at_{count}": value for name, value in told.items()}
    return figures


def _run(url: str, script: Path, connections: int, seconds: int) -> dict[str, float]:
    first, _ = cores()
    command = ["taskset", "-c", str(first), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    run = subprocess.run(
        [*command, "--latency", "-s", str(script), url], capture_output=True, text=True, check=False
    )
    return read_report(run.stdout + run.stderr)


def read_report(text: str) -> dict[str, float]:
    """What wrk's report says.

    Raises:
        WrkWentWrong: It is none, or speaks of failed requests.
    """
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None or "Non-2xx" in text or "Socket errors" in text:
        raise WrkWentWrong(" | ".join(text.strip().splitlines()[-3:])[:300])
    figures = {"per_s": float(rate[1])}
    for share in ("50", "99"):
        found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
        if found is not None:
            figures[f"us_p{share}"] = float(found[1]) * _UNITS[found[2]]
    return figures


def serve_and_shoot(
    command: Sequence[str], port: int, folder: Path, *, quick: bool
) -> dict[str, float]:
    """Run a server that listens on `port` while it is shot at."""
    log = (folder / "server.log").open("w+")
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_open(port)
        return shoot(f"http://127.0.0.1:{port}/", folder, quick=quick)
    except WrkWentWrong as error:
        log.seek(0)
        raise WrkWentWrong(f"{error} | {log.read()[-300:]}") from error
    finally:
        server.kill()
        server.wait()
        log.close()
