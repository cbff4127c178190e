"""What the page of one review item says: why it is here, what can be done, and what happened, delivery by delivery.

The timelines are those of any alert: its own page shows them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from bson import ObjectId
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from delivery.attempt_log import ATTEMPTS_KEPT
from delivery.choices import BreakerStatus
from delivery.explanations import STATES, doubt, explain
from delivery.models import BreakerChange, ReviewItem
from delivery.review import Outlook, outlook_elsewhere, outlook_of_retry
from followers import clock
from followers.admin_base import EMPTY, badge, link, moment, table
from followers.choices import VENDOR_CHANNELS, Channel
from followers.models import Endpoint
from followers.mongo import collection, durably
from notifications.choices import AckEvent, DeliveryState, Reason, ReviewReason
from notifications.models import Attempt, Delivery, Notification
from notifications.reviews import REQUESTED, TROUBLED

Document = dict[str, Any]

CHANGES_SHOWN = 50
HISTORY_SHOWN = 50
_OUTCOMES = {
    "sent": ("accepted", "green"),
    "retry": ("failed, tried again later", "orange"),
    "throttled": ("asked to wait", "orange"),
    "misconfigured": ("our set-up refused", "red"),
    "refused": ("refused", "red"),
    "dead": ("address is dead", "red"),
    "unknown": ("no answer", "orange"),
    "expired": ("too late", "grey"),
    "receipt": ("the vendor's receipt", "grey"),
    REQUESTED: ("asked for by a person", "blue"),
}
_BREAKERS = {BreakerStatus.CLOSED: "green", BreakerStatus.OPEN: "red", BreakerStatus.HALF_OPEN: "orange"}
_STATES: dict[str, str] = {DeliveryState.FAILED: "red", DeliveryState.UNKNOWN: "orange", DeliveryState.QUEUED: "blue"}
_STATES |= {DeliveryState.SENT: "green", DeliveryState.DELIVERED: "green"}


class Line(NamedTuple):
    """One line of a timeline."""

    at: datetime
    event: SafeString | str
    answer: SafeString | str = EMPTY
    took: str = EMPTY
    breaker: SafeString | str = EMPTY


# --- Why it is here ---------------------------------------------------------------------------------------------------
def worst_delivery(item: ReviewItem) -> Delivery | None:
    """The one to name where there is room for one: unknown before failed, failed before the rest."""
    order = [DeliveryState.UNKNOWN, DeliveryState.FAILED, DeliveryState.QUEUED]
    troubled = [d for d in item.deliveries if d.endpoint is not None and (d.error_code or d.state in TROUBLED)]
    return min(troubled, key=lambda d: order.index(d.state) if d.state in order else len(order), default=None)


def why_here(item: ReviewItem) -> SafeString:
    review = item.review
    reason = str(ReviewReason(review.reason).label) if review.reason in ReviewReason.values else review.reason
    if not review.open:
        ended = f"Resolved by {review.resolved_by}, {moment(review.resolved_at)}"
        return _paragraphs([f"{ended}. It was here because: {reason}.", review.note and f"Note: {review.note}"])
    queued = [d for d in item.deliveries if d.state == DeliveryState.QUEUED]
    waits = "A delivery is under way at this moment; if it arrives and nothing else is wrong, this settles itself."
    return _paragraphs(
        [f"{reason}.", waits if queued else "", review.note and f"Note of an earlier end: {review.note}"]
    )


def _paragraphs(texts: list[str]) -> SafeString:
    lines = format_html_join("", "<p>{}</p>", ((text,) for text in texts if text))
    return format_html('<div class="flex flex-col gap-1">{}</div>', lines)


# --- What can be done -------------------------------------------------------------------------------------------------
def options(item: ReviewItem, now: datetime) -> SafeString:
    """Each way on, and what stands in it."""
    retry = outlook_of_retry([item.pk], now)
    elsewhere = outlook_elsewhere([item.pk], VENDOR_CHANNELS, now)
    rows = [("Retry", *_option(retry))]
    rows += [(f"Send on {channel.label}", *_option(outlook)) for channel, outlook in elsewhere.items()]
    return table(("", "Possible", "Because"), rows)


def _option(outlook: Outlook) -> tuple[SafeString, str]:
    if outlook.wanted:
        channels = ", ".join(f"{count} × {Channel(name).label}" for name, count in outlook.channels.items())
        warning = " A second message may arrive." if outlook.doubtful else ""
        return badge("yes", "green"), f"{channels}.{warning}"
    return badge("no", "grey"), "; ".join(f"it is {obstacle.label}" for obstacle in outlook.obstacles) or "it is gone"


# --- Deliveries -------------------------------------------------------------------------------------------------------
def timelines(item: Notification, addresses: dict[ObjectId, str], now: datetime) -> SafeString:
    """Every delivery with an address, those in trouble first. `addresses` are the endpoints' masked ones."""
    outside = [d for d in item.deliveries if d.endpoint is not None]
    outside.sort(key=lambda d: d.state not in TROUBLED)
    return format_html_join("", "{}", ((_timeline(item, d, addresses, now),) for d in outside)) or format_html(
        "{}", EMPTY
    )


def _timeline(item: Notification, delivery: Delivery, addresses: dict[ObjectId, str], now: datetime) -> SafeString:
    lines = sorted([*_life(item, delivery), *_breaker_lines(item, delivery, now)], key=lambda line: line.at)
    address = link(Endpoint, delivery.endpoint, addresses.get(delivery.endpoint, f"{delivery.endpoint} (gone)"))
    head = format_html(
        '<div class="flex flex-wrap gap-3 items-center">{} <strong>{}</strong> {} <span>{}</span></div>',
        badge(DeliveryState(delivery.state).label, _STATES.get(delivery.state, "grey")),
        Channel(delivery.channel).label,
        address,
        f"{delivery.attempts} attempt{'' if delivery.attempts == 1 else 's'}",
    )
    story = table(
        ("When", "What", "Answer", "Took", "Breaker"),
        ((moment(line.at), line.event, line.answer, line.took, line.breaker) for line in lines),
    )
    return format_html('<div class="flex flex-col gap-3 mb-8 w-full">{}{}{}</div>', head, explained(delivery), story)


def explained(delivery: Delivery) -> SafeString:
    """The state and the code of a delivery in words, and what to do about it."""
    if delivery.state not in TROUBLED and not delivery.error_code:
        return format_html("<p>{}</p>", STATES[delivery.state])
    words = explain(delivery.channel, delivery.error_code)
    texts = [f"{STATES[delivery.state]} {words.what}", *_last_words(delivery)]
    todo = [words.todo]
    if delivery.state == DeliveryState.UNKNOWN:
        todo.append(doubt(delivery.channel))
    own = f"{delivery.error_code}: {delivery.error_message}" if delivery.error_message else delivery.error_code
    return _paragraphs([*texts, f"What to do: {' '.join(todo)}", f"In full: {own}"])


def _last_words(delivery: Delivery) -> Iterator[str]:
    """What the last real attempt said, where the delivery's own code only sums up."""
    codes = [a.code for a in delivery.attempt_log if a.outcome not in {REQUESTED, "sent"} and a.code]
    if (
        codes
        and delivery.error_code in {Reason.ATTEMPTS_EXHAUSTED, Reason.NO_ANSWER}
        and codes[-1] != delivery.error_code
    ):
        yield f"The last attempt: {explain(delivery.channel, codes[-1]).what} ({codes[-1]})"


def _life(item: Notification, delivery: Delivery) -> Iterator[Line]:
    log: list[Attempt] = delivery.attempt_log
    yield Line(item.created_at, "alert created")
    for attempt in log:
        words, colour = _OUTCOMES.get(attempt.outcome, (attempt.outcome, "grey"))
        answer = format_html("<strong>{}</strong> {}", attempt.code, attempt.message)
        took = EMPTY if attempt.latency_ms is None else f"{attempt.latency_ms:,.1f} ms"
        yield Line(attempt.at, badge(words, colour), answer, took, _breaker(attempt.breaker))
    if len(log) >= ATTEMPTS_KEPT:
        kept = f"The log keeps the newest {ATTEMPTS_KEPT}, and every doubt and decision before them."
        yield Line(item.created_at, "the oldest attempts", kept)
    if delivery.delivered_at is not None:
        yield Line(delivery.delivered_at, badge("delivered", "green"))
    for event in AckEvent:
        if (at := getattr(delivery.acks, event.value, None)) is not None:
            yield Line(at, badge(f"{event.label.lower()}, says the app", "green"))
    if delivery.state == DeliveryState.QUEUED and delivery.next_attempt_at is not None:
        yield Line(delivery.next_attempt_at, badge("in progress" if delivery.batch else "next attempt", "blue"))
    yield Line(item.expires_at, "end of validity")


def _breaker(status: str) -> SafeString | str:
    return badge(BreakerStatus(status).label, _BREAKERS[BreakerStatus(status)]) if status else EMPTY


def _breaker_lines(item: Notification, delivery: Delivery, now: datetime) -> Iterator[Line]:
    """How the channel's circuit breaker changed during the delivery's life, and where it stood at its beginning.

    Index: delivery_breakerchange (channel, at).
    """
    begin, end = item.created_at, _end_of(item, delivery, now)
    changes = collection(BreakerChange)
    own: Document = {"channel": delivery.channel}
    before = durably(lambda: list(changes.find({**own, "at": {"$lt": begin}}).sort("at", -1).limit(1)))
    during = durably(
        lambda: list(changes.find({**own, "at": {"$gte": begin, "$lte": end}}).sort("at", 1).limit(CHANGES_SHOWN))
    )
    if before and before[0]["status_after"] != BreakerStatus.CLOSED:
        since = f"since {moment(clock.as_utc(before[0]['at']))}: {before[0]['reason']}"
        yield Line(begin, "the channel's breaker was", since, EMPTY, _breaker(before[0]["status_after"]))
    for change in during:
        answer = format_html("{} <em>({})</em>", change["reason"], change["by"])
        yield Line(clock.as_utc(change["at"]), "breaker changed", answer, EMPTY, _breaker(change["status_after"]))


def _end_of(item: Notification, delivery: Delivery, now: datetime) -> datetime:
    times = [at for at in (delivery.last_attempt_at, delivery.sent_at, delivery.delivered_at) if at is not None]
    if delivery.state == DeliveryState.QUEUED or not times:
        return min(now, max(item.expires_at, item.review.opened_at if item.review else item.expires_at))
    return max(times) + timedelta(seconds=60)  # The attempt itself may have been what opened it.


# --- What people did --------------------------------------------------------------------------------------------------
def history(item: ReviewItem) -> SafeString:
    """Who decided what, and why, the newest first. Index: django_admin_log (object_id, action_time)."""
    query = {"object_id": str(item.pk)}
    entries = durably(lambda: list(collection(LogEntry).find(query).sort("action_time", -1).limit(HISTORY_SHOWN)))
    names = _usernames({entry["user_id"] for entry in entries})
    return table(
        ("When", "Who", "What and why"),
        (
            (
                moment(clock.as_utc(e["action_time"])),
                names.get(e["user_id"], "somebody who is gone"),
                e["change_message"],
            )
            for e in entries
        ),
    )


def _usernames(ids: set[ObjectId]) -> dict[ObjectId, str]:
    return dict(User.objects.filter(pk__in=list(ids)).values_list("pk", "username"))
