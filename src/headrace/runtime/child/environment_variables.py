"""Environment variables in the author's process: sets them, and explains a missing one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

_LOOKUP: Final = type(os.environ).__getitem__.__code__


def set_variables(variables: Mapping[str, str]) -> None:
    """Set the variables for this process and those that are forked from it."""
    os.environ.update(variables)
    if "TZ" in variables:
        # The C library reads `TZ` once; without this call local times keep the node's zone.
        time.tzset()


def unset_variable(error: BaseException) -> str:
    """Return advice if the error is a variable missing from `os.environ`; "" for any other error."""
    trace = error.__traceback__
    if not isinstance(error, KeyError) or trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    # By the code that raised it: a `KeyError` of any other dictionary must keep its own text.
    if trace.tb_frame.f_code is not _LOOKUP:
        return ""
    name = error.args[0] if error.args else ""
    return (
        f"`os.environ` has no `{name}`: of the node's environment an app sees only what the node has and "
        f'`App(..., env=["{name}"])` names; write that, set it with `env={{"{name}": "..."}}`, or declare '
        f'`app.setting("{name}", str)`'
    )
