"""The table: every core figure, the program that measures ours, and what it is held against."""

from __future__ import annotations

from bench.metrics import Metric, Reading, at_least, at_most, read

DRAIN = "drain_per_s"

AFTER_WORK = (
    "peers.on_celery",
    "peers.on_taskiq --kind stream",
    "peers.on_saq",
    "peers.on_faststream_redis",
    "peers.on_faststream_redis --batch 128",
    "peers.on_faststream_nats",
    "peers.on_faststream_nats --batch 128",
)
"""Peers that acknowledge an event after the work, as we do; without an fsync for each."""

DURABLE = (
    "peers.on_celery --durable",
    "peers.on_taskiq --kind stream --durable",
    "peers.on_saq --durable",
    "peers.on_faststream_redis --durable",
    "peers.on_faststream_redis --batch 128 --durable",
)
"""The same with an fsync before the producer is answered, as ours."""

BEFORE_WORK = (
    "peers.on_taskiq --kind list",
    "peers.on_huey --store redis",
    "peers.on_huey --store sqlite",
)
"""Peers that forget an event before the work: at most once."""

SINGLE = tuple(line for line in AFTER_WORK if "--batch" not in line)


def of(lines: tuple[str, ...], figure: str) -> tuple[Reading, ...]:
    """The same figure of several programs."""
    return tuple(read(line, figure) for line in lines)


COLD = "workloads.cold_start --app"
FORK = "limits.fork --app bench.apps."


def _cold(letter: str, app: str, words: str) -> list[Metric]:
    fork = f"{FORK}{app}"
    metrics: list[Metric] = []
    for isolation in (1, 2):
        ours = f"{COLD} {app} --isolation {isolation}"
        faster = (
            (
                at_most(
                    1 / 90,
                    read("limits.interpreter --imports pandas", "spawn_ms_p50"),
                    label="spawn",
                ),
            )
            if app == "frames"
            else ()
        )
        metrics.append(
            Metric(
                f"1{letter}{'d' if isolation == 2 else ''}",
                f"cold start, {words}, isolation {isolation}, p50",
                "ms",
                read(ours, "cold_ms_p50"),
                (at_most(1.4, read(fork, "fork_ms_p50")), *faster),
            )
        )
        metrics.append(
            Metric(
                f"1{letter}{'e' if isolation == 2 else 'p'}",
                f"cold start, {words}, isolation {isolation}, p99",
                "ms",
                read(ours, "cold_ms_p99"),
                (at_most(4, read(fork, "fork_ms_p50")),),
                (read(fork, "fork_ms_p99"),),
            )
        )
    metrics.append(
        Metric(
            f"1{letter}q",
            f"200 cold starts at once, {words}",
            "ms",
            read(f"{COLD} {app} --isolation 1", "burst_ms"),
            (at_most(1.5, read(fork, "burst_ms")),),
        )
    )
    return metrics


def _first_start(letter: str, app: str, words: str) -> Metric:
    return Metric(
        f"2{letter}",
        f"first start of a version, {words}",
        "ms",
        read(f"workloads.first_start --app {app}", "first_ms_p50"),
        (
            at_most(
                1.2, read(f"limits.interpreter --imports bench.apps.{app}", "spawn_ms_p50"), plus=30
            ),
        ),
    )


def _append(letter: str, batch: int) -> Metric:
    return Metric(
        f"5{letter}",
        f"durable append, batches of {batch}, one producer",
        "events/s",
        read(f"workloads.append --batch {batch}", "one_per_s"),
        (at_least(0.8, read(f"limits.store --batch {batch}", "per_s")),),
        (
            read(f"workloads.append --batch {batch}", "many_per_s"),
            read("limits.fsync", "fsync_ms_p50"),
        ),
    )


def _stream(letter: str, kind: str, batch: int, in_flight: int, share: float) -> Metric:
    words = "one output per input" if kind == "copy" else "no outputs"
    return Metric(
        f"6{letter}",
        f"stream, batch {batch}, {words}",
        "events/s",
        read(f"workloads.stream --kind {kind} --batch {batch}", "per_s"),
        (
            at_least(
                share,
                read(f"limits.road --batch {batch} --in-flight {in_flight}", "per_s"),
                label="prototype",
            ),
            at_least(20, *of(DURABLE, DRAIN), label="best durable peer"),
            at_least(20, *of(AFTER_WORK, DRAIN), label="best peer"),
        ),
        (read("peers.on_bytewax --batch 1000", DRAIN), read("peers.on_bytewax --batch 1", DRAIN)),
    )


def _growth(
    letter: str, over: str, words: str, *, delay: bool = True, factor: float = 1.5
) -> list[Metric]:
    program = f"workloads.growth --over {over}"
    metrics = [
        Metric(
            f"13{letter}",
            f"slowdown over {words}",
            "x",
            read(program, "slowdown"),
            (at_most(factor),),
        )
    ]
    if delay:
        metrics.append(
            Metric(
                f"13{letter}d",
                f"longer latency over {words}",
                "x",
                read(program, "delay"),
                (at_most(factor),),
            )
        )
    return metrics


PROTOTYPE_16 = read("limits.road --batch 1 --in-flight 16", "per_s")

METRICS: tuple[Metric, ...] = (
    *_cold("a", "empty", "empty app"),
    *_cold("b", "frames", "numpy and pandas"),
    _first_start("a", "empty", "empty app"),
    _first_start("b", "frames", "numpy and pandas"),
    Metric(
        "3a",
        "warm call, one at a time, p50",
        "us",
        read("workloads.warm", "call_us_p50"),
        (at_most(2, read("limits.round_trip", "uvloop_us_p50")),),
        (
            read("limits.round_trip", "blocking_across_us_p50"),
            read("limits.round_trip", "blocking_same_us_p50"),
        ),
    ),
    Metric(
        "3b",
        "warm calls, 16 in flight",
        "calls/s",
        read("workloads.warm", "sixteen_per_s"),
        (
            at_least(0.4, read("limits.pipe --batch 1 --in-flight 16", "per_s"), label="prototype"),
            at_least(
                10, *of((*SINGLE, *BEFORE_WORK, "peers.on_bullmq"), DRAIN), label="best queue"
            ),
        ),
    ),
    Metric(
        "4",
        "revival from hibernation, p50",
        "us",
        read("workloads.revival", "revival_us_p50"),
        (at_most(2, read("limits.revival", "revival_us_p50")),),
    ),
    _append("a", 1),
    _append("b", 100),
    _append("c", 1_000),
    Metric(
        "5d",
        "single appends, 64 producers",
        "events/s",
        read("workloads.append --batch 1", "many_per_s"),
        (at_least(8, read("workloads.append --batch 1", "one_per_s"), label="one producer"),),
    ),
    _stream("a", "touch", 128, 4, 0.6),
    _stream("b", "touch", 1_000, 3, 0.6),
    _stream("c", "copy", 128, 4, 0.4),
    _stream("d", "copy", 1_000, 3, 0.4),
    Metric(
        "7a",
        "single events, 16 partitions",
        "events/s",
        read("workloads.stream --kind single", "per_s"),
        (
            at_least(0.6, PROTOTYPE_16, label="prototype"),
            at_least(1, *of(SINGLE, DRAIN), label="best peer"),
        ),
        of((*BEFORE_WORK, "peers.on_bullmq"), DRAIN),
    ),
    Metric(
        "7b",
        "single events, never more than 16 in the system",
        "events/s",
        read("workloads.stream --kind single", "closed_per_s"),
        (at_least(0.6, PROTOTYPE_16, label="prototype"),),
    ),
    Metric(
        "8a",
        "publish to commit at 1,000 events/s, p50",
        "ms",
        read("workloads.latency", "latency_ms_p50"),
        (
            at_most(3, read("limits.road --batch 1 --in-flight 1 --paced 1000", "latency_ms_p50")),
            at_most(1, *of((*SINGLE, *BEFORE_WORK), "latency_ms_p50"), label="best peer"),
        ),
    ),
    Metric(
        "8b",
        "publish to commit at 1,000 events/s, p99",
        "ms",
        read("workloads.latency", "latency_ms_p99"),
        (at_most(10),),
    ),
    *(
        Metric(
            f"9{letter}",
            f"exactly once against at most once, batch {batch}",
            "events/s",
            read(f"workloads.stream --kind touch --batch {batch}", "per_s"),
            (
                at_least(
                    0.8,
                    read(f"workloads.stream --kind before --batch {batch}", "per_s"),
                    label="at most once",
                ),
            ),
        )
        for letter, batch in (("a", 128), ("b", 1_000))
    ),
    Metric(
        "10",
        "first event after kill -9, a million behind",
        "s",
        read("workloads.recovery", "first_run_s"),
        (at_most(2),),
        (read("workloads.recovery", "backlog_left"),),
    ),
    Metric(
        "11a",
        "1,000 idle functions, memory of the host",
        "MiB",
        read("workloads.idle", "resident_mib"),
        (at_most(200 * 1e6 / (1 << 20)),),
    ),
    Metric(
        "11b",
        "1,000 idle functions, processor",
        "%",
        read("workloads.idle", "processor_percent"),
        (at_most(1),),
    ),
    Metric(
        "11c",
        "a hibernating instance's own memory, bare",
        "MiB",
        read("workloads.idle", "bare_mib"),
        (at_most(3),),
        (read("limits.density --app bench.apps.empty", "private_mib"),),
    ),
    Metric(
        "11d",
        "a hibernating instance's own memory, pandas",
        "MiB",
        read("workloads.idle", "pandas_mib"),
        (at_most(5),),
        (read("limits.density --app bench.apps.frames", "private_mib"),),
    ),
    Metric(
        "12a",
        "headrace --help",
        "ms",
        read("workloads.commands", "help_ms"),
        (at_most(150),),
        (read("limits.interpreter", "spawn_ms_p50"),),
    ),
    Metric(
        "12b",
        "headrace publish",
        "ms",
        read("workloads.commands", "publish_ms"),
        (at_most(1, read("peers.command_line", "celery_help_ms"), label="celery --help"),),
    ),
    Metric("12c", "import headrace", "ms", read("workloads.commands", "import_ms"), (at_most(60),)),
    Metric(
        "12d",
        "headrace dev until it is ready",
        "ms",
        read("workloads.commands", "dev_ready_ms"),
        (at_most(1_500),),
    ),
    *_growth("a", "backlog", "a backlog of 10^4 to 10^7", delay=False),
    *_growth("b", "partitions", "1 to 256 partitions"),
    *_growth("c", "functions", "1 to 1,000 other functions"),
    *_growth("f", "log", "a log of 0 to 10 GB"),
)
