"""Loader: finds and imports the author's `App`, and computes its version.

In: a target such as `shop.py`, `shop.py:app`, `company.shop` or `company.shop:app`. Out: the `App`. An exception of
the author's module propagates unchanged; a target that does not exist is a `Misuse` that says what was tried.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from headrace.model.errors import HeadraceError, Misuse
from headrace.model.function import AppSpec
from headrace.model.near_names import near
from headrace.runtime.child import source_loader
from headrace.runtime.child.code_version import version_of, watched_by
from headrace.runtime.child.environment_variables import unset_variable
from headrace.runtime.child.file_advice import too_early
from headrace.runtime.child.source_loader import FromSource, import_from_source
from headrace.sdk.app import App

_OURS: Final = f"{Path(__file__).parents[2]}{os.sep}"


def load(target: str) -> App:
    """Import and return the app at `target`; its folder is put first on the import path.

    Raises:
        Misuse: Nothing is there, or no app, or several.
    """
    where, _, attribute = target.partition(":")
    # Before the import: the finder has to be in place when the first module is looked up.
    import_from_source(_roots(where))
    module = _module(where)
    if attribute:
        found: Any = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise Misuse(
                    f"`{where}` has nothing called `{attribute}`{near(part, vars(module))}"
                )
            found = getattr(found, part)
        if not isinstance(found, App):
            raise Misuse(f"`{target}` is a `{type(found).__name__}`, not an `App`")
        return found
    apps = {name: each for name, each in vars(module).items() if isinstance(each, App)}
    # One app may have several names, such as `app` and `application`.
    if len({id(each) for each in apps.values()}) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise Misuse(
            f'`{where}` defines no `App` at its top level; write `app = App("name")` there'
        )
    names = ", ".join(f"`{where}:{name}`" for name in apps)
    raise Misuse(f"`{where}` defines several apps; say which: {names}")


def explain(error: BaseException) -> tuple[str, str]:
    """Return a sentence and a traceback for an error of the author's import.

    The traceback shows the author's lines, without those of the platform and of the import system.
    An error of the platform needs no traceback: its sentence names the author's line.
    """
    shown = traceback.TracebackException.from_exception(error)
    theirs = _leave_theirs(shown)
    if (hint := unset_variable(error)) != "":
        return hint, "".join(shown.format())
    if not isinstance(error, HeadraceError):
        # Without a line of the author's code a traceback only repeats the sentence; a syntax error
        # has such a line.
        has_trace = (
            shown.stack or shown.__cause__ or shown.__context__ or isinstance(error, SyntaxError)
        )
        more = too_early(error)
        sentence = f"{error}; {more}" if more else str(error)
        return sentence, "".join(shown.format()) if has_trace else ""
    sentence = str(error)
    if theirs is None or theirs.filename in sentence:
        return sentence, ""
    return f"{theirs.filename}:{theirs.lineno}: {sentence}", ""


def _leave_theirs(shown: traceback.TracebackException) -> traceback.FrameSummary | None:
    """Remove all frames but the author's from a traceback; return the last one of them."""
    for cause in (shown.__cause__, shown.__context__):
        if cause is not None:
            _leave_theirs(cause)
    stack = shown.stack
    begin = 1 + max(
        (at for at, frame in enumerate(stack) if frame.filename == __file__), default=-1
    )
    while begin < len(stack) and stack[begin].filename.startswith("<frozen importlib"):
        begin += 1
    # The interpreter hides the import system's frames in the same way.
    stack[:] = [each for each in stack[begin:] if not _imports(each.filename)]
    return next((each for each in reversed(stack) if not each.filename.startswith(_OURS)), None)


def _imports(filename: str) -> bool:
    return filename == source_loader.__file__ or filename.startswith("<frozen importlib")


def described(app: App, target: str) -> tuple[AppSpec, str]:
    """Return the declarations of the app at `target` with its version, and the hash of its imported code.

    Raises:
        Misuse: A declaration is invalid, or there is more code than a version may hold.
    """
    watched = watched_by(each.spec for each in app.functions.values())
    version = version_of(_roots(target.partition(":")[0]), watched)
    return app.spec(version.shown), version.code


def _roots(where: str) -> list[Path]:
    """Locate the code of a target, without importing any of it."""
    if _is_path(where):
        return [_file(where).parent]
    top = where.partition(".")[0]
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(each).resolve() for each in spec.submodule_search_locations]
    if spec.origin is None:
        return []
    origin = Path(spec.origin).resolve()
    # Files next to a module in the current folder belong to the app; those next to an installed
    # module are other packages.
    return [origin.parent if origin.parent == Path.cwd() else origin]


def _module(where: str) -> ModuleType:
    if not _is_path(where):
        if not where:
            raise Misuse("no target was given; write a file such as `shop.py`, or a module's name")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            # A missing import inside the author's module must not read as a missing target.
            if error.name is not None and (
                where == error.name or where.startswith(error.name + ".")
            ):
                raise Misuse(
                    f"there is no module `{where}` (looked in `{Path.cwd()}` and where Python looks); "
                    "write a path such as `./shop.py`, or install the package"
                ) from error
            raise
    path = _file(where)
    name = path.stem if path.name != "__init__.py" else path.parent.name
    folder = path.parent if path.name != "__init__.py" else path.parent.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if loaded is not None:
        # An app in `json.py` must not replace a module that is already in use.
        name = f"_headrace_app_{sha256(str(path).encode()).hexdigest()[:8]}_{name}"
    loader = FromSource(name, str(path)) if path.suffix == ".py" else None
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise Misuse(f"`{path}` is not a Python file; use one that ends in `.py`")
    module = importlib.util.module_from_spec(spec)
    # Before the execution, as the import system does: dataclasses and circular imports look the
    # module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # A half-executed module would be returned as complete by the next import.
        sys.modules.pop(name, None)
        raise
    return module


def _is_path(where: str) -> bool:
    return where.endswith(".py") or "/" in where or (where != "" and Path(where).is_dir())


def _file(where: str) -> Path:
    path = Path(where).expanduser().resolve()
    if path.is_dir():
        tried = [path / name for name in ("function.py", "app.py", "main.py", "__init__.py")]
        for each in tried:
            if each.is_file():
                return each
        names = ", ".join(each.name for each in tried)
        raise Misuse(f"the folder `{path}` holds none of {names}; name the file of the app")
    if not path.is_file():
        siblings = [each.name for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise Misuse(f"there is no file `{path}`{near(path.name, siblings)}")
    return path
