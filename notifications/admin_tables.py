"""What the admin's pages say about an alert: its deliveries as a table, its sizing in words, an event's outcomes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from bson import ObjectId
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from followers.admin_base import EMPTY, badge, link, list_link, moment, plain, table
from followers.choices import Channel
from followers.models import Endpoint
from followers.mongo import collection, durably
from notifications.choices import AckEvent, DeliveryState, FanOutState, Kind, NotificationState, Priority, Reason
from notifications.models import Attempt, Delivery, Notification, Sizing, TradeEvent, Update
from notifications.statements import EVENT_INDEX

_COLOURS: dict[str, str] = {
    NotificationState.PENDING: "blue",
    NotificationState.DELIVERED: "green",
    NotificationState.PARTIAL: "orange",
    NotificationState.FAILED: "red",
    DeliveryState.QUEUED: "blue",
    DeliveryState.SENT: "green",
    DeliveryState.UNKNOWN: "orange",
    FanOutState.DONE: "green",
    Priority.CRITICAL: "red",
    Priority.HIGH: "blue",
}
"""States share words and colours; whatever is not named here is grey."""


def state_badge(state: str, label: str) -> SafeString:
    return badge(label, _COLOURS.get(state, "grey"))


def labelled(choices: Any, chosen: Any) -> SafeString:
    return state_badge(chosen, str(choices(chosen).label)) if chosen in choices.values else state_badge("", str(chosen))


# --- Events ----------------------------------------------------------------------------------------------------------
def outcome_counts(event_id: ObjectId) -> dict[str, int]:
    """How many alerts of an event are in which state. Index: notifications_notification (event_id, state), covered."""
    pipeline: list[dict[str, Any]] = [
        {"$match": {"event_id": event_id}},
        {"$group": {"_id": "$state", "count": {"$sum": 1}}},
    ]
    rows = durably(lambda: list(collection(Notification).aggregate(pipeline, hint=EVENT_INDEX)))
    return {row["_id"]: row["count"] for row in rows}


def event_link(event_id: ObjectId | None, kind: str, text: object) -> SafeString:
    """A link to the page of a trade, or of the general update that stands where a trade does."""
    return link(Update if kind == Kind.UPDATE else TradeEvent, event_id, text)


def outcomes_of(event: TradeEvent | Update) -> dict[str, int]:
    """`outcome_counts`, counted once for the page that shows this object."""
    page: Any = event
    if not hasattr(page, "outcome_counts"):
        page.outcome_counts = outcome_counts(event.pk)
    return page.outcome_counts  # type: ignore[no-any-return]


def outcome_table(event: TradeEvent | Update) -> SafeString:
    counts = outcomes_of(event)
    return table(
        ("State", "Alerts"),
        (
            (
                state_badge(state, str(state.label)),
                list_link(Notification, f"{counts[state]:,}", event__id__exact=event.pk, state=state.value),
            )
            for state in NotificationState
            if counts.get(state)
        ),
    )


# --- Deliveries ------------------------------------------------------------------------------------------------------
def delivery_summary(notification: Notification) -> SafeString:
    """One badge a delivery, for lists."""
    badges = format_html_join(
        "",
        "{}",
        ((badge(f"{d.channel} {_state_label(d)}", _COLOURS.get(d.state, "grey")),) for d in notification.deliveries),
    )
    return format_html('<div class="flex flex-wrap gap-1">{}</div>', badges or EMPTY)


def deliveries_table(notification: Notification, addresses: dict[ObjectId, str]) -> SafeString:
    """Every delivery with all its fields, and its attempts below. `addresses` are the endpoints' masked ones."""
    return format_html_join("", "{}", ((_delivery(d, addresses),) for d in notification.deliveries)) or format_html(
        "{}", EMPTY
    )


def _state_label(delivery: Delivery) -> str:
    in_progress = delivery.state == DeliveryState.QUEUED and delivery.batch is not None
    return "in progress" if in_progress else str(DeliveryState(delivery.state).label)


def _delivery(delivery: Delivery, addresses: dict[ObjectId, str]) -> SafeString:
    endpoint = delivery.endpoint
    address = link(Endpoint, endpoint, addresses.get(endpoint, f"{endpoint} (gone)")) if endpoint else EMPTY
    facts = table(
        ("Channel", "Address", "State", "Attempts", "Vendor's message id"),
        [
            (
                Channel(delivery.channel).label,
                address,
                badge(_state_label(delivery), _COLOURS.get(delivery.state, "grey")),
                delivery.attempts,
                delivery.provider_message_id or EMPTY,
            )
        ],
    )
    acks = [getattr(delivery.acks, event, None) for event in AckEvent.values]
    known = (delivery.last_attempt_at, delivery.next_attempt_at, delivery.sent_at, delivery.delivered_at, *acks)
    times = table(
        ("Last attempt", "Next attempt", "Sent", "Delivered", *(f"{event.label} in the app" for event in AckEvent)),
        [tuple(map(moment, known))],
    )
    trouble = table(
        ("Error code", "Error message", "Batch"),
        [(delivery.error_code or EMPTY, delivery.error_message or EMPTY, str(delivery.batch or EMPTY))],
    )
    log = _attempts(delivery)
    return format_html('<div class="flex flex-col gap-2 mb-6 w-full">{}{}{}{}</div>', facts, times, trouble, log)


def _attempts(delivery: Delivery) -> SafeString:
    log: list[Attempt] = delivery.attempt_log or []
    if not log:
        return format_html('<p class="text-sm">{}</p>', "No attempt is logged.")
    return table(
        ("Attempt at", "Outcome", "Code", "Message", "Took"),
        (
            (
                moment(attempt.at),
                attempt.outcome,
                attempt.code or EMPTY,
                attempt.message or EMPTY,
                EMPTY if attempt.latency_ms is None else f"{attempt.latency_ms:,.1f} ms",
            )
            for attempt in log
        ),
    )


# --- Sizing ----------------------------------------------------------------------------------------------------------
def sizing_words(notification: Notification) -> list[str]:
    """How the suggested quantity came about, a sentence a step, for support to read out."""
    sizing: Sizing | None = notification.sizing
    if sizing is None:
        return ["No quantity: this alert is not for one person, or it is about no trade."]
    currency = f" {notification.currency}" if notification.currency else ""
    words = [_inputs(sizing, currency)]
    if sizing.ratio:
        words.append(
            f"{plain(sizing.executed_qty)} × {plain(sizing.follower_portfolio)} / {plain(sizing.trader_portfolio)} "
            f"× {plain(sizing.multiplier)}, rounded down to steps of {plain(sizing.quantity_step)}; "
            f"the ratio is {plain(sizing.ratio)}."
        )
    if sizing.capped:
        words.append(f"The follower's limit of {plain(sizing.max_notional)}{currency} made it smaller.")
    words.append(
        f"Result: {plain(sizing.suggested_qty)} at {plain(notification.price)}{currency}, "
        f"worth {plain(sizing.notional)}{currency}."
    )
    if sizing.exit_fraction is not None:
        share = plain((sizing.exit_fraction * 100).quantize(Decimal("0.01")))
        words.append(f"An exit: the follower is told to give up {share} % of what they hold.")
    if sizing.is_estimate:
        words.append("On an exit the quantity is an estimate; the follower may hold more or less.")
    if sizing.reason:
        words.append(f"Skipped: {Reason(sizing.reason).label} ({sizing.reason}).")
    return words


def _inputs(sizing: Sizing, currency: str) -> str:
    def known(number: Decimal | None) -> str:
        return "not known" if number is None else plain(number)

    limit = "no limit" if sizing.max_notional is None else f"a limit of {plain(sizing.max_notional)}{currency}"
    return (
        f"The trader executed {known(sizing.executed_qty)} with a portfolio of {known(sizing.trader_portfolio)}. "
        f"The follower counts with {known(sizing.follower_portfolio)} (the allocation, where one is set), "
        f"a multiplier of {known(sizing.multiplier)} and {limit}. "
        f"Steps of {known(sizing.quantity_step)}, at least {known(sizing.min_quantity)} "
        f"and worth at least {known(sizing.min_notional)}{currency}."
    )


def sizing_list(notification: Notification) -> SafeString:
    lines = ((sentence,) for sentence in sizing_words(notification))
    return format_html(
        '<ul class="list-disc pl-4 flex flex-col gap-1">{}</ul>', format_html_join("", "<li>{}</li>", lines)
    )
