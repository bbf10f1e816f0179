"""`headrace doctor`: what this machine gives, which isolation is really reached, and what is wrong."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from headrace.cli.connection import json_option
from headrace.cli.output import print_json, print_table
from headrace.cli.source_status import slot_warning_option, source_findings
from headrace.environment.clock import SystemClock
from headrace.model.errors import HeadraceError, Refused

_SYNCS = 20


@click.command("doctor")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="The data folder to look at."
)
@click.option("--url", metavar="URL", help="The node to look for.")
@slot_warning_option
@json_option
def doctor_command(data: Path | None, url: str | None, slot_warning: int, as_json: bool) -> int:
    """Show what this machine supports, and any problems."""
    findings = [
        *_platform(),
        *_isolation(),
        _folder(data or Path(".headrace")),
        *_node(url, data, slot_warning),
    ]
    if as_json:
        print_json(findings)
    else:
        print_table(
            findings, {"what": "name", "ok": "ok", "found": "detail"}, empty="nothing was looked at"
        )
    return int(any(finding["required"] and not finding["ok"] for finding in findings))


def _finding(name: str, ok: bool, detail: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "required": required}


def _platform() -> list[dict[str, Any]]:
    import apsw

    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    return [
        _finding("python", sys.version_info >= (3, 11), platform.python_version(), required=True),
        _finding(
            "sqlite",
            version >= (3, 51, 3),
            f"{apsw.sqlite_lib_version()} (3.51.3 or later is needed)",
            required=True,
        ),
        _finding("system", sys.platform == "linux", platform.platform(terse=True), required=True),
        _finding("processors", True, f"{os.cpu_count()}"),
    ]


def _isolation() -> list[dict[str, Any]]:
    try:
        from headrace.runtime.sandbox.probe import probe
    except Refused as error:
        return [_finding("isolation", False, str(error), required=True)]
    return [_finding(str(found.name), bool(found.ok), str(found.detail)) for found in probe()]


def _folder(data: Path) -> dict[str, Any]:
    parent = data if data.is_dir() else data.absolute().parent
    clock = SystemClock()
    sync = getattr(os, "fdatasync", os.fsync)
    try:
        with tempfile.NamedTemporaryFile(dir=parent, prefix=".headrace-doctor-") as file:
            times = []
            for _ in range(_SYNCS):
                file.write(b"x" * 4096)
                file.flush()
                began = clock.monotonic()
                sync(file.fileno())
                times.append(clock.monotonic() - began)
    except OSError as error:
        return _finding(
            "data folder", False, f"`{data}` cannot be written: {error.strerror}", required=True
        )
    middle = sorted(times)[len(times) // 2] * 1_000
    return _finding("data folder", True, f"`{data}`: fsync takes {middle:.2f} ms")


def _node(url: str | None, data: Path | None, slot_warning: int) -> list[dict[str, Any]]:
    from headrace.client.address import client_address
    from headrace.client.http import Client

    # Here `--data` names a folder to look at, which need not be a node's.
    found_at = client_address(url, data=data)
    client = Client(found_at.url, token=found_at.token, certificate=found_at.certificate)
    try:
        with client:
            found = client.get()
            sources = client.get("sources", warning=slot_warning)["sources"]
    except HeadraceError as error:
        return [_finding("node", False, str(error))]
    apps = ", ".join(f"`{name}`" for name in found.get("apps", ())) or "no app"
    found = [_finding(name, ok, detail) for name, ok, detail in source_findings(sources)]
    return [_finding("node", True, f"{client.url} runs {apps}"), *found]
