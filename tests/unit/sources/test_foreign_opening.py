from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from importlib import metadata

import pytest
from tests.unit.model.test_foreign_triggers import PLAIN

from headrace.environment.clock import SystemClock
from headrace.environment.randomness import SeededEntropy
from headrace.model.errors import Misuse
from headrace.model.triggers.foreign import Foreign, ForeignTrigger, RedisStream
from headrace.sources.foreign.base import DriverContext, address_of
from headrace.sources.foreign.feed import ForeignFeed
from headrace.sources.foreign.open import GROUP, driver_of, open_foreign

AROUND = DriverContext("app-f", SystemClock(), SeededEntropy(1))
"""Where drivers are opened; none of them is connected."""


class Acme:
    """A third party's driver, as far as it takes to be opened."""

    def __init__(self, settings: Mapping[str, object], around: DriverContext) -> None:
        self.settings = settings
        self.name = around.name


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = metadata.EntryPoints(
        [
            metadata.EntryPoint("acme", f"{__name__}:Acme", GROUP),
            metadata.EntryPoint("broken", "there.is.no.such:thing", GROUP),
        ]
    )
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.parametrize(
    "trigger",
    [each for each in PLAIN if not isinstance(each, Foreign)],
    ids=lambda trigger: type(trigger).__name__,
)
async def test_every_trigger_of_ours_has_a_driver(trigger: ForeignTrigger) -> None:
    pytest.importorskip("redis")
    found = open_foreign("app.f", trigger, clock=SystemClock(), entropy=SeededEntropy(1))
    assert isinstance(found, ForeignFeed)


@pytest.mark.usefixtures("offered")
def test_a_third_partys_driver_is_found_by_its_entry_point() -> None:
    driver: object = driver_of(Foreign("acme", {"place": "here"}), AROUND)
    assert isinstance(driver, Acme)
    assert driver.settings == {"place": "here"}
    assert driver.name == "app-f"


@pytest.mark.usefixtures("offered")
def test_a_driver_nobody_offers_is_refused_with_those_there_are() -> None:
    with pytest.raises(Misuse, match=r"no installed package offers a source `amce`.*`acme`"):
        driver_of(Foreign("amce"), AROUND)


@pytest.mark.usefixtures("offered")
def test_a_driver_that_cannot_be_loaded_says_why() -> None:
    with pytest.raises(Misuse, match="the source `broken` cannot be opened: No module named"):
        driver_of(Foreign("broken"), AROUND)


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.partition(".")[0] == "redis":
            raise ModuleNotFoundError("No module named 'redis'", name="redis")
        return real(name, *rest)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.delitem(sys.modules, "headrace.sources.foreign.redis", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        Misuse, match=r"not installed \(redis\); run `pip install \"headrace\[redis"
    ):
        driver_of(RedisStream("orders"), AROUND)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:secret@broker.example:5672/shop", "amqp://broker.example:5672"),
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ("unix:///run/redis.sock", "unix://..."),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert address_of(url) == shown
