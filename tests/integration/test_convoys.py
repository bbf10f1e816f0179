"""Convoys in real instances: each batch speaks and counts for itself, and a death takes all of them."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from tests.integration.runtime_fleets import eventually, house, invocation

from headrace.model.invocation import CoalescedInvocation, key_of
from headrace.model.outcome import Crashed, Returned
from headrace.runtime.base import invoke

MAX_TRIES = 50


def coalesced(*, events: int) -> CoalescedInvocation:
    one = invocation("shop.price", events=events)
    return CoalescedInvocation(
        one.function, one.timeout, one.token, one.key, chunks=one.chunks, each=1
    )


async def test_every_batch_of_a_convoy_speaks_and_counts_for_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(event):
    print("said for", event.offset, end="")
""")
        convoy = coalesced(events=3)
        (chunk,) = convoy.chunks
        # A machine that is busy leaves batches for the next convoy: none begins after its first moments.
        low = handed = 0
        while low >= 0:
            rest = replace(convoy, chunks=(chunk.window(low, chunk.high),))
            handed += rest.batches
            outcome = await invoke(home.fleet.submit, rest)
            assert isinstance(outcome, Returned)
            assert (outcome.error, outcome.failures) == (None, ())
            assert outcome.untouched != 0
            low = low + outcome.untouched if outcome.untouched > 0 else -1
        keys = [key_of("shop.price", chunk.window(n, n + 1)) for n in range(3)]
        assert await eventually(lambda: len(home.lines) == 3)
        assert [line.invocation for line in home.lines] == keys
        assert [line.message for line in home.lines] == [
            f"said for {chunk.offset_of(n)}" for n in range(3)
        ]
        (instance,) = home.fleet.instances()
        assert instance.invocations == handed


async def test_a_death_in_the_middle_of_a_convoy_comes_back_as_one_crash(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.deploy("""
@app.function(orders)
def price(event):
    if event.offset == 1:
        os._exit(3)
""")
        convoy = coalesced(events=3)
        outcome = await invoke(home.fleet.submit, convoy)
        for _ in range(MAX_TRIES):
            if isinstance(outcome, Crashed):
                break
            # A machine that is busy ends a convoy before its second batch.
            assert isinstance(outcome, Returned)
            assert outcome.untouched == 1
            outcome = await invoke(home.fleet.submit, convoy)

        assert isinstance(outcome, Crashed)
        assert "code 3" in outcome.cause.message
