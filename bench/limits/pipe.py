"""Batches as msgpack frames to a child that calls a handler for every event, and results back.

Nothing is durable here and nothing can fail: it is the bare transport of invocations. The better of
"child on the other core" and "child on the same core" counts, since a host may place its children.
"""

from __future__ import annotations

import time

import msgspec

from bench.figures import arguments, cores, pin, report
from bench.limits.frames import EVENT, Pipe, fork_child, frame

BUDGET_S = 0.7


def handle(event: dict[str, object]) -> dict[str, object]:
    """Touch the event and make a result of it."""
    data = event["data"]
    assert isinstance(data, dict)
    return {"id": event["id"], "ok": data["amount"] > 100}


def serve(pipe: Pipe) -> None:
    """The child: decode, call per event and catch what it raises, encode."""
    decoder = msgspec.msgpack.Decoder(list)
    encoder = msgspec.msgpack.Encoder()
    while True:
        results: list[tuple[int, object]] = []
        for event in decoder.decode(pipe.receive()):
            try:
                results.append((0, handle(event)))
            except Exception as error:  # noqa: BLE001 a real child catches everything, and so pays for it
                results.append((1, repr(error)))
        pipe.send(frame(encoder.encode(results)))


def run(batch: int, in_flight: int, *, core: int, seconds: float) -> float:
    """Events per second."""
    child = fork_child(serve, core=core)
    encoder = msgspec.msgpack.Encoder()
    decoder = msgspec.msgpack.Decoder(list)
    events = [EVENT] * batch
    done = 0
    began = time.perf_counter()
    for _ in range(in_flight):
        child.pipe.send(frame(encoder.encode(events)))
    while (took := time.perf_counter() - began) < seconds:
        done += len(decoder.decode(child.pipe.receive()))
        child.pipe.send(frame(encoder.encode(events)))
    child.close()
    return done / took


def main() -> None:
    """Measure one shape."""
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=16)
    options = parser.parse_args()
    first, second = cores()
    pin(first)
    seconds = 0.1 if options.quick else BUDGET_S
    across = run(options.batch, options.in_flight, core=second, seconds=seconds)
    same = run(options.batch, options.in_flight, core=first, seconds=seconds)
    report(per_s=max(across, same), across_per_s=across, same_per_s=same)


if __name__ == "__main__":
    main()
