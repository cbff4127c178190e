"""Gates of several workers that share one breaker, one rate and the vendor's holds, over a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import asyncio as async_redis

from delivery.channels.base import Channel, Outcome, Result
from delivery.channels.policy import ChannelPolicy
from delivery.choices import BreakerStatus
from delivery.guards.breaker import PROBES, State
from delivery.guards.calls import Counts
from delivery.guards.gate import Gate, Permit, Refusal
from delivery.guards.holds import WHOLE_CHANNEL
from delivery.guards.rates import RateLimit
from delivery.guards.shared import Heard, Shared, Told, connect, live_states
from delivery.guards.watch import Watch
from delivery.guards.waves import WAVE_REASON
from followers.choices import Channel as Name
from tests.web.private_redis import PrivateRedis

PAUSE = 0.3
NAME = "fcm:shop"
Workers = Callable[..., "Worker"]


class Vendor(Channel):
    """A channel as far as a gate knows it; nothing is sent in these tests."""

    name = Name.FCM
    account = ""

    def __init__(self, policy: ChannelPolicy, account: str) -> None:
        super().__init__(policy)
        self.account = account

    def keyed(self, message: Any) -> bool:
        raise AssertionError("A gate looks at no message.")

    new_client = request = classify = keyed  # type: ignore[assignment]


class Worker:
    """One process's gate and watch."""

    def __init__(self, client: async_redis.Redis, name: str, policy: ChannelPolicy, threads: int, account: str) -> None:
        self.shared = Shared(client, [f"fcm:{account}"], name)
        rate = policy.rate_per_second
        self.changes: list[tuple[BreakerStatus, BreakerStatus]] = []
        self.forced: dict[str, BreakerStatus] = {}
        limit = RateLimit(client, NAME, rate) if rate else None
        self.gate = Gate(Vendor(policy, account), self.shared, limit, threads, PAUSE, self._journal)
        self.watch = Watch([self.gate], self.shared, lambda: self.forced)

    def _journal(self, channel: Channel, before: State, after: State) -> None:
        self.changes.append((before.status, after.status))

    def answer(self, outcome: Outcome, times: int = 1, **result: Any) -> None:
        for _ in range(times):
            self.gate.calls.end(self.gate.calls.begin(), Result(outcome, **result))

    async def admit(self, sends: int = 10, priority: str = "high") -> Permit | Refusal:
        async with self.gate.batch():
            return await self.gate.admit(priority, sends)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    folder: Path = tmp_path_factory.mktemp("redis")
    private = PrivateRedis(folder)
    private.start()
    yield private
    private.stop()


@pytest.fixture
async def workers(server: PrivateRedis, settings: Any) -> AsyncIterator[Workers]:
    settings.REDIS_URL = server.url
    server.client.flushall()
    clients: list[async_redis.Redis] = []

    def make(threads: int = 8, account: str = "shop", **policy: Any) -> Worker:
        clients.append(connect())
        return Worker(clients[-1], f"worker {len(clients)}", ChannelPolicy(**policy), threads, account)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def away(server: PrivateRedis) -> Iterator[PrivateRedis]:
    """A Redis that a test may stop; it is there again for the next one."""
    yield server
    if not server.is_running:
        server.start()


async def open_breaker(worker: Worker) -> None:
    worker.answer(Outcome.RETRY, 20)
    await worker.watch.step()
    assert worker.gate.status is BreakerStatus.OPEN


async def pause_over(worker: Worker) -> None:
    await asyncio.sleep(max(0.0, worker.gate.state.probe_at - time.time()) + 0.01)


REFUSED = [Result(Outcome.MISCONFIGURED, code="UNAUTHENTICATED", message="Google refused our access token")]


async def test_refused_credential_opens_the_breaker_of_all_workers_and_one_of_them_says_so(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = workers(), workers()
    await asyncio.gather(*(worker.gate.trip_if_refused(REFUSED) for worker in (one, two) for _ in range(3)))

    assert [w.gate.status for w in (one, two)] == [BreakerStatus.OPEN] * 2
    assert len(one.changes + two.changes) == 1
    assert [r.levelname for r in caplog.records if "does not take our set-up" in r.getMessage()] == ["ERROR"]
    assert one.gate.state == two.gate.state, "Whoever comes second puts the probe off no further."


async def test_refusal_beside_an_accepted_alert_of_its_batch_opens_nothing_however_long_ago_that_was(
    workers: Workers,
) -> None:
    worker = workers()
    await worker.gate.trip_if_refused([*REFUSED, Result(Outcome.SENT), Result(Outcome.UNKNOWN)])
    assert worker.gate.status is BreakerStatus.CLOSED


async def test_refusal_opens_nothing_while_another_workers_alerts_are_accepted(workers: Workers) -> None:
    busy, idle = workers(), workers()
    busy.answer(Outcome.SENT)
    for worker in (busy, idle):
        await worker.watch.step()
    await idle.gate.trip_if_refused(REFUSED)
    assert idle.gate.status is BreakerStatus.CLOSED


async def test_refusal_while_staff_keep_the_breaker_closed_is_not_told_as_a_channel_that_waits(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    worker = workers()
    worker.gate.force(BreakerStatus.CLOSED)
    await worker.gate.trip_if_refused(REFUSED)
    (told,) = [r.getMessage() for r in caplog.records if "does not take our set-up" in r.getMessage()]
    assert "staff keep its breaker closed" in told
    assert isinstance(await worker.admit(), Permit)


async def test_wave_is_known_to_all_workers_at_once_and_other_trouble_is_none(workers: Workers) -> None:
    one, two = workers(), workers()
    await one.gate.trip("12 slow of 20 calls")
    assert not await two.gate.is_in_wave()
    assert await one.gate.trip(f"INVALID_ARGUMENT {WAVE_REASON}")
    assert await two.gate.is_in_wave()
    assert not await two.gate.trip(f"INVALID_ARGUMENT {WAVE_REASON}")


async def test_another_accounts_breaker_starts_closed(workers: Workers) -> None:
    retired, current = workers(account="shop"), workers(account="another shop")
    await open_breaker(retired)
    await current.watch.step()
    assert current.gate.status is BreakerStatus.CLOSED
    assert isinstance(await current.admit(), Permit)
    states = {name: state.status for name, state in live_states(["fcm:shop", "fcm:another shop"]).items()}
    assert states == {"fcm:shop": BreakerStatus.OPEN, "fcm:another shop": BreakerStatus.CLOSED}


# --- The breaker ------------------------------------------------------------------------------------------------------
async def test_healthy_channel_lets_everything_through(workers: Workers) -> None:
    worker = workers()
    worker.answer(Outcome.SENT, 100)
    await worker.watch.step()
    permit = await worker.admit()
    assert isinstance(permit, Permit)
    assert permit.probes is None


async def test_calls_of_all_workers_count_together_and_all_of_them_stop(workers: Workers) -> None:
    one, two, idle = workers(), workers(), workers()
    one.answer(Outcome.RETRY, 10)
    two.answer(Outcome.UNKNOWN, 10)
    for worker in (one, two, idle):
        await worker.watch.step()

    assert [w.gate.status for w in (two, idle)] == [BreakerStatus.OPEN] * 2
    assert len(one.changes + two.changes + idle.changes) == 1, "Exactly one of them changed it."
    refusal = await idle.admit()
    assert isinstance(refusal, Refusal)
    assert refusal.until >= idle.gate.state.probe_at
    assert live_states([NAME])[NAME].status is BreakerStatus.OPEN


async def test_workers_hear_what_was_counted_lately_beside_the_whole_window(workers: Workers) -> None:
    one, two = workers(), workers()

    async def tell(worker: Worker, counts: Counts, now: float) -> Heard:
        (heard,) = await worker.shared.exchange([Told(counts, {})], now)
        return heard

    await tell(one, Counts(calls=1_000), 100.0)
    await tell(two, Counts(calls=10, slow=10), 102.9)
    heard = await tell(one, Counts(calls=12, slow=12), 104.5)
    assert (heard.counts, heard.lately) == (Counts(calls=1_022, slow=22), Counts(calls=22, slow=22))
    assert (await tell(one, Counts(), 107.0)).lately == Counts(calls=12, slow=12)


async def test_probes_are_few_over_all_workers_and_close_it_for_all(workers: Workers) -> None:
    one, two = workers(), workers()
    await open_breaker(one)
    await two.watch.step()
    await pause_over(one)

    first, second = await one.admit(2), await two.admit(200)
    third = await one.admit(200)
    assert isinstance(first, Permit)
    assert isinstance(second, Permit)
    assert (first.probes, second.probes) == (2, PROBES - 2)
    assert isinstance(third, Refusal)
    for worker in (one, two, one):
        await worker.gate.probed(True)

    await two.watch.step()
    assert (one.gate.status, two.gate.status) == (BreakerStatus.CLOSED, BreakerStatus.CLOSED)
    closed = await two.admit()
    assert isinstance(closed, Permit)
    assert closed.probes is None


async def test_failed_probe_opens_it_again_for_twice_as_long_and_old_calls_do_not_count_after_closing(
    workers: Workers,
) -> None:
    worker = workers()
    await open_breaker(worker)
    await pause_over(worker)
    await worker.admit()
    await worker.gate.probed(False)
    assert (worker.gate.status, worker.gate.state.pause_seconds) == (BreakerStatus.OPEN, 2 * PAUSE)
    await pause_over(worker)
    await worker.admit()
    for _ in range(PROBES):
        await worker.gate.probed(True)
    await worker.watch.step()
    assert worker.gate.status is BreakerStatus.CLOSED, "The calls that opened it must not open it again."


async def test_open_breaker_sends_away_what_waits_for_a_slot_and_stops_what_was_claimed(workers: Workers) -> None:
    worker = workers(concurrency=1)
    release = asyncio.Event()

    async def send() -> bool:
        async with worker.gate.slots.slot("high") as has_slot:
            if has_slot:
                await release.wait()
            return has_slot

    in_flight, waiting = asyncio.create_task(send()), asyncio.create_task(send())
    await asyncio.sleep(0)
    await open_breaker(worker)
    assert await asyncio.wait_for(waiting, 5) is False
    assert worker.gate.stopped_until("an endpoint", is_probe=False) is not None
    assert worker.gate.stopped_until("an endpoint", is_probe=True) is None
    release.set()
    assert await in_flight


async def test_forced_by_staff_outranks_what_is_counted(workers: Workers) -> None:
    worker = workers()
    worker.forced[NAME] = BreakerStatus.OPEN
    await worker.watch.step()
    assert isinstance(await worker.admit(), Refusal)

    worker.forced[NAME] = BreakerStatus.CLOSED
    worker.answer(Outcome.RETRY, 50)
    worker.watch._forced_at = 0.0
    await worker.watch.step()
    assert worker.gate.state.status is BreakerStatus.OPEN
    assert isinstance(await worker.admit(), Permit)

    worker.forced.clear()
    worker.watch._forced_at = 0.0
    await worker.watch.step()
    assert worker.gate.status is BreakerStatus.OPEN


# --- Redis away -------------------------------------------------------------------------------------------------------
async def test_without_redis_each_worker_goes_by_its_own_calls(workers: Workers, away: PrivateRedis) -> None:
    sick, well = workers(), workers()
    await sick.watch.step()
    away.stop()

    sick.answer(Outcome.RETRY, 20)
    well.answer(Outcome.SENT, 20)
    await sick.watch.step()
    await well.watch.step()
    assert (sick.gate.status, well.gate.status) == (BreakerStatus.OPEN, BreakerStatus.CLOSED)
    await pause_over(sick)
    permit = await sick.admit()
    assert isinstance(permit, Permit)
    assert permit.probes == PROBES


async def test_emptied_redis_is_told_the_state_again(workers: Workers, server: PrivateRedis) -> None:
    one, two = workers(), workers()
    await open_breaker(one)
    server.client.flushall()
    await one.watch.step()
    await two.watch.step()
    assert two.gate.state == one.gate.state
    assert two.gate.status is BreakerStatus.OPEN


# --- Limits that the vendor tells -------------------------------------------------------------------------------------
async def test_held_address_is_held_for_every_worker_until_its_time(workers: Workers) -> None:
    one, two = workers(), workers()
    limited = Result(Outcome.THROTTLED, retry_after_seconds=30, extra={"throttled": "endpoint"})
    one.gate.note("hook 1", limited)
    await one.watch.step()
    await two.watch.step()
    for worker in (one, two):
        until = worker.gate.stopped_until("hook 1", is_probe=False)
        assert until == pytest.approx(time.time() + 30, abs=5)
        assert worker.gate.stopped_until("hook 2", is_probe=False) is None
        assert isinstance(await worker.admit(), Permit)


async def test_global_limit_holds_the_whole_channel(workers: Workers) -> None:
    one, two = workers(), workers()
    one.gate.note("hook 1", Result(Outcome.THROTTLED, retry_after_seconds=30, extra={"throttled": "channel"}))
    await one.watch.step()
    await two.watch.step()
    refusal = await two.admit()
    assert isinstance(refusal, Refusal)
    assert refusal.until >= time.time() + 25


async def test_last_message_of_a_bucket_holds_its_address(workers: Workers) -> None:
    worker = workers()
    worker.gate.note("hook 1", Result(Outcome.SENT, extra={"hold_seconds": "1.5"}))
    assert worker.gate.stopped_until("hook 1", is_probe=False) == pytest.approx(time.time() + 1.5, abs=1)


async def test_mostly_429s_make_the_channel_wait_and_a_few_do_not(workers: Workers) -> None:
    mostly, few = workers(), workers()
    few.answer(Outcome.SENT, 90)
    few.answer(Outcome.THROTTLED, 10)
    await few.watch.step()
    assert few.gate.holds.until(WHOLE_CHANNEL, time.time()) is None
    mostly.answer(Outcome.THROTTLED, 20)
    await mostly.watch.step()
    assert mostly.gate.holds.until(WHOLE_CHANNEL, time.time()) is not None
    assert mostly.gate.status is BreakerStatus.CLOSED, "A 429 says that the vendor is well."


# --- The bulkhead -----------------------------------------------------------------------------------------------------
async def test_channel_holds_at_most_half_of_a_small_workers_threads(workers: Workers) -> None:
    gate = workers(threads=4).gate
    async with gate.batch(), gate.batch():
        assert isinstance(await gate.admit("high", 1), Permit)
        async with gate.batch():
            assert isinstance(await gate.admit("high", 1), Refusal)


# --- The rate limit ---------------------------------------------------------------------------------------------------
async def test_rate_is_shared_by_all_workers(workers: Workers) -> None:
    gates = [workers(rate_per_second=100.0).gate for _ in range(3)]
    began, starts = time.monotonic(), list[float]()
    for n in range(12):
        permit = await gates[n % 3].admit("high", 10)
        assert isinstance(permit, Permit)
        assert permit.turn.spacing == 0.01
        starts.append(permit.at + permit.turn.starts_in - began)
    # Ten sends at 100 a second take a tenth of a second, whoever sends them; the slack is for the clocks' reading.
    assert starts[-1] - starts[0] >= 11 * 0.1 - 0.02


async def test_critical_gets_most_of_a_scarce_rate_and_normal_its_share(workers: Workers) -> None:
    limit = workers(rate_per_second=1_000.0).gate.limit
    assert limit is not None
    taken = dict.fromkeys(("critical", "high", "normal"), 0)
    enough = 400

    async def ask(priority: str) -> None:
        while sum(taken.values()) < enough:
            turn = await limit.take(priority, 5)
            if hasattr(turn, "spacing"):
                taken[priority] += 5
            else:
                await asyncio.sleep(min(turn.seconds, 0.01))

    await asyncio.gather(*(ask(priority) for priority in taken for _ in range(4)))
    assert taken["critical"] > taken["high"] > taken["normal"] > 0
    assert taken["critical"] >= 0.5 * enough


async def test_rate_without_redis_is_divided_by_the_workers_that_were_there(
    workers: Workers, away: PrivateRedis
) -> None:
    one, two = workers(rate_per_second=100.0), workers(rate_per_second=100.0)
    for worker in (one, two, one):
        await worker.watch.step()
    away.stop()
    turn = await one.gate.limit.take("high", 10)  # type: ignore[union-attr]
    assert replace(turn, starts_in=0.0).spacing == 0.02  # type: ignore[type-var, union-attr]
