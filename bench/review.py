"""The admin's pages with 1,000,000 alerts, 100,000 of them in the review bucket, and one trade of 100,000."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bench import visits
from bench.report import Limit, Report, say
from bench.seed import Audience, seeding
from bench.stage import a_device, check, set_up, table
from bench.visits import Visit, Visitor

Document = dict[str, Any]
TRADERS, TRADES = 8, 50
HOURS = 30
"""So long ago was the oldest trade: some alerts are no longer valid, and some items wait for more than a day."""

SLOWEST_MS = 1_000
PREVIEWED = 10_000
SETTINGS = {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "bench",
    "TWILIO_FROM": "+14155550100",
    "API_FOLLOWER_PER_MINUTE": "100000",
}
ALERTS = "notifications_notification"
EXIT = "an exit: withdraws what is open of a trade, s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alerts", type=int, default=1_000_000)
    parser.add_argument("--plans", action="store_true", help="name every statement of every page with its plan")


def run(arguments: argparse.Namespace) -> Report:
    tenth = arguments.alerts // 10
    audiences = {"T-big": tenth, **{f"T-{n}": tenth // TRADES for n in range(TRADERS)}}
    rounds: list[dict[str, float]] = []
    with set_up(audiences, {**SETTINGS, **dict(arguments.setting)}, _endpoints):
        began = time.perf_counter()
        scene = _seed()
        stored = visits.sizes(ALERTS, "delivery_batch")
        say(f"review: {stored[ALERTS]['documents']:,} alerts seeded in {time.perf_counter() - began:.0f} s")
        staff, follower = Visitor(), Visitor(_token(scene.follower))
        asked = [*((staff, page) for page in _pages(scene)), *((follower, call) for call in _calls(scene))]
        for _ in range(arguments.rounds):
            rounds.append({f"{visit.name}, ms": visitor.timed(visit) for visitor, visit in asked})
            say(f"review: {rounds[-1]}")
            check(not (wrong := staff.wrong + follower.wrong), "; ".join(wrong))
        plans = {visit.name: _plans(visitor, visit) for visitor, visit in asked} if arguments.plans else {}
        rounds[0][EXIT] = _exit_seconds(scene)
    limits = {f"{visit.name}, ms": Limit(most=SLOWEST_MS) for _, visit in asked}
    return Report("review", rounds, limits, {"review bucket": scene.reviews, "stored": stored, "plans": plans})


def _endpoints(number: int) -> list[dict[str, str]]:
    """A phone for everybody, and a number for every second one."""
    number_of = {"channel": "sms", "address": f"+1415{number:07}"}
    return [*a_device(number), *([number_of] if number % 2 else [])]


# --- What there is to see ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Scene:
    """What the pages are asked for."""

    big: Document  # The trade with a tenth of all alerts.
    waiting: Document  # Another of the same trader, all of it unfinished.
    item: Document  # An alert in the review bucket.
    follower: str
    followers: int
    reviews: int
    reviews_of_big: int


def _seed() -> Scene:
    now = datetime.now(UTC)
    with seeding() as seeder:
        audience = Audience.of("T-big")
        big = seeder.trade(audience, now - timedelta(hours=1))
        seeder.alerts(big, audience.members, _fate, ["notifications"])
        waiting = seeder.trade(audience, now - timedelta(minutes=5), symbol="INFY")
        seeder.alerts(waiting, audience.members, _stuck, ["notifications"])
        for n in range(TRADERS):
            some = Audience.of(f"T-{n}")
            for trade in range(TRADES):
                at = now - timedelta(hours=HOURS) * (trade + n / TRADERS) / TRADES
                seeder.alerts(seeder.trade(some, at), some.members, _fate, ["notifications"])
    reviews = table(ALERTS).count_documents({"review.open": True})
    of_big = table(ALERTS).count_documents({"review.open": True, "trader_id": big["trader_id"]})
    item = table(ALERTS).find_one({"review.open": True, "event_id": big["_id"]})
    check(item is not None, "something waits in the review bucket")
    person = table("followers_follower").find_one({"_id": some.members[0].follower["_id"]})
    return Scene(big, waiting, item or {}, person["external_id"], len(audience.members), reviews, of_big)


def _fate(number: int, delivery: Document) -> str:
    """What fails is one alert in nine of those that can: on the phone, or by SMS, there also without an answer."""
    if number % 27 >= 4 or (delivery["channel"] == "sms") == (number % 2 == 0):
        return "sent"
    if delivery["channel"] == "fcm":
        return "SENDER_ID_MISMATCH"
    return "no_answer" if number % 4 == 1 else "30006"


def _stuck(number: int, delivery: Document) -> str:
    """A backlog: half of it waits in batches, half for another try."""
    return "http_503" if number % 2 else ""


def _pages(scene: Scene) -> list[Visit]:
    follower = f"/admin/followers/follower/{_pk(scene.follower)}/change/"
    bucket, alerts, trades = (
        f"/admin/{name}/" for name in ("delivery/reviewitem", ALERTS.replace("_", "/"), "notifications/tradeevent")
    )
    item, event, big = scene.item["_id"], scene.big["external_id"], scene.big["_id"]
    newest, chosen = f"{scene.followers:,}", min(PREVIEWED, scene.reviews_of_big)
    waiting = f"{scene.reviews:,}" if scene.reviews <= PREVIEWED else f"{PREVIEWED:,}+"
    return [
        Visit("alerts", alerts, ["RELIANCE"]),
        *(
            Visit(f"alerts, state {state}", f"{alerts}?state={state}", [f"state={state}"])
            for state in ("pending", "delivered", "failed", "partial")
        ),
        Visit("alerts, priority high", f"{alerts}?priority=high", ["RELIANCE"]),
        Visit("alerts, of the largest trade", f"{alerts}?event__id__exact={big}", [str(scene.followers)[:1]]),
        Visit("alerts, of it and delivered", f"{alerts}?event__id__exact={big}&state=delivered", ["RELIANCE"]),
        Visit("alerts, searched by follower", f"{alerts}?q={scene.follower}", [scene.follower]),
        Visit("alerts, searched by trade", f"{alerts}?q={event}", ["RELIANCE"]),
        Visit("alerts, page 100", f"{alerts}?p=100", ["F-"]),
        Visit("an alert", f"{alerts}{item}/change/", [event, "review bucket"]),
        Visit("trades", trades, [event]),
        Visit("the trade of 100,000 alerts", f"{trades}{big}/change/", [f"{newest} alerts written", "about "]),
        Visit("the unfinished trade of 100,000", f"{trades}{scene.waiting['_id']}/change/", [f">{newest}<"]),
        Visit("review bucket", bucket, ["Waiting since"]),
        *(Visit(f"review bucket, {name}", f"{bucket}?{query}", [words]) for name, query, words in (
            ("all states", "state=all", "T-"), ("resolved", "state=resolved", "0 "),
            ("channel", "channel=sms", "30006"), ("code", "code=sms:30006", "30006"),
            ("channel and code", "channel=sms&code=sms:30006", "30006"),
            ("under an hour", "age=hour", "review"), ("over a day", "age=older", "T-"),
            ("nobody's", "assignee=nobody", "T-"), ("mine", "assignee=me", "0 "), ("trader", "trader=T-big", "T-big"),
            ("trader and code", "trader=T-big&code=sms:30006", "T-big"),
            ("searched by follower", f"q={scene.follower}", "review"),
            ("searched by trade", f"q={event}", "T-big"), ("searched by code", "q=no_answer", "no_answer"),
            ("page 20", "p=20", "T-"),
        )),
        Visit("review item", f"{bucket}{item}/change/", ["What can be done"]),
        Visit("retry, preview of 10,000", f"{bucket}retry/?trader=T-big", [f"of {chosen:,} chosen"]),
        Visit("a follower", follower, [scene.follower, "SENDER"]),
        Visit("a follower, asked why", f"{follower}?trade={event}", ["answer"]),
        Visit("followers", "/admin/followers/follower/", ["F-"]),
        Visit("endpoints", "/admin/followers/endpoint/", ["F-"]),
        Visit("batches", "/admin/delivery/batch/", ["batch"]),
        Visit("operations", "/admin/operations/", ["Wake-ups", waiting]),
        Visit("proof", "/admin/delivery/proofrun/", ["roof"]),
    ]  # fmt: skip


def _calls(scene: Scene) -> list[Visit]:
    """Those of a follower's app that look at alerts; the inbox has a benchmark of its own."""
    alert = table(ALERTS).find_one({"follower_id": _pk(scene.follower)}) or {}
    return [
        Visit("REST: one alert", f"/api/v1/inbox/{alert['_id']}/", ['"explanation"']),
        Visit("REST: what was not sent", "/api/v1/not-sent/", ['"deliveries"']),
    ]


def _token(external_id: str) -> str:
    from followers.models import Follower
    from notifications.tokens import mint

    return mint(Follower.objects.get(external_id=external_id))


def _pk(external_id: str) -> Any:
    return (table("followers_follower").find_one({"external_id": external_id}) or {})["_id"]


# --- Beside the pages -------------------------------------------------------------------------------------------------
def _plans(visitor: Visitor, visit: Visit) -> list[str]:
    return [visits.in_words(entry) for entry in visits.statements_of(lambda: visitor.timed(visit))]


def _exit_seconds(scene: Scene) -> float:
    """How long the fan-out of a close is busy with the alerts of the unfinished trade."""
    from notifications.statements import supersede_entries

    closing = {**scene.waiting, "external_id": "the-exit", "executed_at": scene.waiting["executed_at"] + timedelta(1)}
    began = time.perf_counter()
    touched = supersede_entries(closing, datetime.now(UTC))
    took = time.perf_counter() - began
    check(touched == scene.followers, f"{touched} alerts withdrawn")
    return took
