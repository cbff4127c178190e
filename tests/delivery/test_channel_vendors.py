"""What only one of the vendors has, against the sandbox."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from delivery.channels import transport
from delivery.channels.base import Channel, Outcome, Result
from devstack.proxy import Faults, Proxy
from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess
from followers.choices import Channel as Name
from tests.delivery.channel_cases import CASES, NOW, Case, message, opened

SENT, RETRY, THROTTLED, REFUSED = Outcome.SENT, Outcome.RETRY, Outcome.THROTTLED, Outcome.REFUSED
DEAD, MISCONFIGURED, UNKNOWN = Outcome.DEAD, Outcome.MISCONFIGURED, Outcome.UNKNOWN


async def send_after(channel: Channel, sandbox: Sandbox, case: Case, rule: dict[str, Any]) -> Result:
    """A send under a rule that takes the first message only."""
    sandbox.behave(case.name.value, rules=[{"match": {"first_n": 1}, **rule}])
    return await channel.send(message(case), NOW)


async def test_apns_signs_an_expired_token_anew_and_sends_once_more(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["apns"]
    async with opened(vendors, case.name, {}) as channel:
        await channel.send(message(case, 1), NOW - timedelta(minutes=30))
        result = await send_after(channel, sandbox, case, {"code": "ExpiredProviderToken"})
    assert result.outcome is SENT
    assert sandbox.stats("apns")["refused"] == {"ExpiredProviderToken": 1}


async def test_apns_never_signs_a_token_anew_that_is_still_young(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["apns"]
    async with opened(vendors, case.name, {}) as channel:
        await channel.send(message(case, 1), NOW - timedelta(minutes=19))
        result = await send_after(channel, sandbox, case, {"code": "ExpiredProviderToken"})
    assert result.outcome is MISCONFIGURED
    assert sandbox.stats("apns")["requests"] == 2


@pytest.mark.parametrize("reason", ["IdleTimeout", "Shutdown", "UnrelatedKeyIdInToken"])
async def test_apns_takes_a_new_connection_when_apple_gives_one_up(
    vendors: VendorProcess, sandbox: Sandbox, reason: str
) -> None:
    case = CASES["apns"]
    async with opened(vendors, case.name, {}) as channel:
        refused = await send_after(channel, sandbox, case, {"code": reason})
        result = await channel.send(message(case), NOW)
    assert (refused.outcome, result.outcome) == (RETRY, SENT)
    assert sandbox.stats("apns")["connections_opened"] == 2


async def test_apns_goes_on_after_a_goaway_without_a_duplicate(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["apns"]
    async with opened(vendors, case.name, {}) as channel:
        await channel.send(message(case, 1), NOW)
        first = await send_after(channel, sandbox, case, {"goaway": "Shutdown"})
        second = await channel.send(message(case), NOW)
    assert first.outcome in (SENT, RETRY, UNKNOWN)  # UNKNOWN is repeated under the same key.
    assert second.outcome is SENT
    assert sandbox.stats("apns")["duplicates"] == 0


async def test_apns_gives_up_a_connection_that_went_silent_between_two_sends(
    vendors: VendorProcess, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PING_SECONDS", 0.2)
    monkeypatch.setattr(transport, "PING_ANSWER_SECONDS", 0.2)
    case = CASES["apns"]
    with Proxy(urlsplit(vendors.env["APNS_BASE_URL"]).port or 0) as proxy:
        url = f"https://{proxy.address}"
        async with opened(vendors, case.name, {"timeout_seconds": 5.0}, APNS_BASE_URL=url) as channel:
            await channel.send(message(case, 1), NOW)
            await asyncio.to_thread(proxy.set, Faults(silent=True))
            lost = await channel.send(message(case, 2), NOW)
            await asyncio.to_thread(proxy.set, Faults())
            result = await channel.send(message(case), NOW)
    assert (lost.outcome, result.outcome) == (UNKNOWN, SENT)
    assert proxy.silenced == 1


async def test_apns_shows_a_critical_alert_as_time_sensitive(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["apns"]
    async with opened(vendors, case.name, {}) as channel:
        await channel.send(message(case, critical=True), NOW)
    assert sandbox.accepted("apns")[0]["body"]["aps"]["interruption-level"] == "time-sensitive"


async def test_fcm_fetches_one_token_for_all_who_need_it(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["fcm"]
    async with opened(vendors, case.name, {}) as channel:
        await asyncio.gather(*(channel.send(message(case, i), NOW) for i in range(50)))
        await channel.send(message(case, 50), NOW + timedelta(seconds=1))
    stats = sandbox.stats("fcm")
    assert (stats["accepted"], stats["requests"]) == (51, 51 + 1)


async def test_fcm_refreshes_its_token_in_the_background_before_it_ends(
    vendors: VendorProcess, sandbox: Sandbox
) -> None:
    case = CASES["fcm"]
    sandbox.behave("fcm", token_lifetime_seconds=200)  # Less than the time before the end at which it is refreshed.
    async with opened(vendors, case.name, {}) as channel:
        await channel.send(message(case, 1), NOW)
        sandbox.behave("fcm", rules=[{"match": {"route": "token"}, "hang": True}])
        result = await channel.send(message(case), NOW)
    assert result.outcome is SENT


async def test_fcm_fetches_a_refused_token_anew_and_sends_once_more(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["fcm"]
    async with opened(vendors, case.name, {}) as channel:
        result = await send_after(channel, sandbox, case, {"code": "UNAUTHENTICATED"})
    assert result.outcome is SENT
    assert sandbox.stats("fcm")["requests"] == 4  # Token, refused, token, accepted.


@pytest.mark.parametrize(("code", "requests"), [("UNAUTHENTICATED", 4), ("THIRD_PARTY_AUTH_ERROR", 2)])
async def test_fcm_repeats_after_a_401_once_and_only_where_a_new_token_helps(
    vendors: VendorProcess, sandbox: Sandbox, code: str, requests: int
) -> None:
    sandbox.behave("fcm", rules=[{"code": code}])
    async with opened(vendors, Name.FCM, {}) as channel:
        result = await channel.send(message(CASES["fcm"]), NOW)
    assert (result.outcome, result.code) == (MISCONFIGURED, code)
    assert sandbox.stats("fcm")["requests"] == requests


@pytest.mark.parametrize("fault", [{"hang": True}, {"reset": True}, {"status": 503}, {"malformed": True}], ids=str)
async def test_without_an_access_token_nothing_is_sent(
    vendors: VendorProcess, sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    sandbox.behave("fcm", rules=[{"match": {"route": "token"}, **fault}])
    async with opened(vendors, Name.FCM, {"timeout_seconds": 1.0}) as channel:
        result = await channel.send(message(CASES["fcm"]), NOW)
    assert result.outcome is RETRY
    assert result.code.startswith("token_")
    assert sandbox.stats("fcm")["accepted"] == 0


@pytest.fixture
def foreign_account(vendors: VendorProcess, tmp_path: Path) -> str:
    """A service account's file that names somebody else."""
    account = Path(vendors.env["FCM_CREDENTIALS_FILE"]).read_text()
    path = tmp_path / "account.json"
    path.write_text(account.replace("notifyhub@", "somebody@"))
    return str(path)


async def test_fcm_with_a_foreign_service_account_is_misconfigured(
    vendors: VendorProcess, sandbox: Sandbox, foreign_account: str
) -> None:
    async with opened(vendors, Name.FCM, {}, FCM_CREDENTIALS_FILE=foreign_account) as channel:
        result = await channel.send(message(CASES["fcm"]), NOW)
    assert result.outcome is MISCONFIGURED
    assert sandbox.stats("fcm")["accepted"] == 0


async def test_sms_is_given_at_most_ten_hours(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["sms"]
    async with opened(vendors, case.name, {}) as channel:
        await channel.send(message(case, expires_at=NOW + timedelta(hours=24)), NOW)
    assert sandbox.accepted("sms")[0]["body"]["ValidityPeriod"] == "36000"


async def test_discord_opens_a_direct_message_once(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["discord-bot"]
    async with opened(vendors, case.name, {}) as channel:
        for key in ("a" * 24, "b" * 24):
            assert (await channel.send(message(case, key=key), NOW)).outcome is SENT
    assert sandbox.stats("discord")["requests"] == 3


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [({"code": "10013"}, DEAD), ({"code": "40003"}, THROTTLED), ({"reset": True}, RETRY), ({"malformed": True}, RETRY)],
)
async def test_discord_cannot_open_a_direct_message(
    vendors: VendorProcess, sandbox: Sandbox, fault: dict[str, Any], outcome: Outcome
) -> None:
    case = CASES["discord-bot"]
    async with opened(vendors, case.name, {}) as channel:
        result = await send_after(channel, sandbox, case, {**fault, "match": {"route": "open_dm", "first_n": 1}})
    assert result.outcome is outcome
    assert sandbox.stats("discord")["accepted"] == 0


async def test_discord_without_a_bot_refuses_direct_messages_and_posts_to_webhooks(
    vendors: VendorProcess, sandbox: Sandbox
) -> None:
    async with opened(vendors, Name.DISCORD, {}, DISCORD_BOT_TOKEN="") as channel:
        direct = await channel.send(message(CASES["discord-bot"]), NOW)
        webhook = await channel.send(message(CASES["discord-webhook"]), NOW)
    assert (direct.outcome, direct.code) == (REFUSED, "channel_off")
    assert webhook.outcome is SENT


async def test_discord_never_posts_to_the_addresss_own_host(vendors: VendorProcess, sandbox: Sandbox) -> None:
    address = "https://discord.example/api/webhooks/100000000000000000/secret"
    async with opened(vendors, Name.DISCORD, {}) as channel:
        result = await channel.send(message(CASES["discord-webhook"], address=address), NOW)
    assert (result.outcome, result.code) == (DEAD, "invalid_address")
    assert sandbox.stats("discord")["requests"] == 0


async def test_discord_shows_a_symbol_as_it_is_written(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["discord-webhook"]
    async with opened(vendors, case.name, {}) as channel:
        await channel.send(message(case, title="NIFTY_50_FUT", body="*5*"), NOW)
    assert sandbox.accepted("discord")[0]["body"]["content"] == "**NIFTY\\_50\\_FUT**\n\\*5\\*"


async def test_onesignal_answers_a_repeat_with_the_first_id(vendors: VendorProcess, sandbox: Sandbox) -> None:
    case = CASES["onesignal"]
    async with opened(vendors, case.name, {}) as channel:
        sandbox.behave("onesignal", rules=[{"match": {"first_n": 1}, "accept_then_reset": True}])
        lost = await channel.send(message(case), NOW)
        found = await channel.send(message(case), NOW)
    assert (lost.outcome, found.outcome, found.extra) == (UNKNOWN, SENT, {"replayed": "true"})
    assert [entry["message_id"] for entry in sandbox.accepted("onesignal")] == [found.provider_message_id]
