"""Values that an app is given where it is imported: its settings, variables of the node.

In a node's process that imports an app, the host is asked; anywhere else (a test, a shell) nothing
gives anything, and settings have their defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from headrace.model.errors import Misuse
from headrace.model.settings import OWN_PREFIX, Provision

Environment = Sequence[str] | Mapping[str, str]
"""Names and patterns of variables to be passed on, or variables with their values."""
Provider = Callable[[str, Environment], Provision]
"""Sets an app's variables, and says which values its settings have."""


def _nobody(_app: str, _env: Environment) -> Provision:
    return Provision()


_provider: Provider = _nobody


def provision_of(app: str, env: Environment) -> Provision:
    """Have the variables of `env` set, if there is a host, and read what settings were given."""
    return _provider(app, env)


@contextmanager
def provided_by(provider: Provider) -> Iterator[None]:
    """Meanwhile apps that are made are given what `provider` gives."""
    global _provider
    before, _provider = _provider, provider
    try:
        yield
    finally:
        _provider = before


def check_env(env: object, where: str) -> Environment:
    """`env`, where it can be passed on.

    Raises:
        Misuse: It is not a list of names and no dictionary of texts, or names the node's own variables.
    """
    known = isinstance(env, (list, tuple, set, frozenset, Mapping))
    if not known or not all(isinstance(name, str) and name for name in env):  # type: ignore[attr-defined]  # looked at above
        raise Misuse(
            f'{where}: `env={env!r}` names no variables; write `env=["TZ", "AWS_*"]` to pass on those of '
            'the node, or `env={"TZ": "UTC"}` to set them'
        )
    if isinstance(env, Mapping):
        if all(isinstance(text, str) for text in env.values()):
            return dict(env)
        raise Misuse(f"{where}: `env={env!r}` holds a value that is not a text; write it in quotes")
    for name in env:  # type: ignore[attr-defined]  # looked at above
        if name.startswith(OWN_PREFIX):
            raise Misuse(
                f"{where}: `env=` names `{name}`, but variables that begin with `{OWN_PREFIX}` are the "
                "node's own; declare a `setting` or `secrets=` in the app"
            )
    return tuple(sorted(env))  # type: ignore[call-overload]  # looked at above
