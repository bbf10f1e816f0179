"""In the zygote: import the app, and make the process fit to be forked.

The one place where the author's code runs in a zygote. Whatever it raises comes out as a value, and
whatever it leaves behind that no fork survives is refused.
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
"""Where the control socket is, and in an instance its channel."""
RULES = 4
"""Where landlock's rules are while an instance has yet to put itself under them."""


def load(
    request: Load, control: Control, zygote_isolation: warden.ZygoteIsolation
) -> tuple[instance_main.InstanceLoop, Loaded, isolation.SharedIsolation] | LoadFailed:
    """Import the app and make this process fit to be forked."""
    began, started_as = time.perf_counter(), fork_detection.count
    shares = zygote_isolation.rung.uids
    folders.stand(request.files, share if shares else None)
    notes = isolation.filter_zygote() if zygote_isolation.rung.drops else []
    try:
        with provided_by(lambda app, env: _ask(control, app, env, started_as)):
            app = fork_detection.guarded(lambda: loader.load(request.target))
        spec, code = loader.described(app, request.target)
        check_forkable(CONTROL)
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit too
        sentence, trace = loader.said(error)
        return LoadFailed(type(error).__name__, sentence[:MAX_TRACEBACK], trace[-MAX_TRACEBACK:])
    life = instance_main.prepare(app, spec.version, control.link)
    instance_main.rehearse()
    seconds = time.perf_counter() - began
    own = _own_files(request.files, spec.name, shared=shares)
    gc.collect()
    gc.freeze()
    asked = [min(each.resources.isolation, request.isolation) for each in spec.functions]
    base = isolation.seal_zygote(
        zygote_isolation.rung,
        common=min(asked, default=0),
        most=max(asked, default=0),
        scratch=request.scratch,
        own=own,
        paths=sys.path,
    )
    if base.rules >= 0:
        if base.rules != RULES:
            # Nothing else is open there: that was looked at above.
            os.dup2(base.rules, RULES, False)
            os.close(base.rules)
        base = msgspec.structs.replace(base, rules=RULES)
    notes = [*zygote_isolation.notes, *notes, *base.notes]
    greets = bool(app.hooks["init"])
    size, resident, weight = limits.sizes()
    loaded = Loaded(
        spec,
        size,
        base.level,
        zygote_isolation.rung.name,
        notes,
        seconds,
        resident,
        weight,
        greets,
        code,
        shares,
    )
    return life, loaded, base


def _own_files(files: str, app: str, *, shared: bool) -> str:
    """Return the folder in which the app's instances may write, created if the zygote is allowed to."""
    if shared:
        # Whose folder it is, its group says; the host gives it one once it knows the app's name.
        os.umask(UMASK)
        return files
    own = f"{files}/{app}"
    os.makedirs(own, isolation.OWN_MODE, exist_ok=True)  # noqa: PTH103 - a string is what there is
    return own


def _ask(control: Control, app: str, env: Environment, started_as: int) -> Provision:
    """Have the host say what an app is given, and set its variables."""
    if fork_detection.count != started_as:
        # A process that the import forked: the control socket is not its own.
        return Provision()
    own, names = (env, []) if isinstance(env, Mapping) else ({}, list(env))
    control.say(Needs(app, names))
    while True:
        for answer in control.receive():
            if isinstance(answer, Provided):
                set_variables({**answer.provision.variables, **own})
                return answer.provision
