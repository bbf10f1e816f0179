"""Values that authors write by hand: structs that say which of their arguments is wrong. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headrace.model.errors import Misuse
from headrace.model.former_names import renamed


class CheckedArguments(msgspec.StructMeta):
    """Turns the `TypeError` of a wrong argument into a `Misuse` that names it and those there are."""

    # A checker that saw `__call__` would take what it returns, and no longer check the arguments.
    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Make the struct."""
            try:
                return super().__call__(*args, **kwargs)
            except TypeError as error:
                raise Misuse(_explained(self, args, kwargs, error)) from None


class PolicyStruct(msgspec.Struct, metaclass=CheckedArguments, frozen=True):
    """The base of policies, triggers and other values that are written as arguments."""


def _explained(
    of: CheckedArguments, args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> str:
    names: list[str] = list(of.__struct_fields__)
    known = f"it takes {', '.join(f'`{name}`' for name in names)}" if names else "it takes nothing"
    for name in kwargs:
        if name not in names:
            from difflib import get_close_matches

            near = get_close_matches(name, names, n=1)
            hint = renamed(name, names) or (f" (did you mean `{near[0]}`?)" if near else "")
            return f"`{of.__name__}` has no `{name}`{hint}; {known}"
    if args and "positional" in str(error):
        return f"`{of.__name__}` takes fewer arguments without a name; write `name=value`: {known}"
    return f"`{of.__name__}(...)`: {error}; {known}"
