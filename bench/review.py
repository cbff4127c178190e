"""The admin's pages, and the proof, with 1,000,000 alerts: 100,000 in the review bucket, and one trade of 100,000."""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bench import visits
from bench.report import Limit, Report, say
from bench.seed import Audience, follow_since, seeding
from bench.stage import a_device, check, set_up, table
from bench.visits import Visit, Visitor

Document = dict[str, Any]
TRADERS, TRADES = 8, 50
HOURS = 30
"""So long ago was the oldest trade: some alerts are no longer valid, and some items wait for more than a day."""

FOLLOWING_DAYS = 3
REJECTED, AT_ONCE = 10_000, 500

SLOWEST_MS = 1_000
PROOF_PAGE_MS = 20_000
"""It takes up nothing new after 10 s; what it has begun then may be 100,000 alerts."""

PROOF_MOST_SECONDS = 60
"""Somebody in an incident waits for it; and at a minute a million the daily run over ten million is over in ten."""

PREVIEWED = 10_000
SETTINGS = {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "bench",
    "TWILIO_FROM": "+14155550100",
    "API_FOLLOWER_PER_MINUTE": "100000",
    "PROVE_OVERDUE_SECONDS": "864000",  # Nobody works the backlog off here, which is no gap.
}
ALERTS = "notifications_notification"
EXIT = "an exit: withdraws what is open of a trade, s"
PROOF = "manage.py prove, s"
PROOF_PAGE = Visit(
    "proof, a click on the last 24 hours", "/admin/delivery/proofrun/prove/", ["Nothing."], {"hours": "24"}
)


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
            rounds[-1] |= {
                PROOF: _proof_seconds(stored[ALERTS]["documents"]),
                f"{PROOF_PAGE.name}, ms": staff.timed(PROOF_PAGE),
            }
            check(not (wrong := staff.wrong + follower.wrong), "; ".join(wrong))
        plans = {visit.name: _plans(visitor, visit) for visitor, visit in asked} if arguments.plans else {}
        for decision in _decisions(scene):  # No pages, and without a limit: each changes 10,000 alerts, once.
            rounds[0][f"{decision.name}, ms"] = staff.timed(decision)
        check(not staff.wrong, "; ".join(staff.wrong))
        rounds[0][EXIT] = _exit_seconds(scene)
    limits = {f"{visit.name}, ms": Limit(most=SLOWEST_MS) for _, visit in asked}
    limits |= {PROOF: Limit(most=PROOF_MOST_SECONDS), f"{PROOF_PAGE.name}, ms": Limit(most=PROOF_PAGE_MS)}
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
    follow_since(now - timedelta(days=FOLLOWING_DAYS))
    _more_to_see()
    with seeding() as seeder:
        audience = Audience.of("T-big")
        big = seeder.trade(audience, now - timedelta(hours=1))
        seeder.alerts(big, audience.members, _fate)
        waiting = seeder.trade(audience, now - timedelta(minutes=5), symbol="INFY")
        seeder.alerts(waiting, audience.members, _stuck)
        for n in range(TRADERS):
            some = Audience.of(f"T-{n}")
            for trade in range(TRADES):
                at = now - timedelta(hours=HOURS) * (trade + n / TRADERS) / TRADES
                seeder.alerts(seeder.trade(some, at), some.members, _fate)
    reviews = table(ALERTS).count_documents({"review.open": True})
    of_big = table(ALERTS).count_documents({"review.open": True, "trader_id": big["trader_id"]})
    item = table(ALERTS).find_one({"review.open": True, "event_id": big["_id"]})
    check(item is not None, "something waits in the review bucket")
    person = table("followers_follower").find_one({"_id": some.members[0].follower["_id"]})
    return Scene(big, waiting, item or {}, person["external_id"], len(audience.members), reviews, of_big)


def _more_to_see() -> None:
    """Rejected messages, an update, and the breakers that workers would have entered."""
    from delivery.breakers import ensure_breakers
    from delivery.intake import take_in
    from delivery.intake_documents import IncomingMessage
    from delivery.updates import Draft, publish_update

    logging.disable(logging.WARNING)  # It says so of each message.
    for start in range(0, REJECTED, AT_ONCE):
        numbers = range(start, start + AT_ONCE)
        wrong = [IncomingMessage("bench", 0, n, b"T-big", b'{"eventId": "E-%d"}' % n) for n in numbers]
        take_in(wrong, datetime.now(UTC))
    logging.disable(logging.NOTSET)
    ensure_breakers({"fcm": "bench", "sms": SETTINGS["TWILIO_ACCOUNT_SID"]})
    publish_update(Draft("U-1", "Maintenance", "Tonight from ten to eleven.", trader="T-big"))


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
    entries, follows, endpoints = (
        f"/admin/{name}/" for name in ("notifications/inappentry", "followers/follow", "followers/endpoint")
    )
    device = (table("followers_endpoint").find_one({"follower_id": _pk(scene.follower)}) or {})["_id"]
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
        *(_preview(scene, name, f"{bucket}?trader=T-big", words) for name, words in (
            ("send_elsewhere", "Can be sent"), ("resolve", f"{chosen:,} open items"),
            ("assign", f"{chosen:,} open items"),
        )),
        Visit("a follower", follower, [scene.follower, "SENDER"]),
        Visit("a follower, asked why", f"{follower}?trade={event}", ["answer"]),
        Visit("followers", "/admin/followers/follower/", ["F-"]),
        Visit("followers, found by their beginning", "/admin/followers/follower/?q=F-1", ["F-1"]),
        Visit("traders", "/admin/followers/trader/", ["T-big"]),
        Visit("the trader of 100,000", f"/admin/followers/trader/{scene.big['trader_id']}/change/", ["T-big"]),
        Visit("follows", follows, ["F-"]),
        Visit("follows, searched by follower", f"{follows}?q={scene.follower}", [scene.follower]),
        Visit("follows, searched by the largest trader", f"{follows}?q=T-big", ["T-big"]),
        Visit("endpoints", endpoints, ["F-"]),
        Visit("endpoints, searched by follower", f"{endpoints}?q={scene.follower}", [scene.follower]),
        Visit("an endpoint", f"{endpoints}{device}/change/", ["fcm"]),
        Visit("an endpoint's history", f"{endpoints}{device}/history/", ["istory"]),
        Visit("inbox entries", entries, ["F-"]),
        Visit("inbox entries, searched by follower", f"{entries}?q={scene.follower}", [scene.follower]),
        Visit("general updates", "/admin/notifications/update/", ["U-1"]),
        Visit("rejected messages", "/admin/notifications/rejectedevent/", ["version is missing"]),
        Visit("circuit breakers", "/admin/delivery/breaker/", ["bench"]),
        Visit("batches", "/admin/delivery/batch/", ["batch"]),
        Visit("operations", "/admin/operations/", ["Wake-ups", waiting]),
        Visit("proof", "/admin/delivery/proofrun/", ["roof"]),
    ]  # fmt: skip


def _preview(scene: Scene, name: str, bucket: str, words: str) -> Visit:
    """What is shown when "select all" is chosen in the list, and one of its actions."""
    form = {"action": f"{name}_chosen", "_selected_action": str(scene.item["_id"]), "select_across": "1", "index": "0"}
    return Visit(f"{name}, preview of 10,000", bucket, [words], form)


def _decisions(scene: Scene) -> list[Visit]:
    """The newest 10,000 of the largest trade are assigned, retried, and resolved."""
    mine = {"review.open": True, "trader_id": scene.big["trader_id"]}
    rows = table(ALERTS).find(mine, {"_id": 1}).sort([("review.opened_at", -1), ("_id", -1)]).limit(PREVIEWED)
    form = {"ids": ",".join(str(row["_id"]) for row in rows), "back": "trader=T-big", "note": "Measured."}
    chosen = min(PREVIEWED, scene.reviews_of_big)
    return [
        Visit(f"{name}, a click on 10,000", f"/admin/delivery/reviewitem/decide/{name}/", [words], form)
        for name, words in (
            ("assign", f"{chosen:,} items are assigned"), ("retry", "queued and will be sent within seconds"),
            ("resolve", f"{chosen:,} items are resolved"),
        )
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


def _proof_seconds(alerts: float) -> float:
    """How long `manage.py prove` looks at everything; it must find every follower's alert, and no gap."""
    from delivery.proof import prove

    proof = prove()
    check(proof.holds, f"not proved: {proof.as_json()['findings']}")
    tally = proof.tally
    check(tally.alerts == tally.owed == tally.found == alerts, f"{tally.owed} owed, {tally.found} found of {alerts}")
    return proof.seconds


def _exit_seconds(scene: Scene) -> float:
    """How long the fan-out of a close is busy with the alerts of the unfinished trade."""
    from notifications.statements import supersede_entries

    closing = {**scene.waiting, "external_id": "the-exit", "executed_at": scene.waiting["executed_at"] + timedelta(1)}
    began = time.perf_counter()
    touched = supersede_entries(closing, datetime.now(UTC))
    took = time.perf_counter() - began
    check(touched == scene.followers, f"{touched} alerts withdrawn")
    return took
