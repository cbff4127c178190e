"""Discord's webhooks and bot direct messages, API v10, as in the discord/discord-api-docs repository.

Addresses: a webhook is `{id}/{token}` (rules and queries may give its whole URL), a person is their user id.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qs

import orjson

from devstack.vendors.behaviour import Match, Rule
from devstack.vendors.credentials import Credentials
from devstack.vendors.discord_message import check_message, invalid_form, refused, throttled
from devstack.vendors.messages import Call, Message, RefusedError, Repeat, Reply, Request
from devstack.vendors.recorder import Recorder, now
from devstack.vendors.vendor import Vendor, unknown_code

PREFIX = "/api/v10"
WEBHOOK_PATH = re.compile(PREFIX + r"/webhooks/(\d{1,20})/([\w-]+)")
CHANNEL_PATH = re.compile(PREFIX + r"/channels/(\d{1,20})/messages")
DM_PATH = f"{PREFIX}/users/@me/channels"
WEBHOOK_URL = re.compile(r"https?://[^/]+/api/(?:v\d+/)?webhooks/(\d+/[\w-]+).*")
SNOWFLAKE = re.compile(r"\d{17,20}")
BOT_USER_AGENT = re.compile(r"DiscordBot \(\S+, ?\S+\).*")
NONCE_WINDOW_SECONDS = 180  # Discord says "a few minutes".
DISCORD_EPOCH_MS = 1_420_070_400_000

# Discord's code → HTTP status and message. The status beside a code is in part our reading.
ERRORS: dict[str, tuple[int, str]] = {
    "0": (401, "401: Unauthorized"),
    "10003": (404, "Unknown Channel"),
    "10013": (404, "Unknown User"),
    "10015": (404, "Unknown Webhook"),
    "20016": (429, "This action cannot be performed due to slowmode rate limit"),
    "20028": (429, "The channel you are writing has hit the write rate limit"),
    "20029": (429, "The write action you are performing on the server has hit the write rate limit"),
    "40001": (401, "Unauthorized. Provide a valid token and try again"),
    "40003": (429, "You are opening direct messages too fast"),
    "40004": (503, "Send messages has been temporarily disabled"),
    "40062": (429, "Service resource is being rate limited"),
    "40333": (403, "internal network error"),
    "50001": (403, "Missing Access"),
    "50006": (400, "Cannot send an empty message"),
    "50007": (403, "Cannot send messages to this user"),
    "50013": (403, "You lack permissions to perform that action"),
    "50014": (401, "Invalid authentication token provided"),
    "50027": (401, "Invalid Webhook Token"),
    "50033": (400, "Invalid recipient(s)"),
    "50035": (400, "Invalid Form Body"),
    "50109": (400, "The request body contains invalid JSON."),
    "50278": (403, "Cannot send messages to this user due to having no mutual guilds"),
    "130000": (503, "API resource is currently overloaded. Try again a little later"),
    "200000": (400, "Message was blocked by automatic moderation"),
    "240000": (400, "Message blocked by harmful links filter"),
}


class Discord(Vendor):
    name: ClassVar[str] = "discord"
    options: ClassVar[Mapping[str, float]] = {
        "nonce_window_seconds": NONCE_WINDOW_SECONDS,
        # Messages that one webhook or channel may have within so many seconds; 0 = any number, and no headers.
        "bucket_limit": 0,
        "bucket_seconds": 2.0,
    }
    code_words: ClassVar[Mapping[str, str]] = {
        "dead": "10015",
        "throttled": "429",
        "unavailable": "130000",
        "auth": "0",
    }

    def __init__(self, recorder: Recorder, credentials: Credentials) -> None:
        super().__init__(recorder)
        self._authorization = f"Bot {credentials.discord_bot_token}"
        self._buckets: dict[str, tuple[float, int]] = {}  # By address: when it is full again, what is left until then.

    def message_id(self) -> str:
        return str((int(now() * 1000) - DISCORD_EPOCH_MS) << 22 | secrets.randbits(22))

    def plain_address(self, address: str) -> str:
        found = WEBHOOK_URL.fullmatch(address)
        return found[1] if found else address

    def receive(self, request: Request) -> Call:
        if webhook := WEBHOOK_PATH.fullmatch(request.path):
            return self._receive_webhook(request, f"{webhook[1]}/{webhook[2]}")
        channel = CHANNEL_PATH.fullmatch(request.path)
        if channel is None and request.path != DM_PATH:
            raise http_refused(404, "404: Not Found")
        self._check_bot(request)
        return self._open_dm(request) if channel is None else self._receive_dm(request, channel[1])

    # Webhooks.

    def _receive_webhook(self, request: Request, address: str) -> Call:
        body = read_body(request)
        check_message(body, ERRORS)
        message = Message(address=address, content=canonical_content(body), body=body)
        wait = parse_qs(request.query).get("wait", ["false"])[-1].lower() in ("true", "1")
        self._take_from_bucket(address)
        return Call("send", address, request.session, [message], silent=not wait)

    # The bot.

    def _check_bot(self, request: Request) -> None:
        if not BOT_USER_AGENT.fullmatch(request.headers.get("user-agent", "")):
            raise refused("40333", ERRORS)
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._authorization.encode()):
            raise refused("0", ERRORS)

    def _open_dm(self, request: Request) -> Call:
        recipient = read_body(request).get("recipient_id")
        if not isinstance(recipient, str) or not SNOWFLAKE.fullmatch(recipient):
            raise invalid_form("recipient_id", "NUMBER_TYPE_COERCE", f'Value "{recipient}" is not snowflake.')
        channel = channel_of(recipient)
        self.recorder.note(f"channel {channel}", recipient)
        user = {"id": recipient, "username": f"user{recipient}", "discriminator": "0"}
        answer = Reply.json(200, {"id": channel, "type": 1, "last_message_id": None, "recipients": [user]})
        return Call("open_dm", recipient, request.session, answer=answer)

    def _receive_dm(self, request: Request, channel: str) -> Call:
        recipient = self.recorder.notes.get(f"channel {channel}")
        if recipient is None:
            raise refused("10003", ERRORS)
        body = read_body(request)
        check_message(body, ERRORS)
        message = Message(address=recipient, content=canonical_content(body), body=body)
        nonce = body.get("nonce")
        if nonce is not None and body.get("enforce_nonce"):
            message.key = str(nonce)
            message.repeat = Repeat.REPLAYED
            message.identity = f"{channel} {nonce}"
            message.replay_seconds = self.behaviour.options["nonce_window_seconds"]
        self._take_from_bucket(recipient)
        return Call("send", recipient, request.session, [message])

    # Rate limits.

    def _take_from_bucket(self, address: str) -> None:
        """One message of the address's bucket. Raises a 429 when it is empty."""
        limit = int(self.behaviour.options["bucket_limit"])
        if not limit:
            return
        full_at, left = self._buckets.get(address, (0.0, 0))
        if full_at <= now():
            full_at, left = now() + self.behaviour.options["bucket_seconds"], limit
        if left == 0:
            raise throttled(Rule(Match(), retry_after=full_at - now()))
        self._buckets[address] = (full_at, left - 1)

    def _bucket_headers(self, address: str) -> tuple[tuple[str, str], ...]:
        """`X-RateLimit-*` as Discord sends them with every answer (docs: topics/rate-limits)."""
        if address not in self._buckets or not self.behaviour.options["bucket_limit"]:
            return ()
        full_at, left = self._buckets[address]
        return (
            ("x-ratelimit-limit", str(int(self.behaviour.options["bucket_limit"]))),
            ("x-ratelimit-remaining", str(left)),
            ("x-ratelimit-reset", f"{full_at:.3f}"),
            ("x-ratelimit-reset-after", f"{max(0.0, full_at - now()):.3f}"),
            ("x-ratelimit-bucket", "messages"),
        )

    def reset(self) -> None:
        super().reset()
        self._buckets.clear()

    # Answers.

    def accepted(self, call: Call, message_id: str, replayed: bool) -> Reply:
        if call.silent:
            return Reply(204, headers=())
        body = call.messages[0].body
        content: dict[str, Any] = {
            "id": message_id,
            "type": 0,
            "channel_id": call.address.partition("/")[0] if "/" in call.address else channel_of(call.address),
            "content": body.get("content", ""),
            "embeds": body.get("embeds", []),
            "tts": False,
            "flags": 0,
        }
        if "nonce" in body:
            content["nonce"] = body["nonce"]
        reply = Reply.json(200, content)
        reply.headers = (*reply.headers, *self._bucket_headers(call.address))
        return reply

    def code_for(self, rule: Rule, call: Call | None) -> str | None:
        """A dead address has another code for each kind: no such webhook, no such user, a user who takes no DM."""
        if rule.code == "dead" and call is not None and "/" not in call.address:
            return "10013" if call.route == "open_dm" else "50007"
        return super().code_for(rule, call)

    def refusal(self, code: str | None, rule: Rule) -> RefusedError:
        if code == "429" or (code is None and rule.status == 429):
            return throttled(rule)
        if code is None and rule.status is not None:
            return http_refused(rule.status, rule.message or f"{rule.status}: Error")
        if code is None or (code not in ERRORS and rule.status is None):
            raise unknown_code(self.name, code, sorted(ERRORS))
        if ERRORS.get(code, (0,))[0] == 429:
            return throttled(rule, code, ERRORS[code][1])
        return refused(code, ERRORS, rule.message, rule.status)


def channel_of(recipient: str) -> str:
    """The person's DM channel: always the same one, as at Discord, and never the person's own id."""
    return str(int(recipient) ^ 0xFFFF0)


def read_body(request: Request) -> dict[str, Any]:
    if request.method != "POST":
        raise http_refused(405, "405: Method Not Allowed")
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise refused("50109", ERRORS) from None
    if not isinstance(body, dict) or not request.headers.get("content-type", "").startswith("application/json"):
        raise refused("50109", ERRORS)
    return body


def canonical_content(body: Mapping[str, Any]) -> bytes:
    """What is seen in the channel."""
    seen = {name: body[name] for name in ("content", "embeds", "components", "poll") if body.get(name)}
    return orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)


def http_refused(status: int, message: str) -> RefusedError:
    """What the HTTP layer refuses: code 0."""
    return RefusedError(str(status), Reply.json(status, {"message": message, "code": 0}))
