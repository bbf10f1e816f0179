"""Which idle instance goes first."""

from __future__ import annotations

from headrace.runtime.process.eviction import GreedyDual

MIB = 1 << 20


def test_the_large_the_rare_and_the_cheap_to_start_go_first() -> None:
    dual = GreedyDual()
    usual = dual.worth(invocations=10, start_cost=0.01, memory=10 * MIB)
    assert dual.worth(invocations=10, start_cost=0.01, memory=100 * MIB) < usual
    assert dual.worth(invocations=1, start_cost=0.01, memory=10 * MIB) < usual
    assert dual.worth(invocations=10, start_cost=0.001, memory=10 * MIB) < usual


def test_what_was_used_since_the_last_eviction_outlives_what_was_not() -> None:
    dual = GreedyDual()
    old = dual.worth(invocations=5, start_cost=0.01, memory=MIB)
    assert dual.choose([(old, "evicted")]) == "evicted"
    new = dual.worth(invocations=1, start_cost=0.01, memory=MIB)
    assert dual.choose([(new, "new"), (old, "old")]) == "old"


def test_nobody_to_evict_is_nobody() -> None:
    assert GreedyDual().choose([]) is None
