"""Import of the app in the zygote, and preparation of the process for forks.

The author's code runs only here in a zygote. An exception is returned as a value; threads and
descriptors that would not survive a fork are refused.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping

import msgspec

from headrace.model.policy import MAX_TRACEBACK
from headrace.model.settings import Provision
from headrace.runtime.child import fork_detection, instance_main, loader
from headrace.runtime.child.environment_variables import set_variables
from headrace.runtime.child.fork_checks import check_forkable
from headrace.runtime.child.shared_files import UMASK, share
from headrace.runtime.child.zygote_control import Control
from headrace.runtime.protocol.messages import Load, Loaded, LoadFailed, Needs, Provided
from headrace.runtime.sandbox import isolation, limits, warden
from headrace.sdk.app_folder import folders
from headrace.sdk.provided_values import Environment, provided_by

CONTROL = 3
"""The descriptor of the control socket, and in an instance of its channel."""
RULES = 4
"""The descriptor of the landlock rules until an instance has applied them."""


def load(
    request: Load, control: Control, zygote_isolation: warden.ZygoteIsolation
) -> tuple[instance_main.InstanceLoop, Loaded, isolation.SharedIsolation] | LoadFailed:
    """Import the app and prepare this process for forks."""
    began, started_as = time.perf_counter(), fork_detection.count
    shares = zygote_isolation.step.uids
    folders.stand(request.files, share if shares else None)
    # Before the import: from here on even the author's code at module level is filtered.
    notes = isolation.filter_zygote() if zygote_isolation.step.drops_rights else []
    try:
        # Settings can be requested during the import only: the host does not know the app's name
        # before.
        with provided_by(lambda app, env: _ask(control, app, env, started_as)):
            app = fork_detection.guarded(lambda: loader.load(request.target))
        spec, code = loader.described(app, request.target)
        # Inside the `try`, so that a thread or socket is reported as an error of the author's
        # import.
        check_forkable(CONTROL)
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit too
        sentence, trace = loader.explain(error)
        return LoadFailed(type(error).__name__, sentence[:MAX_TRACEBACK], trace[-MAX_TRACEBACK:])
    loop = instance_main.prepare(app, spec.version, control.link)
    # Before `gc.freeze`, so that the objects it leaves are frozen too.
    instance_main.rehearse()
    seconds = time.perf_counter() - began
    own = _own_files(request.files, spec.name, shared=shares)
    # Collect first: garbage that is frozen stays for the zygote's lifetime. Frozen objects are not
    # touched by a child's collections, which would copy their pages (17 MB for pandas, 1.4 MB so).
    gc.collect()
    gc.freeze()
    asked = [min(each.resources.isolation, request.isolation) for each in spec.functions]
    # After the import, since landlock cannot be widened and the import may read any path of the
    # machine.
    base = isolation.seal_zygote(
        zygote_isolation.step,
        common=min(asked, default=0),
        most=max(asked, default=0),
        scratch=request.scratch,
        own=own,
        paths=sys.path,
    )
    if base.rules >= 0:
        if base.rules != RULES:
            # `check_forkable` has shown that this descriptor is free.
            os.dup2(base.rules, RULES, False)
            os.close(base.rules)
        base = msgspec.structs.replace(base, rules=RULES)
    notes = [*zygote_isolation.notes, *notes, *base.notes]
    sends_hello = bool(app.hooks["init"])
    size, resident, weight = limits.sizes()
    loaded = Loaded(
        spec,
        size,
        base.level,
        zygote_isolation.step.name,
        notes,
        seconds,
        resident,
        weight,
        sends_hello,
        code,
        shares,
    )
    return loop, loaded, base


def _own_files(files: str, app: str, *, shared: bool) -> str:
    """Return the folder in which the app's instances may write, created if the zygote is allowed to."""
    if shared:
        # Access is by group; the host sets the folder's group once it knows the app's name.
        os.umask(UMASK)
        return files
    own = f"{files}/{app}"
    os.makedirs(own, isolation.OWN_MODE, exist_ok=True)  # noqa: PTH103 - a string is what there is
    return own


def _ask(control: Control, app: str, env: Environment, started_as: int) -> Provision:
    """Request the app's settings and variables from the host, and set its variables."""
    if fork_detection.count != started_as:
        # In a process that the import forked: its request would take the answer away from the
        # zygote.
        return Provision()
    own, names = (env, []) if isinstance(env, Mapping) else ({}, list(env))
    control.send(Needs(app, names))
    while True:
        for answer in control.receive():
            if isinstance(answer, Provided):
                set_variables({**answer.provision.variables, **own})
                return answer.provision
