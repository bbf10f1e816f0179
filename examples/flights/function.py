"""A year of departures from New York, joined with the weather: the app of the main example.

In come two streams of raw JSON text, flights keyed by aircraft and weather keyed by airport. Out come
exact delay figures per carrier and per route (in stores), every departure with the latest weather
observed at its airport (`joined`), and `alerts`. Rows that are not what they should be are refused,
and end as dead letters with their original bytes.
"""

from __future__ import annotations

import bisect
import datetime
from collections import defaultdict
from typing import Annotated

import msgspec

from headrace import App, Batch, Context, DeadLetter, Event, Retry, Scaling, State

DAY_S = 86_400
ALERT_DELAY_MIN = 60
ALERT_VISIBILITY_MI = 3.0
ALERT_GUST_MPH = 25.0

Airport = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
Carrier = Annotated[str, msgspec.Meta(pattern="^[0-9A-Z]{2}$")]
Clock = Annotated[int, msgspec.Meta(ge=1, le=2400)]
Minutes = Annotated[int, msgspec.Meta(ge=-1440, le=10_080)]


# --- what arrives, as strict as the sources promise it -------------------------------------------


class FlightRow(msgspec.Struct, frozen=True, gc=False):
    """One row of the flights table. Cancelled flights have no departure, lost ones no arrival."""

    row: int
    year: Annotated[int, msgspec.Meta(ge=1900, le=2100)]
    month: Annotated[int, msgspec.Meta(ge=1, le=12)]
    day: Annotated[int, msgspec.Meta(ge=1, le=31)]
    dep_time: Clock | None
    sched_dep_time: Clock
    dep_delay: Minutes | None
    arr_time: Clock | None
    arr_delay: Minutes | None
    carrier: Carrier
    flight: int
    tailnum: str | None
    origin: Airport
    dest: Airport
    air_time: Minutes | None
    distance: Annotated[int, msgspec.Meta(gt=0, le=20_000)]
    minute: Annotated[int, msgspec.Meta(ge=0, le=59)]
    time_hour: datetime.datetime

    def __post_init__(self) -> None:
        datetime.date(self.year, self.month, self.day)  # refuses 30 February
        _require_zone(self.time_hour)


class WeatherRow(msgspec.Struct, frozen=True, gc=False):
    """One hour's observation at an airport.

    `closing` says "nothing more is coming up to this time", as a station does at the end of its day:
    without it, the last departures would wait for an observation that never comes.
    """

    origin: Airport
    time_hour: datetime.datetime
    temp: float | None
    wind_speed: float | None
    wind_gust: float | None
    precip: float | None
    visib: float | None
    closing: bool = False

    def __post_init__(self) -> None:
        _require_zone(self.time_hour)


def _require_zone(moment: datetime.datetime) -> None:
    if moment.tzinfo is None:
        raise ValueError("`time_hour` has no time zone")


# --- what travels inside the app -----------------------------------------------------------------


class Leg(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A flight as the later functions need it; `scheduled` is in seconds since the epoch."""

    row: int
    carrier: str
    flight: int
    origin: str
    dest: str
    scheduled: int
    dep_delay: int | None
    arr_delay: int | None
    distance: int
    cancelled: bool


class Observation(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The weather at an airport from `time` (seconds since the epoch) on."""

    origin: str
    time: int
    temp: float | None
    wind_speed: float | None
    wind_gust: float | None
    precip: float | None
    visib: float | None
    closing: bool = False


class Joined(msgspec.Struct, frozen=True, gc=False):
    """A departure and the latest weather observed at its airport; `observed` is when."""

    row: int
    carrier: str
    flight: int
    origin: str
    dest: str
    scheduled: int
    dep_delay: int
    observed: int | None = None
    temp: float | None = None
    wind_speed: float | None = None
    wind_gust: float | None = None
    precip: float | None = None
    visib: float | None = None


class Tally(msgspec.Struct):
    """Delay figures in whole numbers, so that they are exact in whatever order they are added."""

    flights: int = 0
    cancelled: int = 0
    departed: int = 0
    dep_delay_sum: int = 0
    dep_delay_max: int | None = None
    arrived: int = 0
    arr_delay_sum: int = 0
    arr_delay_max: int | None = None
    distance_sum: int = 0


# --- the app -------------------------------------------------------------------------------------

app = App("flights", owner="team-departures")

flights_raw = app.stream("flights.raw", partitions=6, value=bytes, codec="bytes")
weather_raw = app.stream("weather.raw", partitions=3, value=bytes, codec="bytes")
by_carrier = app.stream("flights.by_carrier", partitions=4, value=Leg, private=True)
by_route = app.stream("flights.by_route", partitions=4, value=Leg, private=True)
# Six partitions each, because the same key must fall into the same partition of both, and the three
# airports' keys fall into three different ones of six.
departures = app.stream("departures", partitions=6, value=Leg, private=True)
weather = app.stream("weather", partitions=6, value=Observation, private=True)
joined = app.stream("joined", partitions=3, value=Joined)
alerts = app.stream("alerts", value=Joined)
carriers = app.store("carriers", Tally)
routes = app.store("routes", Tally)

# A row that cannot be read today cannot be read tomorrow. Whatever else goes wrong (an instance that
# is killed, and killed again) is worth many attempts.
patient = Retry(attempts=50, initial_delay=0.02, max_delay=0.5)
strict = Retry(
    attempts=50,
    initial_delay=0.02,
    max_delay=0.5,
    give_up_on=(msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError),
)
pair = Scaling(max=2)

_flight_row = msgspec.json.Decoder(FlightRow)
_weather_row = msgspec.json.Decoder(WeatherRow)


@app.function(flights_raw, batch_size=1000, retry=strict, on_failure=DeadLetter(), scaling=pair)
def parse_flight(event: Event[bytes], context: Context) -> None:
    """Read one flight strictly and hand it to whoever keeps figures of it."""
    row = _flight_row.decode(event.raw)
    scheduled = int(row.time_hour.timestamp()) + 60 * row.minute
    leg = Leg(
        row=row.row,
        carrier=row.carrier,
        flight=row.flight,
        origin=row.origin,
        dest=row.dest,
        scheduled=scheduled,
        dep_delay=row.dep_delay,
        arr_delay=row.arr_delay,
        distance=row.distance,
        cancelled=row.dep_time is None,
    )
    context.publish(by_carrier, leg, key=row.carrier)
    context.publish(by_route, leg, key=f"{row.origin}-{row.dest}")
    if not leg.cancelled:
        context.publish(departures, leg, key=row.origin, time=scheduled)


@app.function(weather_raw, batch_size=500, retry=strict, on_failure=DeadLetter(), scaling=pair)
def parse_weather(events: Batch[bytes], context: Context) -> None:
    """Read observations strictly. One bad row fails the batch, and the platform finds which."""
    for event in events:
        row = _weather_row.decode(event.raw)
        observation = Observation(
            origin=row.origin,
            time=int(row.time_hour.timestamp()),
            temp=row.temp,
            wind_speed=row.wind_speed,
            wind_gust=row.wind_gust,
            precip=row.precip,
            visib=row.visib,
            closing=row.closing,
        )
        context.publish(weather, observation, key=row.origin, time=observation.time)


@app.function(by_carrier, batch_size=1000, retry=patient, scaling=pair)
def carrier_stats(events: Batch[Leg], context: Context) -> None:
    """Keep each carrier's delay figures, by its code."""
    _tally(events, context.store(carriers))


@app.function(by_route, batch_size=1000, retry=patient, scaling=pair)
def route_stats(events: Batch[Leg], context: Context) -> None:
    """Keep each route's delay figures, by `<origin>-<destination>`."""
    _tally(events, context.store(routes))


def _tally(events: Batch[Leg], tallies: State[Tally]) -> None:
    """Add a batch to the tallies of its keys: one read for all, one write per key."""
    legs: defaultdict[str, list[Leg]] = defaultdict(list)
    for event in events:
        legs[event.key or ""].append(event.value)
    known = tallies.get_many(legs)
    for name, added in legs.items():
        tally = known.get(name) or Tally()
        for leg in added:
            tally.flights += 1
            tally.cancelled += leg.cancelled
            tally.distance_sum += leg.distance
            if leg.dep_delay is not None:
                tally.departed += 1
                tally.dep_delay_sum += leg.dep_delay
                tally.dep_delay_max = _greater(tally.dep_delay_max, leg.dep_delay)
            if leg.arr_delay is not None:
                tally.arrived += 1
                tally.arr_delay_sum += leg.arr_delay
                tally.arr_delay_max = _greater(tally.arr_delay_max, leg.arr_delay)
        tallies[name] = tally


def _greater(known: int | None, new: int) -> int:
    return new if known is None or new > known else known


# --- the join ------------------------------------------------------------------------------------


@app.function(
    weather, departures, merge="time", idle_timeout="500ms", batch_size=2000, retry=patient
)
def join(events: Batch[Observation | Leg], context: Context) -> None:
    """Give every departure the latest weather observed at its airport at or before its schedule.

    Streams merged by event time bring a departure shortly before the observation that settles it.
    Nothing here relies on that: a departure waits in state until its airport's weather is known past
    its time, and then looks its hour up, so the answer is the same in whatever order things came.
    """
    airports: dict[str, Ledger] = {}
    for event in events:
        value = event.value
        ledger = airports.get(value.origin)
        if ledger is None:
            ledger = airports[value.origin] = Ledger(value.origin, context)
        if isinstance(value, Observation):
            ledger.observe(value)
        else:
            ledger.wait(value)
    for ledger in airports.values():
        for leg, seen in ledger.settle():
            _publish(context, leg, seen)
        ledger.save()


def _publish(context: Context, leg: Leg, seen: Observation | None) -> None:
    assert leg.dep_delay is not None, f"row {leg.row} departed without a delay"
    row = Joined(
        leg.row, leg.carrier, leg.flight, leg.origin, leg.dest, leg.scheduled, leg.dep_delay
    )
    if seen is not None:
        row = msgspec.structs.replace(
            row,
            observed=seen.time,
            temp=seen.temp,
            wind_speed=seen.wind_speed,
            wind_gust=seen.wind_gust,
            precip=seen.precip,
            visib=seen.visib,
        )
    context.publish(joined, row, key=leg.origin, time=leg.scheduled)
    if row.dep_delay > ALERT_DELAY_MIN and (
        (row.visib is not None and row.visib < ALERT_VISIBILITY_MI)
        or (row.wind_gust is not None and row.wind_gust > ALERT_GUST_MPH)
    ):
        context.publish(alerts, row, key=leg.origin, time=leg.scheduled)


class Calendar(msgspec.Struct):
    """An airport's table of contents: which days have weather, which have departures waiting.

    `known_until` is the time of its latest observation. Observations of an airport come in order
    (they share a key all the way), so its weather is complete up to there.
    """

    days: list[int] = []
    waiting: list[int] = []
    known_until: int = 0


class Ledger:
    """One airport during one batch: what state knows of it, read when asked for, written once.

    Weather and waiting departures are kept by day, so that a batch writes the days it touched and
    no value grows with the year.
    """

    def __init__(self, airport: str, context: Context) -> None:
        self._airport = airport
        self._state = context.state
        self._calendar = self._state.get(f"airport/{airport}", type=Calendar) or Calendar()
        self._weather: dict[int, list[Observation]] = {}
        self._waiting: dict[int, list[Leg]] = {}
        self._changed: set[str] = set()

    def observe(self, seen: Observation) -> None:
        """Take an observation in."""
        self._calendar.known_until = max(self._calendar.known_until, seen.time)
        if seen.closing:
            return
        day = seen.time // DAY_S
        bisect.insort(self._weather_of(day), seen, key=lambda known: known.time)
        _enter(self._calendar.days, day)
        self._changed.add(f"weather/{self._airport}/{day}")

    def wait(self, leg: Leg) -> None:
        """Let a departure wait for its weather."""
        day = leg.scheduled // DAY_S
        self._waiting_of(day).append(leg)
        _enter(self._calendar.waiting, day)
        self._changed.add(f"waiting/{self._airport}/{day}")

    def settle(self) -> list[tuple[Leg, Observation | None]]:
        """Every waiting departure whose weather is complete, with the observation it gets."""
        until = self._calendar.known_until
        settled: list[tuple[Leg, Observation | None]] = []
        for day in [day for day in self._calendar.waiting if day * DAY_S < until]:
            legs = self._waiting_of(day)
            ready = sorted(
                (leg for leg in legs if leg.scheduled < until),
                key=lambda leg: (leg.scheduled, leg.row),
            )
            if not ready:
                continue
            self._waiting[day] = [leg for leg in legs if leg.scheduled >= until]
            self._changed.add(f"waiting/{self._airport}/{day}")
            if not self._waiting[day]:
                self._calendar.waiting.remove(day)
            settled.extend((leg, self._latest(leg.scheduled)) for leg in ready)
        return settled

    def save(self) -> None:
        """Write what this batch changed."""
        for day, seen in self._weather.items():
            self._put(f"weather/{self._airport}/{day}", seen)
        for day, legs in self._waiting.items():
            self._put(f"waiting/{self._airport}/{day}", legs)
        self._state.put(f"airport/{self._airport}", self._calendar)

    def _put(self, key: str, rows: list[Observation] | list[Leg]) -> None:
        if key not in self._changed:
            return
        if rows:
            self._state.put(key, rows)
        else:
            self._state.delete(key)

    def _latest(self, moment: int) -> Observation | None:
        """The last observation at or before `moment`, however long ago."""
        days = self._calendar.days
        for place in range(bisect.bisect_right(days, moment // DAY_S) - 1, -1, -1):
            seen = self._weather_of(days[place])
            count = bisect.bisect_right(seen, moment, key=lambda known: known.time)
            if count:
                return seen[count - 1]
        return None

    def _weather_of(self, day: int) -> list[Observation]:
        if day not in self._weather:
            key = f"weather/{self._airport}/{day}"
            self._weather[day] = self._state.get(key, type=list[Observation]) or []
        return self._weather[day]

    def _waiting_of(self, day: int) -> list[Leg]:
        if day not in self._waiting:
            key = f"waiting/{self._airport}/{day}"
            self._waiting[day] = self._state.get(key, type=list[Leg]) or []
        return self._waiting[day]


def _enter(days: list[int], day: int) -> None:
    """Put `day` into the ordered list, once."""
    place = bisect.bisect_left(days, day)
    if place == len(days) or days[place] != day:
        days.insert(place, day)
