"""The demo: its trades and followers make sense, its processes never outlive it, and one real run from end to end."""

import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from devstack.children import Children
from devstack.demo.cast import BIGGEST_AUDIENCE, TRADERS
from devstack.demo.followers import featured, follower_lines
from devstack.demo.market import expiry_after, is_closing
from devstack.demo.percentiles import FACTOR, percentiles
from devstack.demo.trades import Trade, TradeGenerator, event_of
from devstack.demo.usage import UsageMeter
from devstack.errors import ServerFailedError
from followers.import_lines import parse_line
from notifications.events import parse_event

PROJECT_ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 11, 20, 6, 30, tzinfo=UTC)  # A Friday, noon in Mumbai.
TIMEOUT_SECONDS = 180  # A demo that takes longer hangs; on an idle machine the whole run takes half a minute.

IGNORES_SIGTERM = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = os.fork()\n"
    "os.write(1, b'%d\\n' % os.getpid())\n"
    "time.sleep(600)\n"
)
"""A process that forks, as rundramatiq does, and will not go by itself."""


# --- Trades ---------------------------------------------------------------------------------------------------------
def _trades(first: datetime, count: int) -> list[Trade]:
    """So many trades, each 2 s after the one before."""
    generator = TradeGenerator(seed=7)
    made = (generator.next_trade(first + n * timedelta(seconds=2)) for n in range(count))
    return [trade for trade in made if trade is not None]


@pytest.fixture(scope="module")
def trades() -> list[Trade]:
    return _trades(AT, 5_000)


def test_positions_follow_from_the_trades_and_are_never_negative(trades: list[Trade]) -> None:
    books: dict[tuple[str, object], Decimal] = defaultdict(Decimal)
    for trade in trades:
        key = (trade.trader.external_id, trade.instrument)
        signed = trade.quantity if trade.action in {"OPEN", "ADD"} else -trade.quantity
        assert trade.before == books[key]
        assert trade.after == trade.before + signed >= 0
        assert (trade.action == "OPEN") == (trade.before == 0)
        assert (trade.action == "CLOSE") == (trade.after == 0)
        assert trade.quantity > 0
        assert trade.quantity % Decimal(trade.instrument.step) == 0
        books[key] = trade.after


def test_a_position_is_held_for_a_while(trades: list[Trade]) -> None:
    generator = TradeGenerator(seed=7)
    at_once = [trade for trade in (generator.next_trade(AT) for _ in range(500)) if trade is not None]

    assert {t.action for t in at_once} == {"OPEN"}
    assert 0 < len(at_once) < 500


def test_every_event_is_a_good_one(trades: list[Trade]) -> None:
    for trade in trades:
        event = event_of(trade, AT)
        parsed = parse_event(json.dumps(event).encode(), key=event["traderId"].encode())
        assert (parsed.quantity, parsed.price) == (trade.quantity, trade.price)
        assert parsed.is_exit == (trade.action in {"REDUCE", "CLOSE"})
        assert parsed.closes_position == (trade.action == "CLOSE")
        assert parsed.currency == trade.trader.currency


def test_every_trader_and_kind_of_trade_occurs(trades: list[Trade]) -> None:
    assert {t.trader.external_id for t in trades} == {t.external_id for t in TRADERS}
    assert {t.action for t in trades} == {"OPEN", "ADD", "REDUCE", "CLOSE"}
    assert {t.product for t in trades} == {"INTRADAY", "DELIVERY", "CRYPTO", "FUTURES", "OPTIONS"}


def test_the_same_seed_makes_the_same_trades(trades: list[Trade]) -> None:
    assert _trades(AT, 50) == trades[:50]


def test_nobody_opens_an_intraday_position_when_the_session_is_closing() -> None:
    closing = datetime(2026, 11, 20, 9, 45, tzinfo=UTC)  # 15:15 in Mumbai.
    opened = [t for t in _trades(closing, 200) if t.action == "OPEN"]

    assert is_closing("XNSE", closing)
    assert not is_closing("XNSE", AT)
    assert {t.product for t in opened if t.instrument.exchange == "XNSE"} == {"DELIVERY", "FUTURES", "OPTIONS"}


@pytest.mark.parametrize(
    ("today", "expiry"),
    [
        (datetime(2026, 11, 2, tzinfo=UTC), "2026-11-24"),
        (datetime(2026, 11, 18, tzinfo=UTC), "2026-12-29"),
        (datetime(2026, 12, 28, tzinfo=UTC), "2027-01-26"),
    ],
)
def test_derivatives_expire_on_a_last_tuesday_at_least_a_week_ahead(today: datetime, expiry: str) -> None:
    assert expiry_after(today.date()).isoformat() == expiry


# --- Followers ------------------------------------------------------------------------------------------------------
def test_every_follower_line_can_be_imported_and_every_address_is_somebodys_own() -> None:
    owners: dict[tuple[str, str], str] = {}
    firsts: Counter[str] = Counter()
    for number in range(1, 3_001):
        for place, line in enumerate(follower_lines(number)):
            parsed = parse_line(json.dumps(line).encode())
            firsts[parsed.trader_id] += place == 0
            for endpoint in parsed.endpoints:
                owner = owners.setdefault((endpoint.channel, endpoint.address), parsed.follower_id)
                assert owner == parsed.follower_id

    assert {channel for channel, _ in owners} == {"apns", "fcm", "sms", "discord", "onesignal"}
    assert firsts[TRADERS[0].external_id] / 3_000 == pytest.approx(BIGGEST_AUDIENCE, abs=0.03)
    assert set(firsts) == {trader.external_id for trader in TRADERS}


def test_followers_are_always_the_same_ones_however_many_there_are() -> None:
    assert list(follower_lines(42)) == list(follower_lines(42))
    assert list(follower_lines(42)) != list(follower_lines(43))


def test_featured_followers_are_different_people() -> None:
    assert len(set(featured().values())) == 3


def test_percentiles_are_within_a_bucket_of_the_exact_ones() -> None:
    latencies = [*range(1, 1001)]
    buckets = Counter(math.floor(FACTOR * math.log(ms)) for ms in latencies)

    assert percentiles(buckets, (0.5, 0.95, 0.99)) == pytest.approx((500, 950, 990), rel=0.06)
    assert percentiles(Counter(), (0.5,)) == (None,)


# --- Processes ------------------------------------------------------------------------------------------------------
@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    started = Children(tmp_path, threading.Event())
    yield started
    started.stop()


def _ended(pid: int) -> Callable[[], bool]:
    """Waits until a process has ended; a pidfd becomes readable then."""
    pidfd = os.pidfd_open(pid)

    def wait() -> bool:
        readable, _, _ = select.select([pidfd], [], [], 20)
        os.close(pidfd)
        return bool(readable)

    return wait


def _lines(count: int) -> Callable[[object], bool]:
    def has_lines(child: object) -> bool:
        return child.log_path.read_text().count("\n") >= count  # type: ignore[attr-defined]

    return has_lines


def test_a_process_that_dies_is_reported_with_the_end_of_its_log(children: Children) -> None:
    child = children.start("short", [sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"])
    child.process.wait(20)

    with pytest.raises(ServerFailedError, match=r"(?s)short ended by itself \(exit status 3\).*what went wrong"):
        children.check()


def test_a_command_that_fails_is_reported(children: Children) -> None:
    with pytest.raises(ServerFailedError, match=r"(?s)migrate failed \(exit status 1\).*no such table"):
        children.run("migrate", [sys.executable, "-c", "raise SystemExit('no such table')"])


def test_stop_ends_a_process_that_ignores_it_and_what_it_forked(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devstack.children.STOP_SECONDS", 0.2)
    child = children.start("stubborn", [sys.executable, "-c", IGNORES_SIGTERM])
    children.wait_until(child, _lines(2), 20)
    waits = [_ended(int(pid)) for pid in child.log_path.read_text().split()]

    children.stop()

    assert all(wait() for wait in waits)


def test_usage_counts_a_process_with_what_it_forked(children: Children) -> None:
    child = children.start("two", [sys.executable, "-c", IGNORES_SIGTERM])
    children.wait_until(child, _lines(2), 20)

    usage = UsageMeter().read([child.pid])[child.pid]

    assert usage.processes == 2
    assert usage.rss_bytes > 1_000_000


def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import sys, threading, time; from pathlib import Path; from devstack.children import Children\n"
        f"children = Children(Path({str(tmp_path)!r}), threading.Event())\n"
        f"child = children.start('stubborn', [sys.executable, '-c', {IGNORES_SIGTERM!r}])\n"
        "children.wait_until(child, lambda c: c.log_path.read_text().count('\\n') >= 2, 20)\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    assert demo.stdout.readline() == "ready\n"
    waits = [_ended(int(pid)) for pid in (tmp_path / "stubborn.log").read_text().split()]

    demo.send_signal(signal.SIGKILL)
    demo.communicate()

    assert len(waits) == 2
    assert all(wait() for wait in waits)


# --- The whole of it ------------------------------------------------------------------------------------------------
def _processes_of(run: str) -> list[str]:
    """The command lines of the processes that were started in an environment with this mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if run.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # It ended meanwhile, or is somebody else's.
    return found


@pytest.mark.slow
def test_the_demo_publishes_trades_and_alerts_arrive(tmp_path: Path) -> None:
    run = f"demo-test-{uuid.uuid4().hex}"
    picture = tmp_path / "demo.svg"
    command = [sys.executable, "-m", "devstack.demo", "--followers", "200", "--seconds", "15"]

    done = subprocess.run(
        [*command, "--directory", str(tmp_path / "state"), "--svg", str(picture)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "NOTIFYHUB_RUN": run},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    summary = re.search(r"Published ([\d,]+) trades, sent ([\d,]+) alerts", done.stdout)
    assert summary is not None, done.stdout
    published, sent = (int(number.replace(",", "")) for number in summary.groups())
    assert published >= 5
    assert sent > published
    assert "First alert" in done.stdout
    assert "followers       ready" in done.stdout
    assert "NotifyHub" in picture.read_text()
    assert _processes_of(run) == []
