"""A shop's calendar: a report every working morning, a check every quarter of an hour, a sale on its day."""

from __future__ import annotations

from headrace import App, At, Cron, Event, Every

app = App("calendar", owner="shop")
reports = app.stream("reports")
checks = app.stream("checks")


@app.function(Cron("0 7 * * MON-FRI", tz="Europe/Berlin"), output=reports)
def morning_report(event: Event[dict[str, str]]) -> dict[str, str]:
    """Seven o'clock in Berlin, summer and winter."""
    return {"report": "morning", "for": event.value["time"]}


@app.function(Cron("cron(0 18 L * ? *)", misfire="all"), output=reports)
def close_month(event: Event[dict[str, str]]) -> dict[str, str]:
    """The last day of the month as AWS writes it; a month that was missed is made up for."""
    return {"report": "month", "for": event.value["time"]}


@app.function(Every("15m", misfire="skip", payload={"check": "stock"}), output=checks)
def check_stock(event: Event[dict[str, str]]) -> dict[str, str]:
    """A check that was missed is not worth making up for."""
    return event.value


@app.function(
    At("2026-11-27T00:00", tz="Europe/Berlin", payload={"sale": "starts"}), output=reports
)
def start_sale(event: Event[dict[str, str]]) -> dict[str, str]:
    """Once."""
    return event.value
