"""What a person can decide about review items: what each decision asks, foretells, and does.

Every decision is previewed first, needs a note, and is kept in the admin's history of each item that it changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import ObjectId
from django import forms
from django.contrib.auth.models import User
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from delivery.review import Obstacle, Outlook, outlook_elsewhere, outlook_of_retry, send_again
from followers.admin_base import EMPTY, badge, table
from followers.choices import VENDOR_CHANNELS, Channel
from notifications import reviews

DECIDED_AT_ONCE = 10_000
"""Items per click, the newest first, so that the page answers in time; the next click takes the next ones."""

NOTE_MAX = 400
DOUBT = (
    "{count:,} of these messages may have arrived before, and SMS and Discord do not recognise a repeat: "
    "whoever got the first one gets a second. Retry them only if that is better than nothing."
)


class DecisionForm(forms.Form):
    """Why it is decided so."""

    note = forms.CharField(
        max_length=NOTE_MAX,
        label="Note",
        help_text="Why; it is kept in the history of each item.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
    )

    def __init__(self, data: Any, me: str) -> None:
        super().__init__(data)


class ElsewhereForm(DecisionForm):
    channel = forms.ChoiceField(
        label="Channel", choices=[(c.value, c.label) for c in VENDOR_CHANNELS], widget=UnfoldAdminSelectWidget()
    )
    field_order = ("channel", "note")


class AssignForm(DecisionForm):
    assignee = forms.ChoiceField(label="Assign to", required=False, widget=UnfoldAdminSelectWidget())
    field_order = ("assignee", "note")

    def __init__(self, data: Any, me: str) -> None:
        super().__init__(data, me)
        staff = User.objects.filter(is_staff=True, is_active=True)
        others = sorted(name for name in staff.values_list("username", flat=True) if name != me)
        choices = [(me, f"{me} (me)"), ("", "nobody"), *((name, name) for name in others)]
        assignee: Any = self.fields["assignee"]
        assignee.choices = choices
        assignee.initial = me
        self.fields["note"].initial = "To look after it."


@dataclass(slots=True)
class Preview:
    """What a decision would do."""

    can: int  # How many items it would change.
    summary: str
    warning: str = ""
    details: SafeString | str = ""


@dataclass(slots=True)
class Done:
    """What a decision did."""

    changed: list[ObjectId] = field(default_factory=list)
    history: str = ""
    message: str = ""


class Decision:
    """One kind of decision."""

    name: str
    title: str
    icon: str
    form: type[DecisionForm] = DecisionForm

    def preview(self, ids: Sequence[ObjectId], now: datetime) -> Preview:
        raise NotImplementedError

    def decide(self, ids: Sequence[ObjectId], said: dict[str, Any], by: str, now: datetime) -> Done:
        raise NotImplementedError


class Retry(Decision):
    name, title, icon = "retry", "Retry", "replay"

    def preview(self, ids: Sequence[ObjectId], now: datetime) -> Preview:
        outlook = outlook_of_retry(ids, now)
        return Preview(
            can=len(outlook.wanted),
            summary=_summary(outlook, len(ids)),
            warning=DOUBT.format(count=outlook.doubtful) if outlook.doubtful else "",
            details=_fates(outlook),
        )

    def decide(self, ids: Sequence[ObjectId], said: dict[str, Any], by: str, now: datetime) -> Done:
        outlook = outlook_of_retry(ids, now)
        queued = send_again(outlook.wanted, by, said["note"], now)
        return Done(queued, f"Retried: {said['note']}", _told(len(queued), len(ids)))


class SendElsewhere(Decision):
    name, title, icon = "send_elsewhere", "Send on another channel", "alt_route"
    form = ElsewhereForm

    def preview(self, ids: Sequence[ObjectId], now: datetime) -> Preview:
        outlooks = outlook_elsewhere(ids, VENDOR_CHANNELS, now)
        can = max(len(outlook.wanted) for outlook in outlooks.values())
        doubtful = any(outlook.doubtful for outlook in outlooks.values())
        return Preview(
            can=can,
            summary="Each recipient's active addresses on the channel are used that this alert has not reached yet.",
            warning="Where a message may have arrived before, a second one may be sent." if doubtful else "",
            details=table(
                ("Channel", "Can be sent", "Messages", "May arrive twice", "Not sent"),
                (
                    (channel.label, f"{len(o.wanted):,}", f"{o.messages:,}", f"{o.doubtful:,}", _obstacles(o) or EMPTY)
                    for channel, o in outlooks.items()
                ),
            ),
        )

    def decide(self, ids: Sequence[ObjectId], said: dict[str, Any], by: str, now: datetime) -> Done:
        channel = Channel(said["channel"])
        outlook = outlook_elsewhere(ids, [channel], now)[channel]
        queued = send_again(outlook.wanted, by, said["note"], now)
        return Done(queued, f"Sent on {channel.label}: {said['note']}", _told(len(queued), len(ids)))


class Resolve(Decision):
    name, title, icon = "resolve", "Resolve", "task_alt"

    def preview(self, ids: Sequence[ObjectId], now: datetime) -> Preview:
        return _preview_of_open(ids, "resolved. Nothing is sent, and what is under way goes on")

    def decide(self, ids: Sequence[ObjectId], said: dict[str, Any], by: str, now: datetime) -> Done:
        resolved = reviews.resolve(ids, by, said["note"], now)
        return Done(resolved, f"Resolved: {said['note']}", f"{_counted(len(resolved), 'item')} resolved.")


class Assign(Decision):
    name, title, icon = "assign", "Assign", "person_add"
    form = AssignForm

    def preview(self, ids: Sequence[ObjectId], now: datetime) -> Preview:
        return _preview_of_open(ids, "assigned")

    def decide(self, ids: Sequence[ObjectId], said: dict[str, Any], by: str, now: datetime) -> Done:
        assignee = said["assignee"]
        assigned = reviews.assign(ids, assignee)
        to = assignee or "nobody"
        return Done(
            assigned, f"Assigned to {to}: {said['note']}", f"{_counted(len(assigned), 'item')} assigned to {to}."
        )


DECISIONS: dict[str, Decision] = {d.name: d for d in (Retry(), SendElsewhere(), Resolve(), Assign())}


# --- Words ------------------------------------------------------------------------------------------------------------
def _preview_of_open(ids: Sequence[ObjectId], what: str) -> Preview:
    still_open = len(reviews.open_among(ids))
    closed = len(ids) - still_open
    rest = f" {closed:,} of the chosen ones are resolved already and stay as they are." if closed else ""
    return Preview(can=still_open, summary=f"{_counted(still_open, 'open item')} {what}.{rest}")


def _summary(outlook: Outlook, chosen: int) -> str:
    if not outlook.wanted:
        return f"None of the {chosen:,} chosen alerts can be sent again."
    messages = f"{outlook.messages:,} message{'' if outlook.messages == 1 else 's'}"
    return f"{len(outlook.wanted):,} of {chosen:,} chosen alerts can be sent again, as {messages}."


def _fates(outlook: Outlook) -> SafeString:
    valid = [
        (badge("sent again", "green"), f"{count:,}", f"messages on {Channel(channel).label}")
        for channel, count in outlook.channels.items()
    ]
    refused = [
        (badge("not sent", "red" if obstacle is Obstacle.EXPIRED else "grey"), f"{count:,}", obstacle.label)
        for obstacle, count in outlook.obstacles.most_common()
    ]
    return table(("", "How many", "Which"), [*valid, *refused])


def _obstacles(outlook: Outlook) -> str:
    return "; ".join(f"{count:,} {obstacle.label}" for obstacle, count in outlook.obstacles.most_common())


def _told(queued: int, chosen: int) -> str:
    left = f" {chosen - queued:,} stayed as before." if queued < chosen else ""
    return f"{_counted(queued, 'alert')} queued and will be sent within seconds.{left}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what} is" if count == 1 else f"{count:,} {what}s are"
