"""Every error of the platform that an author's code can meet, as one family.

All derive from `HeadraceError`. Each says in its docstring when it is raised and who must act.
"""

from headrace.model.errors import (
    Conflict,
    Corrupt,
    DiskFull,
    Fenced,
    HeadraceError,
    Invalid,
    Locked,
    Misuse,
    Overloaded,
    Refused,
    TooLarge,
    Unavailable,
    Unknown,
)
from headrace.model.problem import Problem
from headrace.sdk.event import Undecodable
from headrace.sdk.results import Permanent

__all__ = [
    "Conflict",
    "Corrupt",
    "DiskFull",
    "Fenced",
    "HeadraceError",
    "Invalid",
    "Locked",
    "Misuse",
    "Overloaded",
    "Permanent",
    "Problem",
    "Refused",
    "TooLarge",
    "Unavailable",
    "Undecodable",
    "Unknown",
]
