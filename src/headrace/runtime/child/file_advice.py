"""Advice after a file error: a sentence added to the author's own error.

In: an exception. Out: a sentence, "" if there is no advice. Called for failures only.
"""

from __future__ import annotations

import errno
import os
import sys

from headrace.sdk.app_folder import folders

_CANNOT_OPEN, _READ_ONLY = 14, 8
"""SQLite's result codes CANTOPEN and READONLY."""


def advice(error: BaseException) -> str:
    """Return advice about a file that was refused or not found in a run; never raises."""
    try:
        return _in_a_run(error)
    except Exception:  # noqa: BLE001 - the author's exception may do anything, and ours must not hide it
        return ""


def too_early(error: BaseException) -> str:
    """Return advice if the app's own folder was read while its code was imported."""
    path, number = _path_of(error)
    if (number in (errno.EACCES, errno.ENOENT) and _app_of(path)) or (
        folders.used and _sqlite_code(error) in (_CANNOT_OPEN, _READ_ONLY)
    ):
        return (
            "the app's folder is open to the hooks of `@app.init` and to handlers, not while the code "
            "is imported; open its files in a function below `@app.init`"
        )
    return ""


def _in_a_run(error: BaseException) -> str:
    scratch = os.getcwd()  # noqa: PTH109 - a string is what there is
    where = (
        "an instance may write to its app's folder (`app.folder`, which is kept) and to its scratch "
        f"folder (`{scratch}`, which goes with it), and read what every user may"
    )
    path, number = _path_of(error)
    if number == errno.ENOENT and path and not os.path.isabs(path):  # noqa: PTH117 - as above
        return (
            f"a relative path begins in the folder the instance runs in, `{scratch}`: write "
            f"`Path(__file__).parent / {path!r}` for a file next to the code, `app.folder / {path!r}` "
            "for one that is kept"
        )
    if number in (errno.EACCES, errno.EROFS) and path:
        if not (app := _app_of(path)):
            return where
        if number == errno.EROFS:
            return (
                f"the folder of app `{app}` lies on a file system that is mounted read-only; name a "
                "data folder that can be written with `--data`"
            )
        return (
            f"the folder of app `{app}` is open to its own instances alone, and what one of them makes "
            "with a mode of its own is closed to the others; give their group its rights (`chmod g+rw`)"
        )
    if _sqlite_code(error) in (_CANNOT_OPEN, _READ_ONLY):
        return f"{where}; keep a database in `app.folder`"
    return ""


def _path_of(error: BaseException) -> tuple[str, int]:
    """Return the file and the number of an `OSError`; "" and 0 for other errors."""
    if not isinstance(error, OSError) or not isinstance(error.filename, (str, bytes, os.PathLike)):
        return "", 0
    return os.fsdecode(error.filename), error.errno or 0


def _app_of(path: str) -> str:
    """Return the app whose folder contains the path; "" if this process asked for no such folder."""
    whole = os.path.abspath(path)  # noqa: PTH100 - as above
    for app, folder in folders.used.items():
        if whole == str(folder) or whole.startswith(f"{folder}{os.sep}"):
            return app
    return ""


def _sqlite_code(error: BaseException) -> int:
    # Not imported here: if the app has not imported it, the error is not one of SQLite's.
    sqlite = sys.modules.get("sqlite3")
    if sqlite is None or not isinstance(error, sqlite.OperationalError):
        return 0
    # The low byte is the primary code; extended codes say more in the others.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
