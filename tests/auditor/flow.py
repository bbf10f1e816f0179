"""Judges flow control: how often and how many at once, and that nothing is left out without reason.

In: the begins and ends of a history, and the log. Out: findings.

F1 a throttle's pace · F2 how many at once, and one key in a batch where that was asked for · F3 what
is left out, and what is not, by rate, debounce and singleton · F4 no event goes before it was quiet ·
F5 no event waits longer than its key's window, or than a debounce's longest
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.auditor.account import Account, Finding, Function, Held, Log, Place

SLACK_US = 2_500_000
"""How much a slow store may delay a run that the pace has let go, where things go wrong."""

PATIENCE_US = 5_000
"""How much later than its time a key may go."""

Means = Callable[[str, Held], bool]


class LeftOut:
    """Which events flow control may leave out, and which it must."""

    def __init__(self, account: Account, logs: Mapping[str, Log], means: Means) -> None:
        self._account = account
        self._may: dict[str, set[Place]] = defaultdict(set)
        self._must: dict[str, set[Place]] = defaultdict(set)
        for name, asked in account.functions.items():
            if asked.flow:
                for stream in asked.streams:
                    self._judge(name, asked, stream, logs[stream], means)

    def may_be(self, function: str, place: Place) -> bool:
        """Whether there is a reason to leave the event out."""
        return place in self._may[function]

    def must_be(self, function: str, place: Place) -> bool:
        """Whether running the event is more than was asked for."""
        return place in self._must[function]

    def _judge(self, name: str, asked: Function, stream: str, log: Log, means: Means) -> None:
        lanes: dict[tuple[int, str | None], list[int]] = defaultdict(list)
        per_key = not (sample := asked.flow.get("sample")) or sample["per_key"]
        for (partition, offset), held in sorted(log.held.items()):
            if means(name, held):
                lanes[partition, held.key if per_key else None].append(offset)
        for (partition, _), offsets in lanes.items():
            places = [(stream, partition, offset) for offset in offsets]
            if asked.flow.get("debounce"):
                self._may[name].update(places[:-1])
            if asked.flow.get("singleton", {}).get("otherwise") == "skip":
                self._may[name].update(places[1:])
            if sample:
                moments = [log.appended[partition, offset] for offset in offsets]
                beyond = _beyond(sample, moments)
                left = {place for place, out in zip(places, beyond, strict=True) if out}
                # A reset runs what was left out, and a clock that was set makes pasts of futures.
                if self._account.is_skewed or asked.resets:
                    self._may[name].update(places)
                else:
                    self._may[name] |= left
                    self._must[name] |= left


def _beyond(rate: Mapping[str, Any], moments: list[int]) -> list[bool]:
    """Which of the events, appended then, find a token bucket empty."""
    step = rate["per"] * 1_000_000 / rate["limit"]
    tokens, last, found = float(rate["limit"]), moments[0], []
    for moment in moments:
        tokens = min(rate["limit"], tokens + (moment - last) / step)
        last = moment
        # A bucket that is refilled evenly has a whole token a millionth early or late.
        found.append(tokens < 1 - 1e-5)
        if not found[-1]:
            tokens -= 1
    return found


def check_runs(
    account: Account, log: Mapping[str, Mapping[tuple[int, int], Held]], means: Means
) -> list[Finding]:
    """What the begins and ends say about pace and width."""
    findings: list[Finding] = []
    begun: dict[str, list[tuple[int, frozenset[str | None]]]] = defaultdict(list)
    on: dict[int, tuple[int, str, list[str | None], tuple[str | int, ...]]] = {}
    for entry in account.history:
        match entry:
            case ["begin", host, run, function, places, at]:
                keys = [log[stream][partition, offset].key for stream, partition, offset in places]
                source = tuple(places[0][:2]) if places else ()
                asked = account.functions[function]
                if not asked.flow:
                    continue
                on[run] = host, function, keys, source
                begun[function].append((at, frozenset(keys)))
                beside = [each for each in on.values() if each[:2] == (host, function)]
                findings += _too_many(function, asked.flow, keys, [each[2] for each in beside])
                if "singleton" in asked.flow:
                    here = [each[2] for each in beside if each[3] == source]
                    findings += _not_single(function, keys, here)
            case ["end", _, run, *_]:
                on.pop(run, None)
            case _:
                pass
    for name, asked in account.functions.items():
        if (throttle := asked.flow.get("throttle")) and not account.is_skewed:
            slack = 0 if asked.calm else SLACK_US
            findings += _check_pace(name, throttle, begun[name], slack)
        if (debounce := asked.flow.get("debounce")) and not (account.is_skewed or asked.resets):
            findings += _check_quiet(account, name, debounce)
        # Where nothing fails, and runs take no time, nothing else holds an event back.
        is_free = asked.calm and not (asked.poison or asked.resets or account.takes)
        if is_free and not account.is_skewed:
            findings += _check_patience(account, name, log, means)
    return findings


def _check_patience(
    account: Account,
    name: str,
    log: Mapping[str, Mapping[tuple[int, int], Held]],
    means: Means,
) -> Iterator[Finding]:
    """A key waits for its window, and no longer, from the first of its events that has not gone."""
    asked = account.functions[name]
    longest = (asked.flow.get("debounce") or {}).get("longest")
    if longest is not None:
        most = round(longest * 1_000_000)
    elif "batch_per_key" in asked.flow:
        most = asked.window
    else:
        return
    begun: dict[tuple[str, int, str | None], list[tuple[int, int]]] = defaultdict(list)
    for entry in account.history:
        match entry:
            case ["begin", _, _, function, places, at] if function == name:
                for stream, partition, offset in places:
                    key = log[stream][partition, offset].key
                    begun[stream, partition, key].append((offset, at))
            case _:
                pass
    for stream in asked.streams:
        held = Log(account.log[stream], account.appended[stream])
        for (partition, offset), appended in sorted(held.appended.items()):
            if not means(name, held.held[partition, offset]):
                continue
            lane = begun[stream, partition, held.held[partition, offset].key]
            # It went itself, or a later one of its key went in its place.
            went = min((at for each, at in lane if each >= offset), default=None)
            if went is not None and went > appended + most + PATIENCE_US:
                waited = went - appended
                yield Finding("F5", f"{name} let {partition}/{offset} wait {waited} µs of {most}")


def _too_many(
    name: str, flow: Mapping[str, Any], keys: list[str | None], beside: list[list[str | None]]
) -> list[Finding]:
    """Whether a run that begins, the last of `beside`, is one too many."""
    findings: list[Finding] = []
    limits = flow.get("concurrency", {})
    if len(beside) > limits.get("limit", len(beside)):
        findings.append(Finding("F2", f"{name} has {len(beside)} runs at once"))
    if (most := limits.get("key_limit")) is not None:
        for key in set(keys):
            count = sum(key in each for each in beside)
            if count > most:
                findings.append(Finding("F2", f"{name} has {count} runs of {key} at once"))
    if "batch_per_key" in flow and len(set(keys)) > 1:
        findings.append(Finding("F2", f"{name} has a batch of {keys}"))
    return findings


def _not_single(name: str, keys: list[str | None], beside: list[list[str | None]]) -> list[Finding]:
    """Whether a key of one partition runs twice at once, or twice in a run."""
    findings: list[Finding] = []
    if len(set(keys)) < len(keys):
        findings.append(Finding("F2", f"{name} has two events of a key in a run: {keys}"))
    for key in set(keys):
        if (count := sum(key in each for each in beside)) > 1:
            findings.append(Finding("F2", f"{name} has {count} runs of {key} at once"))
    return findings


def _check_pace(
    name: str,
    throttle: Mapping[str, Any],
    begun: list[tuple[int, frozenset[str | None]]],
    slack: int,
) -> list[Finding]:
    """In no stretch of time do more begin than the bucket holds and is refilled with."""
    lanes: dict[str | None, list[int]] = defaultdict(list)
    for at, keys in begun:
        for key in keys if throttle["per_key"] else (None,):
            lanes[key].append(at)
    step = throttle["per"] * 1_000_000 / throttle["limit"]
    for key, moments in lanes.items():
        for first, start in enumerate(moments):
            for last in range(first + 1, len(moments)):
                count, span = last - first + 1, moments[last] - start
                if count > throttle["burst"] + (span + slack) / step + 1e-3:
                    return [Finding("F1", f"{name} began {count} runs of {key} in {span} µs")]
    return []


def _check_quiet(account: Account, name: str, debounce: Mapping[str, Any]) -> list[Finding]:
    """An event goes when its key has been quiet; without a `longest`, that is never sooner."""
    if debounce["longest"] is not None:
        return []
    findings: list[Finding] = []
    logs = {
        stream: Log(account.log[stream], account.appended[stream])
        for stream in account.functions[name].streams
    }
    for entry in account.history:
        match entry:
            case ["begin", _, _, function, places, at] if function == name:
                for stream, partition, offset in places:
                    waited = at - logs[stream].appended[partition, offset]
                    if waited < int(debounce["seconds"] * 1_000_000):
                        findings.append(
                            Finding("F4", f"{name} ran {partition}/{offset} after {waited} µs")
                        )
            case _:
                pass
    return findings
