"""Rules of an event bus and the targets they forward to, as an author names them.

What routes events by these rules is in the modules of this package; none is loaded by `import
headrace.bus`, so that a process that only declares a rule stays light.
"""

from headrace.model.triggers.bus import HttpTarget, Rule

__all__ = [
    "HttpTarget",
    "Rule",
]
