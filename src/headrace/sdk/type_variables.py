"""Type variables of the public classes.

A class without its argument means one of anything (PEP 696): a bare `Batch` is a `Batch[Any]`, also
under strict checking. Python before 3.13 has no such default at run time, and needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
    P = TypeVar("P", default=dict[str, Any])
else:
    from typing import TypeVar

    T = TypeVar("T")
    P = TypeVar("P")

__all__ = ["P", "T"]
