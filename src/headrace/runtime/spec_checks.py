"""Checks of an app's declarations before the host uses them: they may only concern that app. Pure.

The process that imports an app runs the author's code, which can send anything to the host. In: the description.
Out: nothing, or an error. Access to other apps' streams is checked in `topology/checks`, which sees all apps.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.model.errors import Misuse
from headrace.model.function import AppSpec, FunctionSpec
from headrace.model.options import check_ranges
from headrace.model.triggers.files import Custom
from headrace.sdk.stream import check_name

MAX_FUNCTIONS = 10_000
MAX_STREAMS = 10_000
MAX_TRIGGERS = 100


def check_claims(app: AppSpec) -> None:
    """Check that the description names only its own app's parts, within bounds.

    Raises:
        Misuse: It does not; a description made by `App` always does.
    """
    place = f"app `{app.name:.80}`"
    check_name(app.name, "an app", place)
    for what, count, most in (
        ("functions", len(app.functions), MAX_FUNCTIONS),
        ("streams", len(app.streams), MAX_STREAMS),
        ("proxies", len(app.proxies), MAX_FUNCTIONS),
        ("forwards", len(app.forwards), MAX_FUNCTIONS),
    ):
        if count > most:
            raise Misuse(f"app `{app.name}` has {count:,} {what}, of {most:,} at most; split it")
    for stream in app.streams:
        check_name(stream.name, "a stream", place)
        if stream.owner != app.name:
            raise Misuse(
                f"app `{app.name}` declares stream `{stream.name}` as app `{stream.owner}`'s; an app "
                "declares its own streams only"
            )
        # Again here: the checks of `App` ran in the author's process, which can skip them.
        check_ranges(stream, f"stream `{stream.name}`")
        if stream.queue is not None:
            check_ranges(stream.queue, f"queue `{stream.name}`")
    own = [function.name for function in app.functions]
    for function in app.functions:
        _check_function(app.name, function)
    _check_own(app.name, [*own, *(forward.name for forward in app.forwards), *_called(app)])
    for names in (own, [stream.name for stream in app.streams]):
        if len(set(names)) != len(names):
            raise Misuse(f"app `{app.name}` declares a name twice; each may be there once")


def _check_function(app: str, function: FunctionSpec) -> None:
    if function.app != app:
        raise Misuse(
            f"app `{app}` declares function `{function.name}` as app `{function.app}`'s; an app "
            "declares its own functions only"
        )
    if len(function.triggers) > MAX_TRIGGERS:
        raise Misuse(
            f"`{function.name}` has {len(function.triggers):,} triggers, of {MAX_TRIGGERS} at most"
        )
    check_ranges(function, f"`{function.name}`")
    for trigger in function.triggers:
        check_ranges(trigger, f"`{function.name}`")


def _called(app: AppSpec) -> Iterable[str]:
    """Yield the functions that the host calls for the app."""
    for proxy in app.proxies:
        yield from filter(None, (proxy.before, proxy.after))
    for function in app.functions:
        yield from (each.function for each in function.triggers if isinstance(each, Custom))


def _check_own(app: str, names: Iterable[str]) -> None:
    for name in names:
        if not name.startswith(f"{app}."):
            raise Misuse(f"app `{app}` names `{name:.80}` as its own, whose name begins otherwise")
        check_name(name.removeprefix(f"{app}."), "a function", f"app `{app}`")
