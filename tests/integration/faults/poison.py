"""Poison at chosen places of a batch: the dead letters are exactly it, and finding it is cheap.

The batch is published whole in one request to a stream of one partition. The handler leaves a line
outside at each call, so the calls are counted by what happened and not by what the node believes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import ceil, log2
from random import Random

from tests.auditor.outside import Account, Finding, Listener, Sent
from tests.integration.faults.load import EVENTS, envelope
from tests.integration.faults.results import Result, figures_of, result, settle
from tests.integration.faults.sites import Site

SIZE = 64
PLACES: dict[str, Callable[[Random], Sequence[int]]] = {
    "first": lambda _: [0],
    "middle": lambda _: [SIZE // 2],
    "last": lambda _: [SIZE - 1],
    "several": lambda random: sorted(random.sample(range(SIZE), 5)),
    "neighbours": lambda _: [30, 31, 32, 33],
    "all": lambda _: range(SIZE),
}
ATTEMPTS = {"batch": 1, "patient": 3, "single": 2}

APP = '''
"""The app behind the poison."""

import os

from headrace import App, Batch, Context, DeadLetter, Event, Retry

app = App("poison", owner="campaign")


def begin(function, numbers):
    line = " ".join([function, *map(str, numbers)]) + "\\n"
    handle = os.open("{trace}", os.O_WRONLY | os.O_APPEND)
    os.write(handle, line.encode())
    os.close(handle)
'''
_BATCH = '''
{name} = app.stream("{name}")
{name}_out = app.stream("{name}.out")


@app.function({name}, name="{name}", batch_size=64, batch_window=0.5, retry=Retry(attempts={attempts}, initial_delay=0.01, max_delay=0.02), on_failure=DeadLetter(), breaker=None)
def handle_{name}(events: Batch[dict], context: Context) -> None:
    """Raise for the whole batch."""
    begin("poison.{name}", [event.value["n"] for event in events])
    for event in events:
        context.publish({name}_out, {{"n": event.value["n"], "at": str(event.position)}}, key=event.key)
        context.state.put(f"{name}|{{event.key}}", [1, event.value["n"], event.value["n"]])
        if event.value.get("poison"):
            raise ValueError("bad")
'''
_SINGLE = '''
{name} = app.stream("{name}")
{name}_out = app.stream("{name}.out")


@app.function({name}, name="{name}", batch_size=64, batch_window=0.5, retry=Retry(attempts={attempts}, initial_delay=0.01, max_delay=0.02), on_failure=DeadLetter(), breaker=None)
def handle_{name}(event: Event[dict], context: Context) -> None:
    """Raise for one event."""
    begin("poison.{name}", [event.value["n"]])
    context.publish({name}_out, {{"n": event.value["n"], "at": str(event.position)}}, key=event.key)
    context.state.put(f"{name}|{{event.key}}", [1, event.value["n"], event.value["n"]])
    if event.value.get("poison"):
        raise ValueError("bad")
'''


def poison(site: Site, times: int, seed: int) -> Result:
    """Every placement, for batch handlers, patient ones and handlers of single events."""
    random = Random(seed)
    names = [
        f"{kind}{run}_{place}" for kind in ATTEMPTS for run in range(times) for place in PLACES
    ]
    app = APP
    for name in names:
        kind = name.partition("_")[0].rstrip("0123456789")
        template = _SINGLE if kind == "single" else _BATCH
        app += template.format(name=name, attempts=ATTEMPTS[kind])
    site.write(app)
    site.start()
    sent: dict[str, list[Sent]] = {}
    for number, name in enumerate(names):
        bad = set(PLACES[name.partition("_")[2]](random))
        sent[name] = [_event(number * SIZE + index, index in bad, random) for index in range(SIZE)]
        body = b"".join(map(envelope, sent[name]))
        answer = json.loads(site.ask(f"/-/v1/streams/{name}", body=body, media=EVENTS))
        assert answer["duplicates"] == 0, answer
    listeners = tuple(
        Listener(
            f"poison.{name}",
            name,
            f"{name}.out",
            name,
            ATTEMPTS[name.partition("_")[0].rstrip("0123456789")],
            ("ValueError",),
            SIZE,
        )
        for name in names
    )
    account = Account(sent, listeners, "poison", site.trace_path)
    findings = settle(site, account)
    calls = _calls(site)
    worst = 0.0
    for name in names:
        kind = name.partition("_")[0].rstrip("0123456789")
        bad_count = sum(each.poison for each in sent[name])
        bound = allowed(kind, bad_count)
        worst = max(worst, calls[f"poison.{name}"] / bound)
        if calls[f"poison.{name}"] > bound:
            findings.append(
                Finding("I5", f"{name}: {calls[f'poison.{name}']} calls, {bound} are allowed")
            )
    return result(
        "poison placements",
        len(names),
        account,
        findings,
        calls_to_bound=round(worst, 3),
        **figures_of(site),
    )


def allowed(kind: str, bad: int) -> int:
    """How many calls finding `bad` poisonous events of a batch may take."""
    again = bad * (ATTEMPTS[kind] - 1)
    if kind == "single":
        return SIZE + again
    return min(bad * (2 * ceil(log2(SIZE)) + 1) + 1, 2 * SIZE - 1) + again


def _calls(site: Site) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in site.trace_path.read_text().splitlines():
        function = line.partition(" ")[0]
        found[function] = found.get(function, 0) + 1
    return found


def _event(number: int, bad: bool, random: Random) -> Sent:
    """An event whose bytes no careless copy keeps: blanks, exponents, escapes, great integers."""
    oddities = [
        ' "big": 9223372036854775807 ',
        '"float":1.50e+3',
        '"text" : "\\u00e9\u00e9 \\/"',
        '"deep":[[[[{}]]]]',
        '"zero":-0.0',
        '"emoji":"\U0001f600"',
    ]
    value = f'{{ "n":{number},{random.choice(oddities)}' + (',"poison" : true}' if bad else "}")
    return Sent(f"e{number}", number, f"k{number}", value.encode(), bad)
