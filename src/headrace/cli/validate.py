"""`headrace validate`: an app and its settings are checked without running a function.

The code is imported in a process of its own, as a node would, so that what it does on import does
not happen here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from headrace.cli.connection import json_option
from headrace.cli.output import plural, print_json
from headrace.model.errors import Misuse
from headrace.model.function import AppSpec

LOAD_S = 60
_INSPECT = """
import sys
import msgspec
from headrace.model.errors import HeadraceError
from headrace.runtime.child.loader import described, load, said
try:
    answer = {"app": msgspec.to_builtins(described(load(sys.argv[1]), sys.argv[1])[0])}
except BaseException as error:
    sentence, trace = said(error)
    if not isinstance(error, HeadraceError):
        kind = type(error).__name__
        sentence = f"`{sys.argv[1]}` cannot be imported: {kind}: {sentence}; correct its code\\n{trace}"
    answer = {"error": sentence.rstrip()}
with open(sys.argv[2], "wb") as out:
    out.write(msgspec.msgpack.encode(answer))
"""


@click.command("validate")
@click.argument("targets", nargs=-1)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="The settings file."
)
@json_option
def validate_command(targets: tuple[str, ...], config: Path | None, as_json: bool) -> int:
    """Check TARGETS (`app.py`, a folder, `package.module:app`), their topology and settings."""
    from headrace.node.config import load

    settings = load({"targets": targets or None}, file=config)
    if not settings.targets:
        raise Misuse(
            "no app is named; write `headrace validate app.py`, or set `targets` in headrace.toml"
        )
    apps = [settings.apply(inspect(target)) for target in settings.targets]
    findings = [
        *_topology(apps),
        *_triggers(apps),
        *_rules(apps),
        *_unmatched(settings.unmatched(apps)),
    ]
    wrong = any(finding["severity"] == "error" for finding in findings)
    if as_json:
        print_json({"apps": msgspec.to_builtins(apps), "findings": findings})
        return int(wrong)
    for app in apps:
        click.echo(
            f"app `{app.name}` (version {app.version[:12]}): "
            f"{plural(len(app.functions), 'function')}, {plural(len(app.streams), 'stream')}"
        )
    for finding in findings:
        click.echo(f"{finding['severity']}: {finding['message']}")
    if not findings:
        click.echo("nothing to object to")
    return int(wrong)


def inspect(target: str) -> AppSpec:
    """What the code at `target` declares, read in a process of its own.

    Raises:
        Misuse: It cannot be loaded; the message has the author's part of the traceback.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        out = Path(folder) / "app"
        try:
            done = subprocess.run(
                [sys.executable, "-c", _INSPECT, target, str(out)],
                capture_output=True, timeout=LOAD_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Misuse(
                f"`{target}` was not imported within {LOAD_S} s; do no work at import time, "
                "use `@app.init`"
            ) from error
        if not out.is_file():
            last = done.stderr.decode(errors="replace").strip()[-2_000:]
            raise Misuse(
                f"`{target}` ended Python while it was imported (status {done.returncode}); "
                f"do no work at import time, use `@app.init`\n{last}".rstrip()
            )
        answer: dict[str, Any] = msgspec.msgpack.decode(out.read_bytes())
    if "error" in answer:
        raise Misuse(answer["error"])
    return msgspec.convert(answer["app"], AppSpec)


def _topology(apps: Sequence[AppSpec]) -> list[dict[str, str]]:
    from headrace.topology.checks import check

    return [
        {"severity": str(finding.severity), "message": finding.message} for finding in check(apps)
    ]


def _triggers(apps: Sequence[AppSpec]) -> list[dict[str, str]]:
    from headrace.triggers.checks import refusals
    from headrace.world.clock import SystemClock
    from headrace.world.entropy import SystemEntropy

    clock, entropy = SystemClock(), SystemEntropy()
    return [
        {"severity": "error", "message": sentence}
        for app in apps
        for sentence in refusals(app, clock, entropy)
    ]


def _rules(apps: Sequence[AppSpec]) -> list[dict[str, str]]:
    from headrace.services.bus.checks import check_rules

    found = []
    for app in apps:
        try:
            check_rules(app)
        except Misuse as error:
            found.append({"severity": "error", "message": str(error)})
    return found


def _unmatched(sentences: Sequence[str]) -> list[dict[str, str]]:
    return [{"severity": "error", "message": sentence} for sentence in sentences]
