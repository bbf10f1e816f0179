"""Conflicts between routes: no two may match the same requests. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.model.errors import Misuse
from headrace.model.function import FunctionSpec
from headrace.model.route import segments_of, shape_of
from headrace.model.triggers.http import Http, Proxy, Webhook


def check_routes(functions: Sequence[FunctionSpec], proxies: Sequence[Proxy]) -> None:
    """Pass, where no two routes fit the same requests.

    Raises:
        Misuse: Two do; the message names both.
    """
    taken: dict[tuple[str, tuple[str, ...]], str] = {}
    routes: list[tuple[tuple[str, ...], str, str]] = [
        (trigger.methods, trigger.path, f"`{function.name}`")
        for function in functions
        for trigger in function.triggers
        if isinstance(trigger, (Http, Webhook))
    ]
    routes += [(proxy.methods, proxy.path, f"the proxy of `{proxy.path}`") for proxy in proxies]
    for methods, path, owner in routes:
        shape = shape_of(segments_of(path, path))
        for method in methods:
            other = taken.setdefault((method, shape), owner)
            if other is not owner:
                raise Misuse(
                    f"{owner} and {other} both answer `{method} {path}`; give one another path"
                )
