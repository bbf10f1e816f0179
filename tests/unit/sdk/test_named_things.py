"""Streams and paths are taken as they are; a slip in an option is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import App, Consumer, Event, Files
from headrace.errors import Misuse
from headrace.sources import Lag, Missing, Silence


def test_triggers_take_streams_as_well_as_names() -> None:
    shop = App("shop")
    orders, paid = shop.stream("orders"), shop.external("paid")
    assert Silence(orders, after="5m") == Silence("orders", after="5m")
    assert Missing(orders, paid, within="5m") == Missing("orders", "paid", within="5m")
    assert Lag(shop.queue("jobs")).stream == "jobs"

    @shop.function(Silence(orders, after="5m"), Missing(orders, paid, within="5m"))
    def alarm(event: Event[Any]) -> None: ...

    @shop.function(Lag(orders))
    def work(consumer: Consumer[Any]) -> None: ...

    # They leave the process as names.
    assert [each.triggers for each in shop.spec().functions][1] == (Lag("orders"),)


def test_files_take_paths() -> None:
    assert Files(Path("in") / "box") == Files("in/box")


@pytest.mark.parametrize("wrong", [3, None, Path("orders"), ""])
def test_what_is_not_a_stream_is_refused(wrong: Any) -> None:
    with pytest.raises(Misuse, match="not a stream"):
        Silence(wrong, after="5m")
    with pytest.raises(Misuse, match="not a stream"):
        Missing("orders", wrong, within="5m")
    with pytest.raises(Misuse, match="not a stream"):
        Lag(wrong)


def test_an_unknown_option_of_a_stream_is_named_with_what_looks_like_it() -> None:
    shop = App("shop")
    slips: dict[str, Any] = {"retention": 3}
    with pytest.raises(Misuse, match=r"a stream has no option `partition` .did you mean"):
        shop.stream("orders", **{"partition": 3})  # type: ignore[call-overload]  # on purpose
    with pytest.raises(Misuse, match=r"a stream has no option `retention`.*retention_age"):
        shop.stream("orders", **slips)
    with pytest.raises(Misuse, match=r"a queue has no option `visibilty`.*visibility"):
        shop.queue("jobs", **{"visibilty": 3})  # type: ignore[call-overload]  # on purpose
    with pytest.raises(Misuse, match="another app has no option `valu`"):
        shop.external("other", **{"valu": int})  # type: ignore[call-overload]  # on purpose
    with pytest.raises(Misuse, match="a bus has no option `privat`"):
        shop.bus("news", **{"privat": True})  # type: ignore[arg-type]  # on purpose
    assert not shop.streams
