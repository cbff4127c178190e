"""What every channel promises, against the sandbox vendors: one test for all of them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pyreqwest.logging
import pytest

from delivery.channels.base import Channel, Outcome
from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess
from followers.choices import Channel as Name
from tests.delivery.channel_cases import CASES, NOW, Case, message, opened

SENT, RETRY, THROTTLED, UNKNOWN = Outcome.SENT, Outcome.RETRY, Outcome.THROTTLED, Outcome.UNKNOWN
REFUSALS = [(name, code) for name, case in CASES.items() for code in case.refusals]


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
async def channel(vendors: VendorProcess, sandbox: Sandbox, case: Case) -> AsyncIterator[Channel]:
    async with opened(vendors, case.name, {}) as channel:
        yield channel


async def test_an_accepted_message_is_sent_under_the_vendors_id_with_exactly_this_payload(
    case: Case, channel: Channel, sandbox: Sandbox
) -> None:
    result = await channel.send(message(case), NOW)

    [accepted] = sandbox.accepted(case.name.value, message(case).address)
    expected_id = case.headers.get("apns-id", accepted["message_id"])
    assert (result.outcome, result.provider_message_id) == (SENT, expected_id)
    assert result.latency_seconds > 0
    accepted["body"].pop("app_id", None)
    assert accepted["body"] == case.payload
    assert accepted["key"] == case.key
    assert {name: accepted["headers"].get(name) for name in case.headers} == case.headers
    assert sandbox.stats(case.name.value)["warnings"] == {}


@pytest.mark.parametrize(("name", "code"), REFUSALS)
async def test_a_refusal_becomes_what_its_code_means(
    vendors: VendorProcess, sandbox: Sandbox, name: str, code: str
) -> None:
    case = CASES[name]
    sandbox.behave(case.name.value, rules=[{"match": {"address": case.address(0)}, "code": code}])
    async with opened(vendors, case.name, {}) as channel:
        result = await channel.send(message(case), NOW)
        other = await channel.send(message(case, 1), NOW)

    assert result.outcome is case.refusals[code]
    assert result.message
    assert other.outcome is SENT


async def test_throttling_carries_the_wait_that_the_vendor_asks_for(
    case: Case, channel: Channel, sandbox: Sandbox
) -> None:
    sandbox.behave(case.name.value, rules=[{"code": "throttled", "retry_after": 7}])
    result = await channel.send(message(case), NOW)
    assert (result.outcome, result.retry_after_seconds) == (THROTTLED, case.retry_after)


async def test_a_page_of_html_with_a_bad_status_is_the_vendors_trouble(
    case: Case, channel: Channel, sandbox: Sandbox
) -> None:
    sandbox.behave(case.name.value, rules=[{"status": 502, "code": "unavailable", "body_override": "<html>"}])
    result = await channel.send(message(case), NOW)
    assert (result.outcome, result.code) == (RETRY if channel.keyed(message(case)) else UNKNOWN, "http_502")


async def test_an_answer_that_cannot_be_read_is_no_success(case: Case, channel: Channel, sandbox: Sandbox) -> None:
    sandbox.behave(case.name.value, rules=[{"malformed": True}])
    assert (await channel.send(message(case), NOW)).outcome is case.malformed


async def test_no_answer_in_time_is_unknown(vendors: VendorProcess, sandbox: Sandbox, case: Case) -> None:
    async with opened(vendors, case.name, {"timeout_seconds": 1.0}) as channel:
        await channel.send(message(case, 1), NOW)  # Has the token, the channel and the connection ready.
        sandbox.behave(case.name.value, rules=[{"hang": True}])
        result = await channel.send(message(case), NOW)
    assert (result.outcome, result.code) == (UNKNOWN, "timeout")


async def test_a_connection_lost_after_the_vendor_accepted_is_unknown_and_nothing_is_repeated(
    case: Case, channel: Channel, sandbox: Sandbox
) -> None:
    sandbox.behave(case.name.value, rules=[{"accept_then_reset": True}])
    result = await channel.send(message(case), NOW)

    assert (result.outcome, result.code) == (UNKNOWN, "connection_lost")
    stats = sandbox.stats(case.name.value)
    assert (stats["accepted"], stats["requests"]) == (1, 1 + case.requests_before)


async def test_a_refused_connection_is_a_retry_because_nothing_was_sent(
    vendors: VendorProcess, sandbox: Sandbox, case: Case
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # Bound, but nobody listens.
        prefix = {Name.SMS: "TWILIO"}.get(case.name, case.name.value.upper())
        scheme = vendors.env[f"{prefix}_BASE_URL"].partition(":")[0]
        closed = f"{scheme}://127.0.0.1:{bound.getsockname()[1]}"
        async with opened(vendors, case.name, {}, **{f"{prefix}_BASE_URL": closed}) as channel:
            result = await channel.send(message(case), NOW)
    assert (result.outcome, result.code.removeprefix("dm_")) == (RETRY, "connect_error")


async def test_two_hundred_at_once_share_few_connections(vendors: VendorProcess, sandbox: Sandbox, case: Case) -> None:
    before = sandbox.stats(case.name.value)["connections_opened"]
    async with opened(vendors, case.name, {"concurrency": 10}) as channel:
        results = await asyncio.gather(*(channel.send(message(case, i), NOW) for i in range(200)))

    assert {result.outcome for result in results} == {SENT}
    stats = sandbox.stats(case.name.value)
    assert (stats["accepted"], stats["duplicates"]) == (200, 0)
    # A connection may be opened while another one is on its way back to the pool.
    assert stats["connections_opened"] - before <= (1 if case.name is Name.APNS else 30)


async def test_a_repeat_is_seen_once_exactly_where_the_channel_says_so(
    case: Case, channel: Channel, sandbox: Sandbox
) -> None:
    first, second = [await channel.send(message(case), NOW) for _ in range(2)]
    assert first.outcome is second.outcome is SENT
    stats = sandbox.stats(case.name.value)
    assert stats["duplicates"] == (0 if channel.keyed(message(case)) else 1)
    assert bool(case.key) is channel.keyed(message(case))


@pytest.mark.parametrize("late_seconds", [0, 1, 3600])
async def test_nothing_is_sent_past_its_validity(
    case: Case, channel: Channel, sandbox: Sandbox, late_seconds: int
) -> None:
    expires_at = NOW - timedelta(seconds=late_seconds)
    result = await channel.send(message(case, expires_at=expires_at), NOW)
    assert (result.outcome, result.code) == (Outcome.EXPIRED, "validity_over")
    assert sandbox.stats(case.name.value)["requests"] == 0


async def test_a_text_beyond_the_vendors_limit_is_cut_and_still_sent(
    case: Case, channel: Channel, sandbox: Sandbox
) -> None:
    result = await channel.send(message(case, body='₹ "quoted" 😀 ' * 1000), NOW)
    assert (result.outcome, result.message) == (SENT, "")
    is_cut = "…" in str(sandbox.accepted(case.name.value)[0]["body"])
    assert is_cut == (case.name is not Name.ONESIGNAL)  # OneSignal documents no limit for the text.


FAULTS: list[dict[str, Any]] = [
    {"code": "dead"},
    {"code": "auth"},
    {"hang": True},
    {"reset": True},
    {"malformed": True},
    {"code": "unavailable"},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
async def test_neither_logs_nor_results_show_an_address_or_a_credential(
    vendors: VendorProcess, sandbox: Sandbox, case: Case, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    logging.getLogger().setLevel(1)
    address = case.address(0)
    sandbox.behave(case.name.value, rules=[{**fault, "message": f"{address} is not good"}])
    async with opened(vendors, case.name, {"timeout_seconds": 0.5}) as channel:
        result = await channel.send(message(case), NOW)
    pyreqwest.logging.flush_logs()

    shown = caplog.text + repr(result)
    secrets = [address, address.rpartition("/")[2], vendors.env["TWILIO_AUTH_TOKEN"]]
    secrets += [vendors.env["DISCORD_BOT_TOKEN"], vendors.env["ONESIGNAL_API_KEY"], "bearer ey", "Bearer ey"]
    assert [secret for secret in secrets if secret in shown] == []
