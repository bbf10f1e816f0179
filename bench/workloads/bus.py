"""Row 15: events put to 1, 100 and 10,000 rules of which one matches; from JSON bytes to rule names.

The events are of the shapes that services really publish (an instance's state, a stored object, an
order, an API call), about 300 to 900 bytes each. Every event is decoded and matched on one core. The
naive loop asks every pattern in turn. `mixed` has rules of every kind in one index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from bench.figures import arguments, report
from headrace.patterns.pattern import Pattern, compile_pattern
from headrace.patterns.rule_index import RuleIndex

COUNTS = (1, 100, 10_000)
EVENTS = 1_000
ROUNDS = 25

_decode = msgspec.json.Decoder().decode


class BusWentWrong(Exception):
    """An event met other rules than the one it was made for."""


def envelope(kind: str, source: str, detail: dict[str, Any], number: int) -> dict[str, Any]:
    """An event as an event bus shows it."""
    return {
        "version": "0",
        "id": f"6a7e8feb-b491-4cf7-a9f1-{number:012}",
        "detail-type": kind,
        "source": source,
        "account": "111122223333",
        "time": "2026-05-22T10:00:00Z",
        "region": "eu-central-1",
        "resources": [f"arn:bus:instance/i-{number:08}"],
        "detail": detail,
    }


def instance(number: int, value: Any) -> dict[str, Any]:
    """A machine changed its state."""
    return envelope(
        "Instance State-change", "compute", {"instance-id": value, "state": "terminated"}, number
    )


def stored(number: int, value: Any) -> dict[str, Any]:
    """A file was put to a bucket."""
    detail = {
        "version": "0",
        "bucket": {"name": "invoices"},
        "object": {"key": value, "size": 5_242_880 + number, "etag": "b1946ac92492d2347c6235b4d2"},
        "request-id": f"N4N7GDK58NMKJ{number:06}",
        "requester": "123456789012",
        "source-ip-address": "10.2.3.4",
        "reason": "PutObject",
    }
    return envelope("Object Created", "storage", detail, number)


def order(number: int, value: Any) -> dict[str, Any]:
    """Somebody bought something."""
    detail = {
        "order": {"id": number, "shop": "berlin", "total": value, "currency": "EUR"},
        "customer": {"id": f"c-{number:07}", "country": "DE", "segments": ["new", "mobile"]},
        "items": [{"sku": "A-100", "count": 2}, {"sku": "B-7", "count": 1}],
    }
    return envelope("Order Placed", "shop", detail, number)


def call(number: int, value: Any) -> dict[str, Any]:
    """Somebody called an interface."""
    detail = {
        "eventVersion": "1.08",
        "userIdentity": {"type": "IAMUser", "principalId": "AIDA", "accountId": "111122223333"},
        "eventTime": "2026-05-22T10:00:00Z",
        "eventName": "StopInstances",
        "sourceIPAddress": value,
        "userAgent": "console.example",
        "requestParameters": {"force": False, "instances": f"i-{number:08}"},
        "responseElements": None,
        "requestID": "bc05a3d1-1f23-4bd3-a2e9-0f6e6d5c4c3b",
        "readOnly": False,
    }
    return envelope("API Call", "audit", detail, number)


Written = Callable[[int], dict[str, Any]]
Shape = Callable[[int, Any], dict[str, Any]]

KINDS: dict[str, tuple[Written, Shape, Callable[[int], Any]]] = {
    "exact": (
        lambda n: {"source": ["compute"], "detail": {"instance-id": [f"i-{n:08}"]}},
        instance,
        lambda n: f"i-{n:08}",
    ),
    "prefix": (
        lambda n: {"source": ["storage"], "detail": {"object": {"key": [{"prefix": f"{n:05}/"}]}}},
        stored,
        lambda n: f"{n:05}/scan.png",
    ),
    "suffix": (
        lambda n: {"source": ["storage"], "detail": {"object": {"key": [{"suffix": f"-{n:05}"}]}}},
        stored,
        lambda n: f"invoice-{n:05}",
    ),
    "ignoring_case": (
        lambda n: {"detail": {"object": {"key": [{"equals-ignore-case": f"Scan-{n}.PNG"}]}}},
        stored,
        lambda n: f"scan-{n}.png",
    ),
    "wildcard": (
        lambda n: {"detail": {"object": {"key": [{"wildcard": f"in/*/{n:05}/*.png"}]}}},
        stored,
        lambda n: f"in/2026/{n:05}/scan.png",
    ),
    "numeric": (
        lambda n: {
            "source": ["shop"],
            "detail": {"order": {"total": [{"numeric": [">=", n * 10, "<", n * 10 + 10]}]}},
        },
        order,
        lambda n: n * 10 + 2.5,
    ),
    "cidr": (
        lambda n: {"detail": {"sourceIPAddress": [{"cidr": f"10.{n // 250}.{n % 250}.0/24"}]}},
        call,
        lambda n: f"10.{n // 250}.{n % 250}.9",
    ),
    "anything_but": (
        lambda n: {
            "detail": {
                "instance-id": [f"i-{n:08}"],
                "state": [{"anything-but": ["pending", "running"]}],
            }
        },
        instance,
        lambda n: f"i-{n:08}",
    ),
    "array": (
        lambda n: {
            "resources": [f"arn:bus:instance/i-{n:08}"],
            "detail": {"state": ["terminated"]},
        },
        instance,
        lambda n: f"i-{n:08}",
    ),
}


def bodies_of(shape: Shape, value: Callable[[int], Any], count: int) -> list[bytes]:
    """Events for the rules in turn, the same whatever the number of rules."""
    numbers = [place * 7919 % count for place in range(EVENTS)]
    return [msgspec.json.encode(shape(number, value(number))) for number in numbers]


def rates(works: dict[str, Callable[[bytes], object]], bodies: Sequence[bytes]) -> dict[str, float]:
    """Events per second of processor time, the best round of each; they take turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.process_time()
            for body in bodies:
                work(body)
            best[name] = min(best[name], time.process_time() - began)
    return {name: len(bodies) / seconds for name, seconds in best.items()}


def _ask_index(index: RuleIndex, body: bytes) -> list[str]:
    return index.match(_decode(body))


def _ask_all(patterns: Sequence[Pattern], body: bytes) -> list[str]:
    event = _decode(body)
    return [str(place) for place, one in enumerate(patterns) if one.matches(event)]


def measure(kind: str, *, quick: bool) -> dict[str, float]:
    """Rates for each number of rules, decoding alone, and the naive loop over 100 rules."""
    pattern, shape, value = KINDS[kind]
    # The same events for every number of rules: those of rule 0, which is in all of them.
    bodies = bodies_of(shape, value, 1)[: EVENTS // 10 if quick else EVENTS]
    works: dict[str, Callable[[bytes], object]] = {"decode_per_s": _decode}
    for number_of_rules in COUNTS:
        index = RuleIndex()
        for number in range(number_of_rules):
            index.add(f"rule-{number}", pattern(number))
        for body in bodies[:10]:
            if (met := index.match(_decode(body))) != ["rule-0"]:
                raise BusWentWrong(f"{kind}: {met} instead of rule-0")
        works[f"rules_{number_of_rules}_per_s"] = partial(_ask_index, index)
    figures = rates(works, bodies)
    # The slowdown from one rule to ten thousand.
    figures["slowdown"] = figures["rules_1_per_s"] / figures["rules_10000_per_s"]
    patterns = [compile_pattern(pattern(number)) for number in range(100)]
    return figures | rates({"naive_100_per_s": partial(_ask_all, patterns)}, bodies[:20])


def measure_mixed(*, quick: bool) -> dict[str, float]:
    """Rates for rules of every kind in one index, and events of every shape; one rule matches each."""
    kinds = list(KINDS.values())
    bodies = [
        msgspec.json.encode(shape(number, value(number)))
        for number, (_, shape, value) in enumerate(kinds)
    ] * ((EVENTS // 10 if quick else EVENTS) // len(kinds))
    works: dict[str, Callable[[bytes], object]] = {"decode_per_s": _decode}
    for number_of_rules in COUNTS[1:]:
        index = RuleIndex()
        for number in range(number_of_rules):
            index.add(f"rule-{number}", kinds[number % len(kinds)][0](number))
        for number, body in enumerate(bodies[: len(kinds)]):
            if (met := index.match(_decode(body))) != [f"rule-{number}"]:
                raise BusWentWrong(f"{met} instead of rule-{number}")
        works[f"rules_{number_of_rules}_per_s"] = partial(_ask_index, index)
    return rates(works, bodies)


def main() -> None:
    """Measure one kind of pattern, or all of them together."""
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=[*KINDS, "mixed"], default="exact")
    options = parser.parse_args()
    if options.kind == "mixed":
        report(**measure_mixed(quick=options.quick))
    else:
        report(**measure(options.kind, quick=options.quick))


if __name__ == "__main__":
    main()
