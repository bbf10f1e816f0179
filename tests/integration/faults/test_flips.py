"""A smoke share of the flipped bits."""

from __future__ import annotations

import json
import re

from tests.integration.faults.flips import flip_bits
from tests.integration.faults.sites import Site


def test_a_flipped_bit_is_told_or_harmless(place: Site) -> None:
    found = flip_bits(place, 50, 1)
    assert found.findings == []
    # Else nothing was flipped where it matters.
    assert found.figures["told"] >= 15


APP = '''
from headrace import App, Context, DeadLetter, Event, Retry

app = App("kept", owner="campaign")
orders = app.stream("orders")
told = app.stream("told")


@app.function(orders, retry=Retry(attempts=2, initial_delay=0.01), on_failure=DeadLetter(), output=told, breaker=None)
def keep(event: Event[dict], context: Context):
    """Remembers a mark, and says what it remembers."""
    name = event.value["name"]
    found = context.state.get(name, "")
    if not found:
        context.state.put(name, event.value["mark"])
    return {"name": name, "found": found}
'''


def test_a_run_that_meets_a_flipped_value_fails_and_is_never_given_it(place: Site) -> None:
    place.write(APP)
    place.start()
    for name in ("good", "bad"):
        # Longer than a page, so that each value has pages of its own.
        mark = f"{name} mark " * 1_200
        place.ask("/-/v1/streams/orders", body=json.dumps({"name": name, "mark": mark}).encode())
    place.wait_drained()
    place.hang_up()
    place.stop()
    file = place.data / "headrace.db"
    held = bytearray(file.read_bytes())
    # As state it is msgpack; the event that brought it, as JSON in the log, stays whole.
    (at,) = [found.end() for found in re.finditer(rb"\xda..(?=bad mark )", held, re.DOTALL)]
    held[at] ^= 1
    file.write_bytes(held)
    place.start()
    for name in ("good", "bad"):
        place.ask("/-/v1/streams/orders", body=json.dumps({"name": name, "mark": "new"}).encode())
    place.wait_drained()
    letters = place.get("/-/v1/dead?function=kept.keep")["dead"]
    given_up = {each["event"]["value"]["name"]: each["cause"]["kind"] for each in letters}
    # Whoever shares its page may be met with it.
    assert given_up["bad"] == "Corrupt"
    assert set(given_up.values()) == {"Corrupt"}
    records = place.get("/-/v1/streams/told/records?limit=10")["records"]
    found = {(each["value"]["name"], each["value"]["found"][:9]) for each in records}
    assert (
        {("good", ""), ("bad", "")} <= found <= {("good", ""), ("bad", ""), ("good", "good mark")}
    )
