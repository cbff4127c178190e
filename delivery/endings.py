"""Deliveries that come to an end without a send, written down and counted (delivery/telemetry.py)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from delivery import statements, telemetry
from delivery.statements import Document
from followers.clock import as_utc
from notifications.choices import DeliveryState, Reason


def end_rows(batch: Document, state: DeliveryState, reason: Reason, only_expired_by: datetime | None = None) -> int:
    """`statements.end_rows`, counted. Returns the alerts that were changed."""
    held = [row for row in statements.load(batch) if only_expired_by is None or _is_over(row, only_expired_by)]
    changed = statements.end_rows(batch, state, reason, only_expired_by)
    telemetry.unsent(held, changed, state, reason, batch["_id"])
    return changed


def expire_free_rows(rows: Sequence[Document], now: datetime) -> int:
    """`statements.expire_free_rows`, counted. Returns the alerts that were changed."""
    changed = statements.expire_free_rows([row["_id"] for row in rows], now)
    telemetry.unsent(rows, changed, DeliveryState.EXPIRED, Reason.VALIDITY_OVER)
    return changed


def requeue_rows(batch: Document, rows: Sequence[Document], now: datetime, max_attempts: int) -> int:
    """`statements.requeue_rows`; those that are out of attempts end, and are counted."""
    changed = statements.requeue_rows(batch, [row["_id"] for row in rows], now, max_attempts)
    exhausted = [row for row in rows if _attempts_after(row, batch) >= max_attempts]
    telemetry.unsent(exhausted, changed, DeliveryState.UNKNOWN, Reason.ATTEMPTS_EXHAUSTED, batch["_id"])
    return changed


def _is_over(row: Document, now: datetime) -> bool:
    return as_utc(row["expires_at"]) <= now


def _attempts_after(row: Document, batch: Document) -> int:
    """The attempts of the delivery in hand, with the one that its worker died in; a person's retry begins anew."""
    delivery = statements.delivery_in(row, batch["_id"])
    attempts: Any = delivery["attempts"] + 1 - delivery.get("attempts_before_retry", 0)
    return int(attempts)
