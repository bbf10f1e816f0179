"""A search index that is not rebuilt for every keystroke, and a partner who must not be overrun."""

from typing import Any

from headrace import App, Debounce, Event, Sample, Singleton, Throttle

app = App("search", owner="catalogue")
edits = app.stream("edits")
reports = app.stream("reports")
indexed = app.stream("indexed")
told = app.stream("told")
mailed = app.stream("mailed")


@app.function(edits, debounce=Debounce("5s", longest="1m"), output=indexed)
def index(event: Event[dict[str, Any]]) -> dict[str, Any]:
    """Index a product once its editor pauses, and every minute where none does."""
    return event.value


@app.function(edits, throttle=Throttle(2, per="1s"), batch_size=1, output=told)
def tell(event: Event[dict[str, Any]]) -> dict[str, Any]:
    """Tell the partner of every edit, twice a second at most."""
    return event.value


@app.function(
    reports, sample=Sample(1, per="1h"), singleton=Singleton("wait"), parallelism=4, output=mailed
)
def mail(event: Event[dict[str, Any]]) -> dict[str, Any]:
    """Mail an alarm, one an hour for each machine; the others count as done."""
    return event.value
