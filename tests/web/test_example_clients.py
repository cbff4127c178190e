"""The clients of docs/examples/ end with the same inbox as REST, though their line breaks on the way."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.test import Client as RestClient
from playwright.async_api import Page, Route, WebSocketRoute
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from devstack.proxy import Faults, Proxy
from followers import clock, service_keys
from followers.choices import Scope
from followers.models import Follower
from notifications import inbox, live, tokens
from notifications.frames import CloseCode
from notifications.live import push_alerts
from tests.web import builders
from tests.web.browser import CHROMIUM, visitor
from tests.web.server import ANSWER_SECONDS, Server

pytestmark = pytest.mark.django_db(transaction=True)

EXAMPLES = settings.BASE_DIR / "docs" / "examples"
Inbox = dict[str, Any]
"""Id → whether it is read."""
FORBIDDEN = CloseCode.FORBIDDEN.value
CLOSES = [
    (CloseCode.UNAUTHORISED.value, 2),
    (CloseCode.SILENT.value, 1),
    (CloseCode.TRY_AGAIN_LATER.value, 1),
    (1012, 1),
]
"""How a socket ends before it is refused for good, and how many tokens that takes."""


@pytest.fixture
def line(server: Server) -> Iterator[Proxy]:
    """What stands between an app and the server."""
    with Proxy(int(server.address.rpartition(":")[2])) as proxy:
        yield proxy


class PythonClient:
    """docs/examples/inbox_client.py as a process, and the inbox that its lines tell of."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.inbox: Inbox = {}
        self._process = process

    async def until(self, expected: Inbox) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            while self.inbox != expected:
                what, entry, _ = (await self._process.stdout.readline()).decode().split(" ", 2)
                if what == "gone":
                    del self.inbox[entry]
                else:
                    self.inbox[entry] = what == "read"


class BrowserClient:
    """docs/examples/inbox_client.mjs in a page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def until(self, expected: Inbox) -> None:
        held = "JSON.stringify([...client.entries.values()].map(e => [e.id, e.read_at !== null]).sort())"
        wanted = json.dumps(sorted(map(list, expected.items())), separators=(",", ":"))
        await self._page.wait_for_function(f"wanted => {held} === wanted", arg=wanted, timeout=ANSWER_SECONDS * 1_000)


@asynccontextmanager
async def python_client(line: Proxy, follower: Follower) -> AsyncIterator[PythonClient]:
    key = (await sync_to_async(service_keys.create)("Platform", [Scope.TOKENS_MINT]))[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / "inbox_client.py", f"http://{line.address}", follower.external_id, "--read",
        env={**os.environ, "NOTIFYHUB_KEY": key}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    yield PythonClient(process)
    process.kill()
    await process.wait()


@asynccontextmanager
async def browser_client(line: Proxy, follower: Follower) -> AsyncIterator[BrowserClient]:
    """In a page of NotifyHub's own; the test is the back end that its tokens come from."""

    async def mint() -> str:
        return await sync_to_async(tokens.mint)(follower)

    async with visitor(follower) as person:
        page = await person.context.new_page()
        await page.route("**/inbox_client.mjs", module)
        await page.expose_function("mint", mint)
        await page.goto(f"http://{line.address}/healthz")
        await page.evaluate(START)
        yield BrowserClient(page)


async def module(route: Route) -> None:
    await route.fulfill(path=EXAMPLES / "inbox_client.mjs", content_type="text/javascript")


START = """async () => {
  const { InboxClient } = await import("/inbox_client.mjs");
  const read = (what, entry) => what === "new" && !entry.read_at && client.markRead(entry.id);
  globalThis.client = new InboxClient(location.origin, () => mint(), read);
  client.start();
}"""

CLIENTS = [
    python_client,
    pytest.param(browser_client, marks=pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")),
]


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_whose_line_breaks_ends_with_the_inbox_that_rest_lists(
    line: Proxy, ann: Follower, settings: Any, client: Any
) -> None:
    early = [await arriving(ann) for _ in range(12)]  # More than a page by default.
    async with client(line, ann) as app:
        await app.until(read(early))
        live_one = await arriving(ann)
        await app.until(read([*early, live_one]))

        line.set(Faults(refuses=True))
        missed = [await arriving(ann) for _ in range(3)]
        await sync_to_async(elsewhere)(ann, archived=early[0], unread=early[1])
        line.set(Faults())

        expected = {**read([*early[1:], live_one, *missed]), str(early[1]): False}
        await app.until(expected)
    assert await sync_to_async(listed)(ann) == expected
    acks = [(await sync_to_async(builders.notification)(e))["deliveries"][0]["acks"] for e in (live_one, *missed)]
    assert all("received" in said for said in acks)


# --- Close codes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("code", "tokens_used"), CLOSES)
async def test_a_client_in_python_does_as_the_close_code_says(
    code: int, tokens_used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = python_example()
    monkeypatch.setattr(example, "pause_seconds", lambda failures: 0)
    minted: list[str] = []
    codes = iter((code, FORBIDDEN))

    def mint() -> str:
        minted.append(f"token-{len(minted)}")
        return minted[-1]

    async def refuse(socket: ServerConnection) -> None:
        await socket.close(next(codes), "follower_unknown")

    async with serve(refuse, "127.0.0.1", 0, subprotocols=[Subprotocol("notifyhub.v1")]) as refusing:
        port = next(iter(refusing.sockets)).getsockname()[1]
        client = example.InboxClient(f"http://127.0.0.1:{port}", mint, print)
        with pytest.raises(example.NotLetInError, match="follower_unknown"):
            await asyncio.wait_for(asyncio.to_thread(client.run), ANSWER_SECONDS)

    assert next(codes, None) is None
    assert len(minted) == tokens_used


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")
async def test_a_client_in_javascript_does_as_the_close_code_says(server: Server, ann: Follower) -> None:
    async with visitor(ann) as person:
        for code, tokens_used in CLOSES:
            codes = iter((code, FORBIDDEN))

            async def refuse(socket: WebSocketRoute, codes: Iterator[int] = codes) -> None:
                await socket.close(code=next(codes), reason="follower_unknown")

            page = await person.context.new_page()
            await page.route_web_socket("**/ws/inbox/", refuse)
            await page.route("**/inbox_client.mjs", module)
            await page.goto(f"http://{server.address}/healthz")

            assert await page.evaluate(MINTS_UNTIL_CLOSED) == tokens_used
            assert next(codes, None) is None


MINTS_UNTIL_CLOSED = """async () => {
  const { InboxClient } = await import("/inbox_client.mjs");
  let mints = 0;
  await new Promise((closed) => {
    new InboxClient(location.origin, async () => `token-${mints++}`, (what) => what === "closed" && closed()).start();
  });
  return mints;
}"""


def python_example() -> Any:
    spec = importlib.util.spec_from_file_location("inbox_client", EXAMPLES / "inbox_client.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


# --- What happens in an inbox -----------------------------------------------------------------------------------------
async def arriving(follower: Follower) -> Any:
    alert = await sync_to_async(builders.stored_alert)(follower)
    await sync_to_async(push_alerts)([alert], [])
    return alert["_id"]


def read(entries: list[Any]) -> Inbox:
    return {str(entry): True for entry in entries}


def elsewhere(follower: Follower, archived: Any, unread: Any) -> None:
    """What another device of theirs does."""
    inbox.archive(follower.pk, archived, clock.now())
    live.push_archived(follower.pk, [archived])
    inbox.mark_unread(follower.pk, unread, clock.now())
    live.push_read(follower.pk, [unread], None)


def listed(follower: Follower) -> Inbox:
    headers = {"Authorization": f"Bearer {tokens.mint(follower)}"}
    page = RestClient().get("/api/v1/inbox/?limit=100", headers=headers).json()
    return {entry["id"]: entry["read_at"] is not None for entry in page["results"]}
