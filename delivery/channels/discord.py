"""Discord: webhooks, and direct messages from a bot.

Source: github.com/discord/discord-api-docs: webhook, message, rate-limits, opcodes-and-status-codes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

import followers.choices
from delivery.channels.answers import (
    Verdict,
    accepted,
    by_status,
    json_object,
    refusal,
    retry_after_seconds,
    seconds_or_none,
)
from delivery.channels.base import Channel, Message, Outcome, Result
from delivery.channels.policy import ChannelPolicy
from delivery.channels.rendering import shorten
from delivery.channels.transport import HttpClient, Request, TransportError
from followers.addresses import discord_webhook_parts
from notifications.choices import Reason

MAX_CONTENT_CHARACTERS = 2000
MAX_NONCE_CHARACTERS = 25
DM_CHANNELS_KEPT = 100_000
USER_AGENT = "DiscordBot (NotifyHub, 1.0)"
"""Cloudflare blocks (40333) whatever does not call itself `DiscordBot (url, version)`."""
_MARKDOWN = re.compile(r"([\\*_~`|>#\[\]])")

CODES: Mapping[int, Verdict] = {
    10015: (Outcome.DEAD, "The webhook was deleted"),
    50027: (Outcome.DEAD, "The webhook's token is wrong"),
    10003: (Outcome.DEAD, "The channel does not exist"),
    10013: (Outcome.DEAD, "The user does not exist"),
    50033: (Outcome.DEAD, "The recipient is not valid"),
    50007: (Outcome.DEAD, "The user takes no direct messages from us"),
    50278: (Outcome.DEAD, "The user shares no server with the bot"),
    50001: (Outcome.REFUSED, "The bot has no access to the channel"),
    50013: (Outcome.REFUSED, "The bot may not write in the channel"),
    0: (Outcome.MISCONFIGURED, "Discord refused the bot's token"),
    40001: (Outcome.MISCONFIGURED, "Discord refused the bot's token"),
    50014: (Outcome.MISCONFIGURED, "The bot's token is wrong"),
    40333: (Outcome.MISCONFIGURED, "Discord's proxy blocked our requests"),
    50035: (Outcome.REFUSED, "Discord refused the form of the message"),
    50006: (Outcome.REFUSED, "The message is empty"),
    50109: (Outcome.REFUSED, "The request was not JSON"),
    200000: (Outcome.REFUSED, "The server's own rules blocked the message"),
    240000: (Outcome.REFUSED, "The message holds a link that Discord blocks"),
    20016: (Outcome.THROTTLED, "The channel is in slow mode"),
    20028: (Outcome.THROTTLED, "The channel has had too many messages"),
    20029: (Outcome.THROTTLED, "The server has had too many messages"),
    40003: (Outcome.THROTTLED, "Too many direct messages were opened"),
    40062: (Outcome.THROTTLED, "Discord's service is rate limited"),
    40004: (Outcome.RETRY, "Discord has switched sending off for a while"),
    130000: (Outcome.RETRY, "Discord is overloaded"),
}
"""`code` of Discord's JSON answer. RETRY becomes UNKNOWN for a webhook, which has no nonce. Code 0 says no more than
the HTTP status; with a 401 it is about the token."""


@dataclass(frozen=True, slots=True)
class DiscordConfig:
    """`bot_token` empty = webhooks only, which need no credential."""

    base_url: str
    bot_token: str = ""


class DiscordChannel(Channel):
    """Posts to a webhook, or to a user as a direct message.

    A bot's message carries a nonce that Discord remembers for a few minutes; a webhook has nothing of the kind.
    """

    name = followers.choices.Channel.DISCORD
    key_window_seconds = 120.0  # "A few minutes", says Discord; two are on the safe side.

    def __init__(self, config: DiscordConfig, policy: ChannelPolicy) -> None:
        super().__init__(policy)
        self._config = config
        self._api = f"{config.base_url}/api/v10"
        self._headers = {"content-type": "application/json", "user-agent": USER_AGENT}
        self._bot_headers = {**self._headers, "authorization": f"Bot {config.bot_token}"}
        self._dm_channels: dict[str, str] = {}

    @property
    def account(self) -> str:
        return "bot and webhooks" if self._config.bot_token else "webhooks"

    def keyed(self, message: Message) -> bool:
        return discord_webhook_parts(message.address) is None

    def new_client(self) -> HttpClient:
        return HttpClient(
            self._config.base_url,
            policy=self.policy,
        )

    async def prepare(self, message: Message, now: datetime, deadline: float) -> Result | None:
        """A direct message needs its channel opened once. Only Discord's own addresses go any further."""
        user = message.address
        if user in self._dm_channels or discord_webhook_parts(user) is not None:
            return None
        if not (user.isascii() and user.isdecimal()):
            return Result(Outcome.DEAD, "invalid_address", "The address is neither a Discord webhook nor a user.")
        if not self._config.bot_token:
            return Result(Outcome.REFUSED, Reason.CHANNEL_OFF.value, "Direct messages need a bot token.")
        return await self._open_dm(message, deadline)

    def request(self, message: Message, now: datetime) -> Request:
        text = f"**{_plain(message.title)}**\n{_plain(message.body)}"
        body: dict[str, Any] = {
            "content": shorten(text, MAX_CONTENT_CHARACTERS),
            "allowed_mentions": {"parse": []},  # Nothing in an alert may ping anybody.
        }
        webhook = discord_webhook_parts(message.address)
        if webhook is not None:
            # Posted to the configured host, never to the address's own. Without `wait` there would be no message id.
            url = f"{self._api}/webhooks/{webhook[0]}/{webhook[1]}?wait=true"
            return Request(url, self._headers, orjson.dumps(body))
        body["nonce"] = message.key[:MAX_NONCE_CHARACTERS]
        body["enforce_nonce"] = True
        url = f"{self._api}/channels/{self._dm_channels[message.address]}/messages"
        return Request(url, self._bot_headers, orjson.dumps(body))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, message: Message) -> Result:
        answer = json_object(body)
        if status == 200:
            return accepted(str(answer.get("id") or ""), message, **_last_for_now(headers))
        in_doubt = Outcome.RETRY if self.keyed(message) else Outcome.UNKNOWN
        code = answer.get("code")
        verdict = CODES.get(code) if isinstance(code, int) else None
        if verdict is None or status == 429 or (code == 0 and status != 401):
            verdict = by_status(status, after_5xx=in_doubt)
        elif verdict[0] is Outcome.RETRY:
            verdict = (in_doubt, verdict[1])
        return refusal(
            verdict,
            str(code) if code and isinstance(code, int) else f"http_{status}",
            str(answer.get("message") or ""),
            message,
            retry_after=_retry_after(answer, headers),
            extra={"throttled": "channel" if _is_global(answer, headers) else "endpoint"},
        )

    def recover(self, request: Request, result: Result, message: Message, now: datetime) -> bool:
        """A direct-message channel that is gone is opened anew."""
        return result.code == "10003" and self._dm_channels.pop(message.address, None) is not None

    async def _open_dm(self, message: Message, deadline: float) -> Result | None:
        """Ask for the channel of a user; Discord returns the existing one, so that asking twice is harmless."""
        body = orjson.dumps({"recipient_id": message.address})
        request = Request(f"{self._api}/users/@me/channels", self._bot_headers, body)
        try:
            response = await self.http.post(request, deadline - time.monotonic())
        except TransportError as error:
            # Whether it went out does not matter: opening is no message.
            return Result(Outcome.RETRY, f"dm_{error.code}", "The direct message could not be opened.")
        result = self.classify(response.status, response.headers, response.body, message)
        if result.outcome is Outcome.UNKNOWN:
            return replace(result, outcome=Outcome.RETRY)
        if result.outcome is not Outcome.SENT:
            return result
        if len(self._dm_channels) >= DM_CHANNELS_KEPT:
            self._dm_channels.pop(next(iter(self._dm_channels)))
        self._dm_channels[message.address] = result.provider_message_id
        return None


def _plain(text: str) -> str:
    """Text that Discord shows as it is: an underscore in a symbol is no italics."""
    return _MARKDOWN.sub(r"\\\1", text)


def _retry_after(answer: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    """The body's `retry_after` (float seconds) is finer than the header (whole seconds)."""
    seconds = seconds_or_none(answer.get("retry_after"))
    return retry_after_seconds(headers) if seconds is None else seconds


def _last_for_now(headers: Mapping[str, str]) -> dict[str, str]:
    """Whether this was the last message that the webhook or channel may have until its bucket is filled again."""
    wait = seconds_or_none(headers.get("x-ratelimit-reset-after"))
    return {"hold_seconds": str(wait)} if headers.get("x-ratelimit-remaining") == "0" and wait else {}


def _is_global(answer: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Whether a 429 stops every route, not only this webhook or channel."""
    return answer.get("global") is True or headers.get("x-ratelimit-scope") == "global"
