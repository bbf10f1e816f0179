"""Settings of a node: `headrace.toml`, the environment and the command line become `Settings`.

The only module of a node that reads settings files and environment variables. Later sources win: defaults,
`headrace.toml`, its `[env.NAME]` section, `HEADRACE_*` variables, the command line. Everything a
decorator says about a function or a stream can be overridden by name. An unknown key, a value of
the wrong type and a policy that cannot hold are refused with file, line and fix.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.client.address import DEFAULT_PORT
from headrace.environment.failpoints import LABELS
from headrace.model.durations import Seconds, seconds_in
from headrace.model.errors import Misuse
from headrace.model.function import AppSpec, FunctionSpec, StreamSpec
from headrace.model.policy import MAX_KEPT_S, FleetLimits
from headrace.model.policy_struct import default
from headrace.model.settings import (
    APP_PREFIX,
    ImportEnvironment,
    SettingValue,
    passed_on,
    variable_form,
)
from headrace.model.sizes import MAX_SIZE, Bytes, bytes_in
from headrace.model.webhook_signature import Secret
from headrace.node.overrides import Override, apply_overrides, checked
from headrace.node.settings_file import SettingsFile, choices, nearest
from headrace.security.access import Access
from headrace.security.secrets import PREFIX as SECRET_PREFIX
from headrace.security.secrets import Secrets

FILE_NAME = "headrace.toml"
_SECTIONS = ("node", "functions", "streams", "apps", "secrets", "env")
_ELSEWHERE = {"URL", "TOKEN", "CONFIG", "ENV"}
_OF_A_SERVICE = re.compile(
    r"HEADRACE_(\w+_)?("
    r"SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a node needs to know before it starts.

    Attributes:
        targets: Apps to run, each `path/to/file.py`, a folder holding `app.py`, or `module:app`.
        data: The folder that holds the log, the state and `node.json`.
        host: The address the HTTP server listens on; loopback unless asked otherwise.
        port: Its port; 0 takes a free one, which `node.json` then names.
        api_port: A port of its own for the platform's paths (`/-/`, the console, metrics), which `port` then
            does not serve; None serves everything at `port`.
        tls_certificate: The PEM file with the certificate (and its chain) that the HTTP server shows; with
            it and `tls_key` the server speaks https, and shows a renewed one within half a minute.
        tls_key: The PEM file with the certificate's private key.
        allowed_hosts: Host names that the node accepts besides its own; `*` answers to all.
        reload: Load the apps again when their files change.
        drain: How long requests and running invocations have to end when the node stops.
        max_body_bytes: The largest request body.
        max_requests: Requests worked on at once; more are answered 429.
        max_connections: Open connections; more are closed at once.
        max_connections_per_client: Those of one address (IPv6: of one /64); 0 is half of `max_connections`.
        max_instances: Instances of functions at once; beyond, idle ones go, and then runs wait.
        max_memory: Bytes that all instances and zygotes may use; 0 is three quarters of what the machine
            or its cgroup has.
        zygote_forks: Forks after which a zygote is replaced by a fresh one.
        zygote_age: After which time it is.
        log_level: `debug`, `info`, `warning` or `error`.
        access: Clients that may publish, call, work on queues and read without a token: `open` all,
            `local` those on this machine, `token` none. Without a setting, `dev` takes `local`.
        secrets_folder: A folder whose files bear secrets' names, and hold their values.
        check_answers: Hold what functions answer at routes against what these declare; an answer that is
            not of its type is then 500. `dev` always does.
        failpoint: For fault campaigns: `label:passes` kills the node at that pass of that label.
        functions: Overrides of functions, in order of precedence.
        streams: Overrides of streams, in order of precedence.
        apps: Values of the settings that apps declare, in order of precedence.
        secrets: Where each secret is kept, by name: `file:/path` or `env:VARIABLE`.
        source: The settings file, or "".
        environment: The name of the `[env.NAME]` section in force, or "".
        options: What the command line said of the node.
        chosen: What it said of apps' settings.
    """

    targets: tuple[str, ...] = ()
    data: Path = Path(".headrace")
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_port: int | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    reload: bool = False
    drain: Seconds = default(10.0)
    max_body_bytes: Bytes = default(8 << 20)
    max_requests: int = 512
    max_connections: int = 1_024
    max_connections_per_client: int = 0
    max_instances: int = FleetLimits().instances
    max_memory: Bytes = default(FleetLimits().memory)
    zygote_forks: int = FleetLimits().zygote_forks
    zygote_age: Seconds = default(FleetLimits().zygote_age)
    log_level: str = "info"
    access: Access = "token"
    secrets_folder: Path | None = None
    check_answers: bool = False
    failpoint: str = ""
    functions: tuple[Override, ...] = ()
    streams: tuple[Override, ...] = ()
    apps: tuple[SettingValue, ...] = ()
    secrets: dict[str, str] = {}
    source: str = ""
    environment: str = ""
    options: dict[str, Any] = {}
    chosen: tuple[str, ...] = ()

    @property
    def fleet(self) -> FleetLimits:
        """Return the limits for all functions together.

        Raises:
            Misuse: One of the limits cannot hold.
        """
        return FleetLimits(
            instances=self.max_instances,
            memory=self.max_memory,
            zygote_forks=self.zygote_forks,
            zygote_age=self.zygote_age,
        )

    def apply(self, app: AppSpec) -> AppSpec:
        """The app as its author declared it, with this node's overrides on top.

        Raises:
            Misuse: An override cannot hold together with what the author declared.
        """
        if not self.functions and not self.streams:
            return app
        return msgspec.structs.replace(
            app,
            functions=tuple(apply_overrides(spec, self.functions) for spec in app.functions),
            streams=tuple(apply_overrides(spec, self.streams) for spec in app.streams),
        )

    def unmatched(self, apps: Iterable[AppSpec]) -> list[str]:
        """Return a sentence for each override of a function or stream that is not deployed, with its place."""
        known = list(apps)
        functions = [spec.name for app in known for spec in app.functions]
        streams = [spec.name for app in known for spec in app.streams]
        settings = [f"{app.name}.{spec.name}" for app in known for spec in app.settings]
        return [
            f"{given.where}: no app declares a setting `{given.name}`"
            f"{nearest(given.name, (variable_form(name) if given.from_text and '.' not in given.name else name for name in settings))}"
            for given in self.apps
            if not any(given.matches(name) for name in settings)
        ] + [
            f"{override.where}: no {kind} is called `{override.name}`{nearest(override.name, names)}"
            for kind, names, overrides in (
                ("function", functions, self.functions),
                ("stream", streams, self.streams),
            )
            for override in overrides
            if not any(override.matches(name) for name in names)
        ]


_TABLES = {"functions", "streams", "apps", "secrets", "source", "environment", "options", "chosen"}
NODE_KEYS = tuple(name for name in Settings.__struct_fields__ if name not in _TABLES)


def load(
    options: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    chosen: Sequence[str] = (),
    usual: Mapping[str, Any] | None = None,
) -> Settings:
    """Read every source and make one value of them.

    Args:
        options: What the command line said; None values were not said.
        file: The settings file; else `HEADRACE_CONFIG`, else `headrace.toml` in `folder` if there.
        environ: The environment; the process's own by default.
        folder: Where to look for `headrace.toml`; the working folder by default.
        chosen: Settings of apps as the command line said them, each `shop.RATE=2`.
        usual: The command's own defaults; every source goes before them.

    Raises:
        Misuse: A source is unreadable or holds something that cannot be; the message names the
            file and line (or the variable), the cause and the fix.
    """
    environ = os.environ if environ is None else environ
    source = _find_file(file, environ, folder or Path())
    environment = environ.get("HEADRACE_ENV", "")
    values: dict[str, Any] = dict(usual or {})
    functions: list[Override] = []
    streams: list[Override] = []
    apps: list[SettingValue] = []
    if source is not None:
        _from_file(source, environment, values, functions, streams, apps)
    elif environment:
        raise Misuse(
            f"`HEADRACE_ENV={environment}` chooses a section of `{FILE_NAME}`, and there is no such "
            "file here; write one, name one with `--config`, or unset the variable"
        )
    _from_environment(environ, values, functions, streams, apps)
    apps += [_chosen(text) for text in chosen]
    for name, value in (options or {}).items():
        if value is not None:
            values[name] = _typed(name, value, f"`--{name.replace('_', '-')}`", lax=False)
    settings = Settings(
        **values,
        functions=tuple(functions),
        streams=tuple(streams),
        apps=tuple(apps),
        source=str(source.path) if source else "",
        environment=environment,
        options=dict(options or {}),
        chosen=tuple(chosen),
    )
    _check_ranges(settings)
    return settings


def reread(settings: Settings) -> Settings:
    """The settings as their sources say them now.

    Raises:
        Misuse: As `load`.
    """
    file = Path(settings.source) if settings.source else None
    return load(settings.options, file=file, chosen=settings.chosen)


def secrets_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Secrets:
    """The node's secrets, read where the settings say they are kept."""
    environ = os.environ if environ is None else environ
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    folders = [Path(credentials)] if credentials else []
    if settings.secrets_folder is not None:
        folders.append(settings.secrets_folder)
    return Secrets(settings.secrets, environ, folders)


def surroundings_of(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> ImportEnvironment:
    """Return the values for apps: their settings, and the environment without the node's own variables.

    Variables that hold secrets are never handed out with it, whatever an app names.
    """
    environ = os.environ if environ is None else environ
    hidden = [
        place.removeprefix("env:")
        for place in settings.secrets.values()
        if place.startswith("env:")
    ]
    return ImportEnvironment(list(settings.apps), passed_on(environ, hidden))


def service_manager(environ: Mapping[str, str] | None = None) -> str:
    """The address of the socket on which a service manager wants to hear of this process, or ""."""
    return (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")


def refuses_color(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether the environment asks for output without colour (`NO_COLOR`, or a terminal without)."""
    environ = os.environ if environ is None else environ
    return bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"


def environment_of(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for another node: without this process's own settings, with `more`."""
    ours = {name: text for name, text in os.environ.items() if "HEADRACE" not in name}
    return {**ours, **more}


def _find_file(file: Path | None, environ: Mapping[str, str], folder: Path) -> SettingsFile | None:
    chosen = file or (Path(environ["HEADRACE_CONFIG"]) if "HEADRACE_CONFIG" in environ else None)
    if chosen is not None:
        return SettingsFile.read(chosen)
    default = folder / FILE_NAME
    return SettingsFile.read(default) if default.is_file() else None


def _from_file(
    source: SettingsFile,
    environment: str,
    values: dict[str, Any],
    functions: list[Override],
    streams: list[Override],
    apps: list[SettingValue],
) -> None:
    source.only_keys((), _SECTIONS)
    source.only_keys(("env",), source.table("env"))
    layers: list[tuple[str, ...]] = [()]
    if environment:
        sections = source.table("env")
        if environment not in sections:
            raise Misuse(
                f"{source.path}: there is no section `[env.{environment}]`"
                f"{nearest(environment, sections)}; add it or change `HEADRACE_ENV`"
            )
        layers.append(("env", environment))
    for name in source.table("env"):
        source.only_keys(("env", name), _SECTIONS[:-1])
    for layer in layers:
        node = (*layer, "node")
        source.only_keys(node, NODE_KEYS)
        for key, value in source.table(*node).items():
            values[key] = _typed(key, value, source.where(*node, key), lax=False)
        for name, reference in source.table(*layer, "secrets").items():
            _check_secret(name, reference, source.where(*layer, "secrets", name))
            values.setdefault("secrets", {})[name] = reference
        for app in source.table(*layer, "apps"):
            source.only_keys((*layer, "apps", app), ("settings",))
            path = (*layer, "apps", app, "settings")
            apps += [
                SettingValue(f"{app}.{name}", value, source.where(*path, name))
                for name, value in source.table(*path).items()
            ]
        for kind, into, like in (
            ("functions", functions, FunctionSpec),
            ("streams", streams, StreamSpec),
        ):
            for name in source.table(*layer, kind):
                path = (*layer, kind, name)
                into.append(
                    checked(
                        like, name, source.table(*path), lambda *key, p=path: source.where(*p, *key)
                    )
                )


def _from_environment(
    environ: Mapping[str, str],
    values: dict[str, Any],
    functions: list[Override],
    streams: list[Override],
    apps: list[SettingValue],
) -> None:
    for variable in sorted(environ):
        if not variable.startswith("HEADRACE_") or variable.startswith(SECRET_PREFIX):
            continue
        name, *path = variable.removeprefix("HEADRACE_").split("__")
        text = environ[variable]
        if _is_of_a_service(variable, text):
            continue
        if variable.startswith(APP_PREFIX):
            apps.append(
                SettingValue(variable.removeprefix(APP_PREFIX), text, f"`{variable}`", True)
            )
            continue
        if name in _ELSEWHERE and not path:
            continue
        if name in {"FUNCTIONS", "STREAMS"} and len(path) >= 2:
            like, into = (FunctionSpec, functions) if name == "FUNCTIONS" else (StreamSpec, streams)
            value: Any = text
            for key in reversed(path[1:]):
                value = {key.lower(): value}
            into.append(
                checked(like, path[0], value, lambda *_, v=variable: f"`{v}`", from_text=True)
            )
            continue
        key = name.lower()
        if path or key not in NODE_KEYS:
            raise Misuse(
                f"`{variable}` is not a setting{nearest(key, NODE_KEYS, 'HEADRACE_', str.upper)}; "
                "unset it or correct its name (docs/reference/settings.md lists all)"
            )
        values[key] = _typed(key, text, f"`{variable}`", lax=True)


def _chosen(text: str) -> SettingValue:
    """Parse the values of `--set`.

    Raises:
        Misuse: It is not `app.NAME=value`.
    """
    name, equals, value = text.partition("=")
    if not equals or not all(name.rpartition(".")):
        raise Misuse(f"`--set {text}` sets nothing; write `--set shop.RATE=2`")
    return SettingValue(name, value, f"`--set {text}`", True)


def _is_of_a_service(variable: str, text: str) -> bool:
    """Return whether Kubernetes made the variable up for a Service whose name begins with `headrace`.

    It gives every container the addresses of the Services of its namespace, as
    `HEADRACE_PORT=tcp://10.0.0.1:4280` and `HEADRACE_SERVICE_HOST=10.0.0.1`.
    """
    if _OF_A_SERVICE.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and _SERVICE_URL.match(text) is not None


def _check_secret(name: str, reference: object, where: str) -> None:
    try:
        Secret(name)
    except Misuse as error:
        raise Misuse(
            f"{where}: `{name}` is not a secret's name; use capitals such as `GITHUB_HOOK`"
        ) from error
    kind, _, place = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if kind not in {"file", "env"} or not place:
        raise Misuse(
            f"{where}: `{name}` must say where the secret is kept, not what it is: write "
            '`"file:/run/secrets/name"` or `"env:VARIABLE"`'
        )


_DURATIONS = {"drain": (0, 3_600), "zygote_age": (1, MAX_KEPT_S)}
_SIZES = {"max_body_bytes": (1_024, 64 << 20), "max_memory": (0, MAX_SIZE)}
_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def _typed(name: str, value: Any, where: str, *, lax: bool) -> Any:
    wanted = _FIELDS[name].type
    if lax and name in {"targets", "allowed_hosts"}:
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Path):
        return value
    if name in _DURATIONS:
        low, high = _DURATIONS[name]
        return seconds_in(value, f"{where}: `{name}`", low=low, high=high)
    if name in _SIZES:
        least, most = _SIZES[name]
        return bytes_in(value, f"{where}: `{name}`", low=least, high=most)
    try:
        return msgspec.convert(value, wanted, strict=not lax, dec_hook=_path_of)
    except msgspec.ValidationError as error:
        reason = choices(wanted, value) or str(error)[:1].lower() + str(error)[1:]
        raise Misuse(f"{where}: `{name} = {value!r}` cannot be: {reason}") from error


def _path_of(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str) and value:
        return Path(value)
    raise msgspec.ValidationError(f"Expected a path, got `{type(value).__name__}`")


def _check_ranges(settings: Settings) -> None:
    label, _, passes = settings.failpoint.rpartition(":")
    for holds, what, fix in (
        (
            not settings.failpoint or (label in LABELS and passes.isdigit() and int(passes) > 0),
            f"failpoint = {settings.failpoint}",
            f"use `label:passes`, where the label is one of {', '.join(LABELS)}",
        ),
        (0 <= settings.port <= 65_535, f"port = {settings.port}", "use 0 (any free one) to 65535"),
        (
            settings.api_port is None or 0 <= settings.api_port <= 65_535,
            f"api_port = {settings.api_port}",
            "use 0 (any free one) to 65535",
        ),
        (
            not settings.api_port or settings.api_port != settings.port,
            f"api_port = {settings.api_port}",
            "choose another than `port`, or leave it out to serve everything there",
        ),
        (
            (settings.tls_certificate is None) == (settings.tls_key is None),
            f"{'tls_key' if settings.tls_key is None else 'tls_certificate'} = none",
            "name both files, `tls_certificate` and `tls_key`, or neither",
        ),
        (settings.max_requests >= 1, f"max_requests = {settings.max_requests}", "use 1 or more"),
        (
            settings.max_connections >= 1,
            f"max_connections = {settings.max_connections}",
            "use 1 or more",
        ),
        (
            settings.max_connections_per_client >= 0,
            f"max_connections_per_client = {settings.max_connections_per_client}",
            "use 1 or more, or 0 for half of `max_connections`",
        ),
        (
            settings.log_level in {"debug", "info", "warning", "error"},
            f"log_level = {settings.log_level}",
            "use debug, info, warning or error",
        ),
    ):
        if not holds:
            raise Misuse(f"the setting `{what}` cannot be; {fix}")
    # Refuses what cannot hold by itself.
    _ = settings.fleet
