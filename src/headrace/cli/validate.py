"""`headrace validate`: an app and its settings are checked without running a function.

The code is imported as a node imports it, by a sandboxed zygote, so that what it does on import
does not happen here. Where there are no zygotes (macOS), a plain process of its own imports it.
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
from headrace.model.settings import ImportEnvironment
from headrace.runtime.import_environment import environment_for_import, search_paths
from headrace.security.secrets import Secrets

LOAD_S = 60
_HAS_ZYGOTES = sys.platform == "linux"
_HOME = str(Path(__file__).parents[2])
_INSPECT = """
import os, sys
os.environ.pop("LD_BIND_NOW", None)
try:
    import headrace
except ImportError:
    sys.path.append(sys.argv[3])
import msgspec
from collections.abc import Mapping
from headrace.model.errors import HeadraceError
from headrace.model.settings import ImportEnvironment
from headrace.runtime.child.loader import described, load, explain
from headrace.runtime.child.environment_variables import set_variables
from headrace.sdk.provided_values import provided_by
sys.path[:0] = sys.argv[4:]
import_environment = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ImportEnvironment)
def provide(app, env):
    own, names = (env, ()) if isinstance(env, Mapping) else ({}, env)
    provision = import_environment.of(app, names)
    set_variables({**provision.variables, **own})
    return provision
try:
    with provided_by(provide):
        app = load(sys.argv[1])
    answer = {"app": msgspec.to_builtins(described(app, sys.argv[1])[0])}
except BaseException as error:
    sentence, trace = explain(error)
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
@click.option(
    "--set",
    "chosen",
    multiple=True,
    metavar="APP.NAME=VALUE",
    help="Give a setting of an app a value; may be repeated.",
)
@json_option
def validate_command(
    targets: tuple[str, ...], config: Path | None, chosen: tuple[str, ...], as_json: bool
) -> int:
    """Check TARGETS (`app.py`, a folder, `package.module:app`), their topology and settings."""
    from headrace.node.config import load, secrets_of, surroundings_of
    from headrace.topology.map import secret_notes, setting_notes, store_notes
    from headrace.topology.missing_settings import needed_secrets

    settings = load({"targets": targets or None}, file=config, chosen=chosen)
    if not settings.targets:
        raise Misuse(
            "no app is named; write `headrace validate app.py`, or set `targets` in headrace.toml"
        )
    import_environment = surroundings_of(settings)
    apps = [settings.apply(inspect(target, import_environment)) for target in settings.targets]
    findings = [
        *_needs(apps, secrets_of(settings)),
        *_unreadable(settings.targets),
        *_topology(apps),
        *_triggers(apps),
        *_folders(apps),
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
        secrets = secret_notes(needed_secrets([app]))
        for note in (*store_notes([app]), *setting_notes([app]), *secrets):
            click.echo(note)
    for finding in findings:
        click.echo(f"{finding['severity']}: {finding['message']}")
    if not findings:
        click.echo("nothing to object to")
    return int(wrong)


def inspect(target: str, import_environment: ImportEnvironment) -> AppSpec:
    """Read what the code at `target` declares, in a process of its own, in a node's environment.

    Raises:
        Misuse: It cannot be loaded; the message has the author's part of the traceback.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        if _HAS_ZYGOTES:
            import asyncio

            from headrace.runtime import inspection

            return asyncio.run(inspection.inspect(target, import_environment, Path(folder)))
        return _inspect_unwalled(target, import_environment, Path(folder))


def _inspect_unwalled(target: str, import_environment: ImportEnvironment, folder: Path) -> AppSpec:
    paths = [str(path) for path in search_paths(target)]
    out = folder / "app"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _INSPECT, target, str(out), _HOME, *paths],
            input=msgspec.msgpack.encode(import_environment),
            env=environment_for_import(),
            capture_output=True,
            timeout=LOAD_S,
            check=False,
        )
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


def _unreadable(targets: Sequence[str]) -> list[dict[str, str]]:
    if not _HAS_ZYGOTES:
        return []
    from headrace.runtime.inspection import unreadable

    found = dict.fromkeys(sentence for target in targets for sentence in unreadable(target))
    return [{"severity": "warning", "message": sentence} for sentence in found]


def _needs(apps: Sequence[AppSpec], secrets: Secrets) -> list[dict[str, str]]:
    from headrace.topology.missing_settings import missing_settings, needed_secrets

    missing = [*missing_settings(apps), *secrets.missing(needed_secrets(apps))]
    return [{"severity": "error", "message": sentence} for sentence in missing]


def _topology(apps: Sequence[AppSpec]) -> list[dict[str, str]]:
    from headrace.topology.checks import check

    return [
        {"severity": str(finding.severity), "message": finding.message} for finding in check(apps)
    ]


def _triggers(apps: Sequence[AppSpec]) -> list[dict[str, str]]:
    from headrace.environment.clock import SystemClock
    from headrace.environment.randomness import SystemEntropy
    from headrace.sources.trigger_checks import refusals

    clock, entropy = SystemClock(), SystemEntropy()
    return [
        {"severity": "error", "message": sentence}
        for app in apps
        for sentence in refusals(app, clock, entropy)
    ]


def _folders(apps: Sequence[AppSpec]) -> list[dict[str, str]]:
    from headrace.sources.trigger_checks import missing_folders

    return [
        {"severity": "warning", "message": sentence}
        for app in apps
        for sentence in missing_folders(app)
    ]


def _rules(apps: Sequence[AppSpec]) -> list[dict[str, str]]:
    from headrace.bus.rule_checks import check_rules

    found = []
    for app in apps:
        try:
            check_rules(app)
        except Misuse as error:
            found.append({"severity": "error", "message": str(error)})
    return found


def _unmatched(sentences: Sequence[str]) -> list[dict[str, str]]:
    return [{"severity": "error", "message": sentence} for sentence in sentences]
