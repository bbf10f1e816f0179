"""An instance that asks for much and takes nothing makes its host hold little, and is heard again later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.integration.runtime_fleets import Services, house

from headrace.model.outcome import Returned, TimedOut
from headrace.model.stores import StoreAddress

ASKED = 40
BIG = bytes(900_000)
CODE = f"""
from headrace.runtime.protocol.messages import Ask, ReadState

def ask_and_take_nothing():
    frame = sys._getframe()
    while not hasattr(frame.f_locals.get("self"), "_channel"):
        frame = frame.f_back
    channel = frame.f_locals["self"]._channel
    for number in range(1_000, 1_000 + {ASKED}):
        channel.send_now(Ask(number, ReadState(["big"] * 8)))

@app.function(orders)
def greedy(event):
    ask_and_take_nothing()
    time.sleep(60)

@app.function(orders)
def late(event, context):
    ask_and_take_nothing()
    time.sleep(0.2)
    # Takes what came before it, too.
    assert context.state.get("small", type=bytes) is None
"""


class Counted(Services):
    """State in which one key is large; counts the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows["big"] = (1, BIG)
        self.questions = 0

    async def read_state(
        self, store: StoreAddress, keys: Sequence[str]
    ) -> list[tuple[int, bytes | None]]:
        self.questions += 1
        return await super().read_state(store, keys)


async def test_who_takes_no_answers_is_answered_no_more(tmp_path: Path) -> None:
    services = Counted()
    async with house(tmp_path, services=services) as home:
        await home.deploy(CODE)
        outcome = await home.run("greedy", within=2.0)
        assert isinstance(outcome, TimedOut)
        # One answer fills the socket, and one the host's own buffer.
        assert 1 <= services.questions <= ASKED // 4


async def test_who_takes_them_late_gets_all(tmp_path: Path) -> None:
    services = Counted()
    async with house(tmp_path, services=services) as home:
        await home.deploy(CODE)
        outcome = await home.run("late", within=60.0)
        assert isinstance(outcome, Returned)
        assert outcome.error is None
        assert services.questions == ASKED + 1
