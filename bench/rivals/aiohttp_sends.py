"""Sends by aiohttp, for the bare loops and the tuned Celery pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
import orjson

from bench.rivals.work import HEADERS, send_url

IN_FLIGHT = 200


class Sender:
    """One session with at most IN_FLIGHT requests under way. Made in the loop that it is used in."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT), headers=HEADERS)
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._url = send_url()

    async def send(self, bodies: Sequence[bytes]) -> list[str]:
        """Sends all of them. Returns the vendor's ids; raises if one is refused."""
        return await asyncio.gather(*map(self._send_one, bodies))

    async def _send_one(self, body: bytes) -> str:
        async with self._slots, self._session.post(self._url, data=body) as answer:
            answer.raise_for_status()
            return str(orjson.loads(await answer.read())["name"])

    async def close(self) -> None:
        await self._session.close()
