"""What all alerts of one trade say alike is put into words once, and never said of another trade."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Decimal128, ObjectId

from notifications.rendering import delivery_key, trade_content


def alert(quantity: str = "5", **changes: Any) -> dict[str, Any]:
    return {
        "_id": ObjectId(), "event_key": "E-1", "symbol": "TCS", "side": "BUY", "action": "OPEN", "currency": "INR",
        "price": Decimal128("3500.50"), "priority": "high", "correlation_id": "c", "exit_fraction": None,
        "executed_at": datetime(2026, 3, 2, 9, 0, tzinfo=UTC), "expires_at": datetime(2026, 3, 2, 9, 5, tzinfo=UTC),
        "sizing": {"suggested_qty": Decimal128(quantity), "ratio": Decimal128("0.1")}, **changes,
    }  # fmt: skip


def test_alerts_of_one_trade_differ_by_their_own_figures_alone() -> None:
    one, other = alert("5"), alert("7.50")

    first, second = trade_content(one), trade_content(other)

    assert (first.title, second.title) == ("Buy 5 TCS @ 3500.5 INR", "Buy 7.5 TCS @ 3500.5 INR")
    own = {"notification_id", "suggested_qty"}
    assert {name for name in first.data if first.data[name] != second.data[name]} == own
    assert second.data["notification_id"] == str(other["_id"])


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"price": Decimal128("0.5")}, "Buy 5 TCS @ 0.5 INR"),
        ({"symbol": "INFY"}, "Buy 5 INFY @ 3500.5 INR"),
        ({"side": "SELL"}, "Sell 5 TCS @ 3500.5 INR"),
        ({"currency": ""}, "Buy 5 TCS @ 3500.5"),
        ({"sizing": None}, "Buy TCS @ 3500.5 INR"),
        ({"action": "CLOSE", "side": "SELL"}, "Close: sell TCS @ 3500.5 INR"),
    ],
)
def test_another_trade_has_words_of_its_own(change: dict[str, Any], title: str) -> None:
    trade_content(alert())
    assert trade_content(alert(**change)).title == title


def test_changing_an_alerts_data_changes_no_other() -> None:
    trade_content(alert()).data["symbol"] = "changed"
    assert trade_content(alert()).data["symbol"] == "TCS"


def test_a_key_is_the_same_for_every_attempt_and_keeps_its_leading_zeros() -> None:
    alike = ObjectId("0f" * 12)
    assert delivery_key(alike, ObjectId("0e" * 12)) == "01" * 12
    assert delivery_key(alike, alike) == "0" * 24
