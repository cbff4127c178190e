"""How the sandbox's vendors tell later what became of a message: requests to the client's own address.

Only to this machine: whatever address a client gives, nothing leaves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, urlsplit

from devstack.vendors.messages import Headers
from devstack.vendors.recorder import Recorder

TIMEOUT_SECONDS = 15.0  # Twilio's, for one request and for all its repeats together.
REPEAT_AFTER_SECONDS = 0.2
UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request that tells of one change."""

    word: str  # What it tells, in the vendor's word; counted under it.
    url: str  # A fragment is never sent.
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often a request is repeated, and after what."""

    count: int = 0
    unreachable: bool = True
    on_5xx: bool = False

    def allow(self, answer: str) -> bool:
        return (answer == UNREACHABLE and self.unreachable) or (answer.startswith("5") and self.on_5xx)


def twilio_repeats(url: str) -> Repeats:
    """Twilio's connection overrides, in a webhook's fragment: `rc` repeats (1) after what `rp` names (ct)."""
    overrides = parse_qs(urlsplit(url).fragment)
    count = overrides.get("rc", ["1"])[0]
    policies = set(overrides.get("rp", ["ct"])[0].split(","))
    return Repeats(
        count=min(int(count), 5) if count.isdecimal() else 1,
        unreachable=bool(policies & {"ct", "rt", "all"}),
        on_5xx=bool(policies & {"5xx", "all"}),
    )


class Receipts:
    """Posts receipts in the background, those of one message one after another."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tasks: set[asyncio.Task[None]] = set()

    def post(
        self, receipts: Sequence[Receipt], delay_seconds: float, repeats: Repeats, then: Callable[[], None] | None
    ) -> None:
        """Begin to post after a while; `then` is called once all are answered or given up."""
        task = asyncio.get_running_loop().create_task(self._post_all(receipts, delay_seconds, repeats, then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self) -> None:
        """Post nothing more of what is still to come."""
        for task in self._tasks:
            task.cancel()

    async def _post_all(
        self, receipts: Sequence[Receipt], delay_seconds: float, repeats: Repeats, then: Callable[[], None] | None
    ) -> None:
        await asyncio.sleep(delay_seconds)
        for receipt in receipts:
            answer = await self._post(receipt, repeats)
            self._recorder.receipts[f"{receipt.word} {answer}"] += 1
        if then is not None:
            then()

    async def _post(self, receipt: Receipt, repeats: Repeats) -> str:
        """The last answer's status, or that there was none."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIMEOUT_SECONDS
        answer = await _request(receipt, deadline - loop.time())
        for _ in range(repeats.count):
            if not repeats.allow(answer) or loop.time() + REPEAT_AFTER_SECONDS >= deadline:
                break
            await asyncio.sleep(REPEAT_AFTER_SECONDS)
            answer = await _request(receipt, deadline - loop.time())
        return answer


async def _request(receipt: Receipt, timeout_seconds: float) -> str:
    parts = urlsplit(receipt.url)
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
            try:
                writer.write(_head(receipt, parts) + receipt.body)
                status_line = await reader.readline()
            finally:
                writer.close()
        return str(HTTPStatus(int(status_line.split()[1])).value)
    except (OSError, TimeoutError, ValueError, IndexError):
        return UNREACHABLE


def _head(receipt: Receipt, parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = (
        ("host", parts.netloc),
        *receipt.headers,
        ("content-length", str(len(receipt.body))),
        ("connection", "close"),
    )
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def is_on_this_machine(url: str) -> bool:
    parts = urlsplit(url)
    try:
        local = parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
    return local and parts.scheme == "http"
