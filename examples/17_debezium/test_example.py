"""Records as Debezium's connector for PostgreSQL writes them; the node dies in between."""

from __future__ import annotations

from typing import Any

from function import Invoice, app

from headrace.testing import World

SOURCE = {"connector": "postgresql", "schema": "public", "table": "orders", "lsn": 24023128}


def test_an_order_that_becomes_paid_is_invoiced_once() -> None:
    new: dict[str, Any] = {"id": 1, "state": "new", "total": 5.0}
    paid = {**new, "state": "paid"}
    records: list[tuple[str, Any, Any]] = [
        ("c", None, new),
        ("u", new, paid),
        ("u", paid, {**paid, "total": 8.0}),
        ("d", paid, None),
    ]
    with World(app) as world:
        for op, before, after in records:
            world.publish(
                "shop.public.orders",
                {"before": before, "after": after, "op": op, "source": SOURCE, "ts_ms": 1},
                key='{"id":1}',
            )
            world.crash()
        world.publish("shop.public.orders", None, key='{"id":1}')
        world.run_until_idle()
        assert world.values("invoices") == [Invoice(1, 5.0)]
        assert world.left_out("invoicing.invoice") == {"debezium/tombstone": 1}
