"""`headrace new`: a small project that runs, with its tests. Writes only into a new or empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import click

from headrace.model.errors import Misuse

APP = '''"""Counts what was sold: an order comes in, a total goes out."""

import msgspec

from headrace import App, Batch, Context, DeadLetter, Retry

app = App("{name}", owner="{name}-team")


class Order(msgspec.Struct):
    item: str
    quantity: int
    price: float


class Total(msgspec.Struct):
    item: str
    sold: int = 0
    revenue: float = 0.0


orders = app.stream("{name}.orders", partitions=4, value=Order)
totals = app.stream("{name}.totals", partitions=4, value=Total)
kept = app.store("totals", Total)


@app.function(
    orders, publishes=[totals], batch_size=500, retry=Retry(attempts=3), on_failure=DeadLetter()
)
def count(events: Batch[Order], context: Context) -> None:
    """Add each order to the total of its item."""
    known = context.store(kept)
    for event in events:
        order = event.value
        if order.quantity <= 0:
            context.fail(event, f"an order of {{order.quantity}} pieces makes no sense")
            continue
        total = known.get(order.item, Total(order.item))
        total.sold += order.quantity
        total.revenue += order.quantity * order.price
        known[order.item] = total
        context.publish(totals, key=order.item, value=total)
'''

TEST = '''"""A handler is an ordinary function: call it."""

from app import Order, Total, count, kept, orders

from headrace.testing import batch, context


def test_orders_of_an_item_are_added_up() -> None:
    given = context()
    count(batch([Order("tea", 2, 3.5), Order("tea", 1, 3.5)], stream=orders, key="tea"), given)
    assert given.store(kept)["tea"] == Total("tea", sold=3, revenue=10.5)
    assert [total.value.sold for total in given.published] == [2, 3]


def test_an_order_of_nothing_fails_alone() -> None:
    given = context()
    count(batch([Order("tea", 0, 3.5), Order("tea", 1, 3.5)], stream=orders, key="tea"), given)
    assert given.store(kept)["tea"] == Total("tea", sold=1, revenue=3.5)
    assert [event.value.quantity for event in given.failed] == [0]
'''

WORLD = '''"""The app on a whole node, on virtual time: crashes and retries take milliseconds."""

from app import Order, Total, app, orders, totals

from headrace.testing import World


def test_orders_are_counted_once_though_the_node_dies() -> None:
    with World(app) as world:
        world.publish(orders, Order("tea", 2, 3.5), Order("tea", 1, 3.5), key="tea")
        world.deliver_twice()
        world.run_until_idle()
        assert world.values(totals)[-1] == Total("tea", sold=3, revenue=10.5)
        assert world.deaths


def test_an_order_of_nothing_becomes_a_dead_letter() -> None:
    with World(app) as world:
        world.publish(orders, Order("tea", 0, 3.5), key="tea")
        world.run_until_idle()
        assert [letter.function for letter in world.dead_letters()] == ["{name}.count"]
        assert world.values(totals) == []
'''

PROJECT = """[project]
name = "{project}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["headrace"]

[dependency-groups]
dev = ["headrace[test]", "mypy"]

[tool.mypy]
strict = true
files = ["."]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

README = """# {name}

Counts what was sold. Orders come in on `{name}.orders`; running totals go out on `{name}.totals`.

```console
headrace dev
```

In a second terminal, in this folder:

```console
headrace publish {name}.orders '{{"item": "tea", "quantity": 2, "price": 3.5}}' --key tea
headrace publish {name}.orders --file orders.jsonl --key-field item
headrace tail {name}.totals
headrace state list {name}
headrace map
```

One line of `orders.jsonl` is wrong on purpose: it ends as a dead letter, and the others do not wait.

```console
headrace dead list
```

Test it, and check its types:

```console
pip install 'headrace[test]' mypy
python -m pytest
mypy
```
"""

SETTINGS = """# Settings of the node; docs/reference/settings.md of Headrace lists them all.
[node]
targets = ["app.py"]
data = ".headrace"
port = 4280

# What a decorator says can be overridden here, per function or stream.
[functions."{name}.count"]
timeout = 10.0
retry = {{ attempts = 3, initial_delay = 0.1 }}

# What the app declares with `app.setting("RATE", float, default=1.0)` is given here, by
# HEADRACE_APP_..._RATE or by `--set {name}.RATE=2`; secrets are named in the app and kept elsewhere.
# [apps."{name}".settings]
# RATE = 2.0

# Another environment: HEADRACE_ENV=production headrace serve
[env.production.node]
port = 8080
"""

ORDERS = """{"item": "tea", "quantity": 2, "price": 3.5}
{"item": "coffee", "quantity": 1, "price": 4.0}
{"item": "tea", "quantity": 0, "price": 3.5}
{"item": "tea", "quantity": 5, "price": 3.5}
"""

IGNORE = ".headrace/\n.venv/\n__pycache__/\n.mypy_cache/\n.pytest_cache/\n"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,59}")


@click.command("new")
@click.argument("name")
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write into this folder  [default: one called NAME].",
)
def new_command(name: str, folder: Path | None) -> None:
    """Write a small project called NAME that runs, with tests."""
    if not _NAME.fullmatch(name):
        raise click.BadParameter(
            f"`{name}` cannot be an app's name; use lower-case letters, digits, `_` and `-`, "
            "beginning with a letter",
            param_hint="NAME",
        )
    where = folder or Path(name)
    written = write_project(name, where)
    click.echo(f"wrote `{where}`: {', '.join(written)}")
    click.echo(f"go on with: cd {where} && headrace dev")


def write_project(name: str, folder: Path) -> list[str]:
    """Write the files; their names.

    Raises:
        Misuse: The folder is not empty, or cannot be written.
    """
    files = {
        "app.py": APP.format(name=name),
        "test_app.py": TEST,
        "test_world.py": WORLD.format(name=name),
        "orders.jsonl": ORDERS,
        "headrace.toml": SETTINGS.format(name=name),
        "pyproject.toml": PROJECT.format(project=name.rstrip("-_")),
        "README.md": README.format(name=name),
        ".gitignore": IGNORE,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Misuse(f"`{folder}` is not empty; choose another name, or a folder with `--in`")
        for file, text in files.items():
            (folder / file).write_text(text)
    except OSError as error:
        raise Misuse(
            f"`{folder}` cannot be written: {error.strerror}; choose another folder with `--in`"
        ) from error
    return list(files)
